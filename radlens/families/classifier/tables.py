"""Tables of predictions, training records and exports of classifiers; this module needs no torch."""

from collections.abc import Mapping
from typing import Any

from rich.markup import escape

from radlens.families.base import Table

__all__ = ["bundle_tables", "causal_tables", "prediction_tables", "record_tables"]


def prediction_tables(answer: Mapping[str, Any]) -> list[Table | str]:
    """Return the probability of each class, the most probable first."""
    found = answer["prediction"]
    spread = found.get("probability_std")
    columns = ("class", "probability", *(["standard deviation of members"] if spread else []))
    numbers = [found["probabilities"], spread] if spread else [found["probabilities"]]
    values = zip(found["classes"], *numbers, strict=True)
    rows = [(escape(name), *(f"{number:.4f}" for number in each)) for name, *each in values]
    rows.sort(key=lambda row: float(row[1]), reverse=True)
    title = f"Predicted: {escape(found['predicted'])}" if answer["assessable"] else "Not assessable: no class"
    return [Table(title, columns, rows)]


def record_tables(record: Mapping[str, Any]) -> list[Table | str]:
    """Return the measures of a finished run on images that no member has seen."""
    found = record["evaluation"]
    measures = {"AUC": "auc", "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity"}
    rows = [
        (name, f"{found[key]['value']:.3f}", f"{found[key]['low']:.3f} to {found[key]['high']:.3f}")
        for name, key in measures.items()
    ]
    title = f"On {found['n_negative']} {record['classes'][0]} and {found['n_positive']} {record['classes'][1]} images"
    below = "accuracy, sensitivity and specificity: at the point of the ROC curve nearest to the upper left corner"
    if record["note"]:
        below = f"{below}\n{record['note']}"
    return [Table(f"{title} that no member has seen", ("measure", "value", "95 % interval"), rows, below)]


def causal_tables(record: Mapping[str, Any] | None) -> list[Table | str]:
    """Return the causal record as a table; empty without one."""
    if record is None:
        return []
    from radlens.evaluation.lesion_removal import named_lesion

    columns = ("removed", "score fell", "95 % interval", "fall of the log-odds (95 % interval)")
    rows = []
    lesion = named_lesion(record.get("category", "malignant"))
    for key, name in (("lesion", lesion), ("control", "healthy tissue of the same size")):
        found = record[key]
        if found is None:
            rows.append((name, "not possible", "-", "-"))
            continue
        interval = f"{found['low']:.0%} to {found['high']:.0%}"
        fall = f"{found['fall']:.2f} ({found['fall_low']:.2f} to {found['fall_high']:.2f})"
        rows.append((name, f"{found['n_lowered']} of {found['n']}", interval, fall))
    below = "no control" if record["p"] is None else f"larger fall without the lesion: p = {record['p']:.4g}"
    return [Table("Causal record: removing a lesion from simulated images", columns, rows, below)]


def bundle_tables(parity: Mapping[str, Any], manifest: Any) -> list[Table | str]:
    """Return the errors of the graphs, what was left out of the network, and the methods that the graphs allow."""
    rows = [(member, graph, f"{error:.1e}") for member, errors in parity.items() for graph, error in errors.items()]
    return [
        Table("Graphs in float32 against float64", ("member", "graph", "relative error"), rows),
        *(f"{member} ended in a {kind.lower()}, which was left out" for member, kind in manifest.left_out.items()),
        *causal_tables(manifest.training.get("causal")),
        f"methods: {', '.join(manifest.explainers)}",
        *(f"not {method}: {escape(reason)}" for method, reason in manifest.refused.items()),
    ]
