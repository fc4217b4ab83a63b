"""Cost of the front door for a request, beside TorchServe alone, in one run on one server.

    python benchmarks/front_door.py [--requests 300] [--workdir .run] [--model cdmam]

Asks the running server for predictions of an empty body, which its handler refuses at once, and of bodies of 1 MB that
are no image. Both are sent in turn through the front door and to TorchServe itself, so that other work of the machine
falls on both. Prints medians, percentiles and the difference of the medians.
"""

import argparse
import json
import os
import statistics
import time
from collections import defaultdict
from pathlib import Path

import httpx
from measuring import machine

from radlens.server import State

_BODIES = {"empty": 0, "1 MB": 1_000_000}


def asked(http: httpx.Client, url: str, body: bytes, key: str) -> float:
    """Return the milliseconds of one request; its answer must be that of the handler."""
    began = time.perf_counter()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/octet-stream"}
    answer = http.post(url, content=body, headers=headers)
    took = 1000 * (time.perf_counter() - began)
    if "request_id" not in answer.json() or answer.status_code not in (400, 415):
        raise SystemExit(f"the handler must refuse the body, got {answer.status_code}")
    return took


def main() -> None:
    """Measure, and print one JSON document."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--requests", type=int, default=300, help="requests of each kind")
    parser.add_argument("--workdir", type=Path, default=Path(".run"), help="working directory of the server")
    parser.add_argument("--model", default="cdmam", help="name of a model")
    given = parser.parse_args()
    state = State.load(given.workdir)
    if state is None:
        raise SystemExit(f"a server must run in {given.workdir}, got none; start it with radlens serve")
    key = state.keys().inference or ""
    ways = {"front door": state.url, "TorchServe": f"http://127.0.0.1:{state.ports.inference}"}
    times: dict[tuple[str, str], list[float]] = defaultdict(list)
    with httpx.Client(timeout=60) as http:
        for number in range(given.requests + 20):
            for name, n_bytes in _BODIES.items():
                for way, url in ways.items():
                    took = asked(http, f"{url}/predictions/{given.model}", bytes(n_bytes), key)
                    if number >= 20:
                        times[name, way].append(took)
    found = {}
    for name in _BODIES:
        row = {way: _summary(times[name, way]) for way in ways}
        cost = row["front door"]["median_ms"] - row["TorchServe"]["median_ms"]
        found[name] = {**row, "cost_ms": round(cost, 2)}
    load = [round(each, 2) for each in os.getloadavg()]
    document = {"requests": given.requests, "bodies": found, "machine": machine(), "load_average": load}
    print(json.dumps(document, indent=1))


def _summary(times: list[float]) -> dict[str, float]:
    percentiles = statistics.quantiles(times, n=20)
    return {"median_ms": round(statistics.median(times), 2), "p95_ms": round(percentiles[-1], 2)}


if __name__ == "__main__":
    main()
