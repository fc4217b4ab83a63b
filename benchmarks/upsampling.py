"""Measure the time of whole upsampled maps: with N = 5000 samples, and with a reliability of 0.95.

    python benchmarks/upsampling.py
    python benchmarks/upsampling.py --reliability 0.95 --output benchmarks/results/upsampling.json

The image is a simulated phantom of 7 million pixels, the ensemble the demo members repeated to ten. The map of N
samples is measured on a part of the samples and scaled to N, as the output states; the reliable map is computed in
full. The map of the paper (N = 5000, 50 steps) took 4.5 hours.
"""

import argparse
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PeakMemory, floors, in_process, machine, machine_line, save, show
from omig import BY_HAND, BY_HAND_STEPS, gradient_by_hand
from rich.progress import Progress

PAPER_HOURS = 4.5
"""Time of one upsampled map in Amanova et al. 2022, section 3.3, hours."""


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10, help="members of the ensemble (default 10)")
    parser.add_argument("--steps", type=int, default=50, help="gradients per sample, L in the paper (default 50)")
    parser.add_argument("--samples", type=int, default=5000, help="samples of the full map, N (default 5000)")
    parser.add_argument("--measure", type=int, default=32, help="samples that are computed for it (default 32)")
    parser.add_argument("--engines", nargs="+", default=["auto"], help="engines to compare (default auto)")
    parser.add_argument(
        "--reliability", type=float, help="also compute a map of this reliability, with the first engine"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "floors": floors()}
    results |= {name: getattr(options, name) for name in ("members", "steps", "samples", "measure")}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if failed := in_process(_export, folder, options.members):
            raise SystemExit(failed["error"])
        ways = [BY_HAND, *options.engines]
        results["full_map"] = [row for way in ways if (row := _row(way, folder, options)) is not None]
        _show_full(results)
        if options.reliability:
            arguments = (options.engines[0], folder, options.steps, options.reliability, options.samples)
            results["reliable_map"] = reliable = in_process(_reliable, *arguments)
            if "error" in reliable:
                raise SystemExit(reliable["error"])
            _show_reliable(results)
    if options.output:
        save(options.output, results)


def _row(way: str, folder: Path, options: argparse.Namespace) -> dict[str, Any] | None:
    found = in_process(_time_way, way, folder, options.members, options.steps, options.measure)
    if "error" in found:
        print(f"{way} left out: {found['error']}")
        return None
    return found | {"hours": found["s_per_sample"] * options.samples / 3600}


def _show_full(results: dict[str, Any]) -> None:
    rows = results["full_map"]
    first = next((row["hours"] for row in rows if row["way"] == BY_HAND), float("nan"))
    parts = ("gradients", "sampling", "rest")
    show(
        f"Map of N = {results['samples']} samples, {results['members']} members, {results['steps']} steps."
        f" {machine_line(results['machine'])}",
        ["way", "s a sample", *(f"{part} %" for part in parts), "hours for N", f"x {BY_HAND}", "x paper", "peak MiB"],
        [
            [
                row["way"],
                row["s_per_sample"],
                *(f"{100 * row['parts'][part]:.1f}" for part in parts),
                row["hours"],
                first / row["hours"],
                PAPER_HOURS / row["hours"],
                round(row["peak_mib"]),
            ]
            for row in rows
        ],
    )
    print(
        f"Measured on {results['measure']} samples ({BY_HAND}: on {BY_HAND_STEPS} steps of one), scaled to"
        f" {results['samples']}. The paper's {PAPER_HOURS} hours were measured on another machine."
    )


def _show_reliable(results: dict[str, Any]) -> None:
    found = results["reliable_map"]
    print(
        f"Reliability {found['reliability']:.3f} (wanted {found['wanted']}) after {found['n_samples']} samples,"
        f" {found['seconds'] / 60:.1f} minutes, with engine {found['engine']}; computed in full."
    )


def _export(folder: Path, n_members: int) -> None:
    from ensemble import demo_bundle

    demo_bundle(folder, n_members)


class _Clock:
    """Sums of seconds by part of the computation."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[part] += time.perf_counter() - started

    def wrapped(self, part: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **options: Any) -> Any:
            with self.measure(part):
                return function(*arguments, **options)

        return call


def _time_way(way: str, folder: Path, n_members: int, n_steps: int, measure: int) -> dict[str, Any]:
    from radlens.explainers import omig, upsample, upsampling

    pixels = _pixels(folder)
    by_hand = way == BY_HAND
    name, gradient = (way, gradient_by_hand(n_members)) if by_hand else _by_engine(folder, way)
    n_samples, computed = (1, min(BY_HAND_STEPS, n_steps)) if by_hand else (measure, n_steps)
    clock, peak = _Clock(), PeakMemory()
    timed = clock.wrapped("gradients", gradient)
    # upsample has no hook for the sampling: replace the function in this process, which ends after the measurement.
    upsampling.flat_indices = clock.wrapped("sampling", upsampling.flat_indices)
    # A warm-up: preparation that happens once per run does not count.
    upsample(pixels, lambda images: omig(gradient, images, n_steps=2), n_samples=1)
    clock.seconds.clear()
    peak.reset()
    with clock.measure("all"):
        upsample(pixels, lambda images: omig(timed, images, n_steps=computed), n_samples=n_samples)
    clock.seconds["gradients"] *= n_steps / computed
    rest = clock.seconds["all"] - clock.seconds["sampling"] - clock.seconds["gradients"] * computed / n_steps
    parts = {"gradients": clock.seconds["gradients"], "sampling": clock.seconds["sampling"], "rest": rest}
    total = sum(parts.values())
    return {
        "way": name,
        "s_per_sample": total / n_samples,
        "parts": {part: seconds / total for part, seconds in parts.items()},
        "peak_mib": peak.mib(),
    }


def _reliable(engine: str, folder: Path, n_steps: int, reliability: float, max_samples: int) -> dict[str, Any]:
    from radlens.explainers import omig, upsample

    pixels = _pixels(folder)
    name, gradient = _by_engine(folder, engine)
    started = time.perf_counter()
    with Progress(transient=True) as progress:
        task = progress.add_task("samples", total=None)
        found = upsample(
            pixels,
            lambda images: omig(gradient, images, n_steps=n_steps),
            n_samples="auto",
            reliability=reliability,
            max_samples=max_samples,
            on_progress=lambda done, total, *_: progress.update(task, completed=done, total=total),
        )
    return {
        "engine": name,
        "wanted": reliability,
        "reliability": found.reliability,
        "n_samples": found.n_samples,
        "seconds": time.perf_counter() - started,
    }


def _by_engine(folder: Path, way: str) -> tuple[str, Callable[[Any], Any]]:
    from radlens.families.cdmam.manifest import Bundle
    from radlens.families.cdmam.model import open_bundle

    model = open_bundle(Bundle.load(folder), way)
    return model.name, model.gradient


def _pixels(folder: Path) -> np.ndarray:
    from radlens.families.cdmam.manifest import Bundle
    from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate

    return Bundle.load(folder).normalize(simulate(SCENARIOS["1"], Layout.with_margin(1)).pixels)


if __name__ == "__main__":
    main()
