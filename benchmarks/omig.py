"""Compare whole OMIG maps: Algorithm 1 as a reader of the paper writes it, and with every engine of this machine.

    python benchmarks/omig.py
    python benchmarks/omig.py --steps 50 --batches 1 8 --output benchmarks/results/omig.json

The first way loops over steps and, in each, over the members of Table 2 with autograd. It is measured on a few steps
and scaled, as the output states; all other ways compute every step.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from measuring import PeakMemory, fastest, floors, in_process, machine, machine_line, merged, save, show
from rich.progress import Progress

BY_HAND = "per member"
BY_HAND_STEPS = 3
"""Number of steps of the first way that are computed."""


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10, help="members of the ensemble (default 10)")
    parser.add_argument("--steps", type=int, default=50, help="gradients of a map, L in the paper (default 50)")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8], help="maps at once (default 1 8)")
    parser.add_argument("--engines", nargs="+", help="engines, by default all that start")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each way; the fastest counts (default 2)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "floors": floors()}
    results |= {"members": options.members, "steps": options.steps}
    with tempfile.TemporaryDirectory() as folder:
        failed = in_process(_export, Path(folder), options.members)
        if failed:
            raise SystemExit(failed["error"])
        results["maps"] = rows = _measured(Path(folder), options)
    show(
        f"OMIG of {options.members} members, {options.steps} steps. {machine_line(results['machine'])}",
        ["way", "maps at once", "s a map", "maps an hour", f"x {BY_HAND}", "peak MiB"],
        [
            [row["way"], row["batch"], row["ms"] / 1e3, 3.6e6 / row["ms"], row["ratio"], round(row["peak_mib"])]
            for row in rows
        ],
    )
    print(f"{BY_HAND.capitalize()}: {BY_HAND_STEPS} of {options.steps} steps measured, the rest scaled.")
    if options.output:
        save(options.output, results)


def _measured(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from radlens import engines

    ways = [BY_HAND, *(options.engines or engines.names())]
    rounds = []
    with Progress(transient=True) as progress:
        task = progress.add_task("OMIG", total=len(ways) * options.rounds)
        for _ in range(options.rounds):
            for way in ways:
                progress.update(task, description=way)
                found = in_process(_time_way, way, folder, options.members, options.steps, sorted(options.batches))
                if isinstance(found, dict):
                    progress.console.print(f"{way} left out: {found['error']}", soft_wrap=True, markup=False)
                    found = []
                rounds.append(found)
                progress.advance(task)
    rows = merged(rounds, ["way", "batch"])
    times = {(row["way"], row["batch"]): row["ms"] for row in rows}
    return [row | {"ratio": times[BY_HAND, row["batch"]] / row["ms"]} for row in rows]


def _export(folder: Path, n_members: int) -> None:
    from ensemble import demo_bundle

    demo_bundle(folder, n_members)


def _time_way(way: str, folder: Path, n_members: int, n_steps: int, batches: Sequence[int]) -> list[dict[str, Any]]:
    import torch

    from radlens.explainers import omig

    peak = PeakMemory()
    gradient = gradient_by_hand(n_members) if way == BY_HAND else _by_engine(folder, way)
    computed = min(BY_HAND_STEPS, n_steps) if way == BY_HAND else n_steps
    rows = []
    for batch in batches:
        images = torch.randn(batch, 1, 250, 250, generator=torch.Generator().manual_seed(0))
        peak.reset()
        taken = fastest(partial(omig, gradient, images, n_steps=computed), seconds=1, at_least=1)
        rows.append(
            {"way": way, "batch": batch, "ms": 1e3 * taken / batch * n_steps / computed, "peak_mib": peak.mib()}
        )
    return rows


def gradient_by_hand(n_members: int) -> Callable[[Any], Any]:
    """Return eq. (1) of the mean midpoint, as a loop over the members of Table 2."""
    import torch
    from ensemble import demo_run

    members = [member.multiplied_out().requires_grad_(False) for member in demo_run(n_members).members]

    def gradient(images: Any) -> Any:
        parts = []
        for member in members:
            x = images.clone().requires_grad_()
            (part,) = torch.autograd.grad(member(x)[0].mean(dim=1).sum(), x)
            parts.append(part)
        return torch.stack(parts).mean(dim=0)

    return gradient


def _by_engine(folder: Path, way: str) -> Callable[[Any], Any]:
    from radlens.families.cdmam.manifest import Bundle
    from radlens.families.cdmam.model import open_bundle

    return open_bundle(Bundle.load(folder), way).gradient


if __name__ == "__main__":
    main()
