"""What people and monitors see of a node: numbers, tasks, lanes."""

from __future__ import annotations

import time
from typing import Any

from radlens.node.queue import Queue

__all__ = ["listed", "metrics_text", "summary"]


def summary(queue: Queue) -> dict[str, Any]:
    """Return the state of a queue as JSON values.

    Returns:
        ``counts`` since the queue was made, ``images`` that are kept, ``tasks`` and ``deliveries`` by state,
        ``oldest_s`` since the oldest unfinished task could first be done, ``lanes`` that have failed, ``disk_free_mb``.
    """
    rows = queue.database.rows
    oldest = rows("SELECT min(since) AS since FROM tasks WHERE state IN ('waiting', 'sending')")[0]["since"]
    now = time.time()
    return {
        "counts": {row["name"]: row["value"] for row in rows("SELECT * FROM counts ORDER BY name")},
        "images": queue.length(),
        "tasks": {row[0]: row[1] for row in rows("SELECT state, count(*) FROM tasks GROUP BY state ORDER BY state")},
        "deliveries": {
            name: {row["state"]: row["n"] for row in rows(_BY_STATE, name)}
            for (name,) in rows("SELECT DISTINCT destination FROM deliveries ORDER BY destination")
        },
        "oldest_s": 0.0 if oldest is None else round(now - oldest, 1),
        "lanes": [
            {
                "name": row["name"],
                "failures": row["failures"],
                "failing_s": round(now - row["since"], 1),
                "rests_s": round(max(0.0, row["until"] - now), 1),
                "error": row["error"],
            }
            for row in rows("SELECT * FROM lanes ORDER BY name")
        ],
        "disk_free_mb": round(queue.folder.free_mb()),
    }


_BY_STATE = "SELECT state, count(*) AS n FROM deliveries WHERE destination = ? GROUP BY state ORDER BY state"


def listed(queue: Queue, states: tuple[str, ...], most: int) -> list[dict[str, Any]]:
    """Return tasks of some states, the oldest first, with the error of the step that failed last."""
    marks = ", ".join("?" * len(states))
    query = f"""SELECT tasks.*, images.uid, images.sender, images.received, images.bytes,
        (SELECT count(*) FROM objects WHERE task = tasks.id) AS objects,
        (SELECT group_concat(DISTINCT destination || ': ' || deliveries.error) FROM deliveries
         JOIN objects ON objects.id = deliveries.object
         WHERE task = tasks.id AND deliveries.error IS NOT NULL) AS failed,
        (SELECT min(deliveries.due) FROM deliveries JOIN objects ON objects.id = deliveries.object
         WHERE task = tasks.id AND deliveries.state IN ('waiting', 'committing')) AS next
        FROM tasks JOIN images ON images.id = tasks.image WHERE tasks.state IN ({marks}) ORDER BY tasks.id LIMIT ?"""
    now = time.time()
    return [
        {
            "id": row["id"],
            "state": row["state"],
            "rule": row["rule"],
            "sender": row["sender"],
            "uid": row["uid"],
            "bytes": row["bytes"],
            "age_s": round(now - row["received"], 1),
            "next_s": round(max(0.0, (row["next"] if row["next"] is not None else row["due"]) - now), 1),
            "attempts": row["attempts"],
            "objects": row["objects"],
            "error": row["error"] or row["failed"],
        }
        for row in queue.database.rows(query, *states, most)
    ]


def metrics_text(state: dict[str, Any]) -> str:
    """Return a summary in the text format of Prometheus."""
    lines = ["# TYPE radlens_node_events_total counter"]
    lines += [f"radlens_node_events_total{_labels(event=name)} {n}" for name, n in state["counts"].items()]
    lines += ["# TYPE radlens_node_tasks gauge"]
    lines += [f"radlens_node_tasks{_labels(state=name)} {n}" for name, n in state["tasks"].items()]
    lines += ["# TYPE radlens_node_deliveries gauge"]
    for destination, states in state["deliveries"].items():
        for name, n in states.items():
            lines.append(f"radlens_node_deliveries{_labels(destination=destination, state=name)} {n}")
    lines += ["# TYPE radlens_node_lane_failures gauge"]
    lines += [f"radlens_node_lane_failures{_labels(lane=each['name'])} {each['failures']}" for each in state["lanes"]]
    for name, key in (("images", "images"), ("oldest_seconds", "oldest_s"), ("disk_free_mebibytes", "disk_free_mb")):
        lines += [f"# TYPE radlens_node_{name} gauge", f"radlens_node_{name} {state[key]}"]
    return "\n".join(lines) + "\n"


def _labels(**labels: str) -> str:
    shown = (f'{name}="{_escaped(value)}"' for name, value in labels.items())
    return "{" + ",".join(shown) + "}"


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
