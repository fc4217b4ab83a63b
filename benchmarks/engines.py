"""Compare the ways to compute one gradient: by hand with autograd, and with every engine of this machine.

    python benchmarks/engines.py                        # the CDMAM ensemble of ten, as in the paper
    python benchmarks/engines.py --models all --output benchmarks/results/engines.json

For the CDMAM ensemble the first way is the code that a user writes from the paper: Table 2 unchanged, one member after
the other, autograd for each. With ``--logarithmic`` members predict logarithms, with a first dense layer of rank 4. For
the other networks it is one image after the other. All ways get the same weights and the same images. Times are
milliseconds for one image; ratios are speed-ups over the first way at the same batch and at batch 1. Peak memory is
that of the whole process.
"""

import argparse
import tempfile
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from measuring import PeakMemory, fastest, floors, in_process, machine, machine_line, merged, save, show
from rich.progress import Progress

NETWORKS = {"resnet50": "resnet50", "efficientnet-b0": "efficientnet_b0", "mobilenet-v2": "mobilenet_v2"}
MODELS = ("cdmam", *NETWORKS)
BY_HAND = {"cdmam": ("per member", "batched", "folded")} | dict.fromkeys(MODELS[1:], ("one by one", "batched"))
"""Ways with autograd; ratios refer to the first one."""

N_DIRECTIONS = 4
"""Rank of the first dense layer of members that predict logarithms, as after training."""

SHAPES = {"cdmam": (1, 250, 250)} | dict.fromkeys(MODELS[1:], (3, 224, 224))


class Ensemble(NamedTuple):
    """Number and kind of the members of the CDMAM ensemble."""

    n_members: int
    logarithmic: bool


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["cdmam"], choices=[*MODELS, "all"], help="networks")
    parser.add_argument("--members", type=int, default=10, help="members of the CDMAM ensemble (default 10)")
    parser.add_argument("--logarithmic", action="store_true", help="let members predict logarithms instead of um")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32], help="images at once (default 1 8 32)")
    parser.add_argument("--engines", nargs="+", help="engines, by default all that start")
    parser.add_argument("--rounds", type=int, default=2, help="rounds of each way; the fastest counts (default 2)")
    parser.add_argument("--seconds", type=float, default=2.0, help="seconds per way, batch and round (default 2)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    models = MODELS if "all" in options.models else options.models
    results = {
        "machine": machine(),
        "floors": floors(),
        "members": options.members,
        "logarithmic": options.logarithmic,
        "models": {},
    }
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            results["models"][model] = rows = _measured(model, Path(folder), options)
            _show(model, rows, results)
    if options.output:
        save(options.output, results)


def _measured(model: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from radlens import engines

    graph, ensemble = folder / f"{model}.onnx", Ensemble(options.members, options.logarithmic)
    flop = in_process(_write_graph, model, ensemble, graph)
    if isinstance(flop, dict):
        raise SystemExit(f"{model}: {flop['error']}")
    ways = [*BY_HAND[model], *(options.engines or engines.names())]
    rounds: list[list[dict[str, Any]]] = []
    with Progress(transient=True) as progress:
        task = progress.add_task(model, total=len(ways) * options.rounds)
        for _ in range(options.rounds):
            for way in ways:
                progress.update(task, description=f"{model}: {way}")
                found = in_process(_time_way, model, way, ensemble, graph, sorted(options.batches), options.seconds)
                if isinstance(found, dict):
                    progress.console.print(f"{model}: {way} left out: {found['error']}", soft_wrap=True, markup=False)
                    found = []
                rounds.append([row | {"gflop": flop} for row in found])
                progress.advance(task)
    return _with_ratios(merged(rounds, ["way", "batch"]), BY_HAND[model][0])


def _with_ratios(rows: list[dict[str, Any]], first: str) -> list[dict[str, Any]]:
    times = {(row["way"], row["batch"]): row["ms"] for row in rows}
    alone = min(row["batch"] for row in rows)
    for row in rows:
        row["ratio"] = times[first, row["batch"]] / row["ms"]
        row["ratio_to_batch_1"] = times[first, alone] / row["ms"]
    return rows


def _show(model: str, rows: list[dict[str, Any]], results: dict[str, Any]) -> None:
    ceiling = results["floors"]
    gflop = rows[0]["gflop"]
    first = BY_HAND[model][0]
    kind = ", logarithmic" if results["logarithmic"] else ""
    members = f" of {results['members']} members{kind}" if model == "cdmam" else ""
    show(
        f"{model}{members}, output and gradient. {machine_line(results['machine'])}",
        ["way", "batch", "ms an image", f"x {first}", f"x {first}, batch 1", "peak MiB"],
        [[r["way"], r["batch"], r["ms"], r["ratio"], r["ratio_to_batch_1"], round(r["peak_mib"])] for r in rows],
    )
    print(
        f"Floors: {ceiling['gflops']:.0f} GFLOP/s of float32 arithmetic, {ceiling['gb_per_s']:.1f} GB/s of copied"
        f" memory. {first.capitalize()}, a gradient is {gflop:.2f} GFLOP: {1e3 * gflop / ceiling['gflops']:.1f} ms.\n"
    )


def _write_graph(model: str, ensemble: Ensemble, path: Path) -> float:
    """Write the gradient graph; return the arithmetic of one gradient with autograd, in GFLOP."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    if model == "cdmam":
        from radlens.engines.llvm_kernel import mark
        from radlens.families.cdmam.export import write_onnx
        from radlens.families.cdmam.gradient import CdmamGradient

        folded = _folded(ensemble)
        write_onnx(CdmamGradient(folded), torch.zeros(2, 1, 250, 250), path, ["score", "gradient"])
        mark(path)
    else:
        from radlens.graphs import gradient_graph

        network = _network(model)
        gradient_graph(network, (torch.zeros(2, *SHAPES[model]),), _first_class).to_onnx(path)
    # Members have equal costs: two are counted and scaled, because counting is slow.
    few = ensemble._replace(n_members=min(ensemble.n_members, 2))
    run = _by_hand(model, BY_HAND[model][0], few)
    with FlopCounterMode(display=False) as counter:
        run(np.zeros((1, *SHAPES[model]), np.float32))
    return counter.get_total_flops() / 1e9 * (ensemble.n_members / few.n_members if model == "cdmam" else 1)


def _time_way(
    model: str, way: str, ensemble: Ensemble, graph: Path, batches: Sequence[int], seconds: float
) -> list[dict[str, Any]]:
    peak = PeakMemory()
    run = _by_hand(model, way, ensemble) if way in BY_HAND[model] else _by_engine(model, way, graph)
    rows = []
    for batch in batches:
        images = np.random.default_rng(0).normal(size=(batch, *SHAPES[model])).astype(np.float32)
        peak.reset()
        taken = fastest(partial(run, images), seconds=seconds)
        rows.append({"way": way, "batch": batch, "ms": 1e3 * taken / batch, "peak_mib": peak.mib()})
    return rows


def _by_engine(model: str, way: str, graph: Path) -> Callable[[np.ndarray], object]:
    from radlens import engines

    engine = engines.open(graph, engine=way)
    name = "images" if model == "cdmam" else "input_0"
    return lambda images: engine.run({name: images})


def _by_hand(model: str, way: str, ensemble: Ensemble) -> Callable[[np.ndarray], object]:
    """Return a function that computes the gradients of a batch with autograd."""
    import torch

    compute = _of_members(way, ensemble) if model == "cdmam" else _of_network(way, _network(model))
    return lambda images: compute(torch.from_numpy(images))


def _of_members(way: str, ensemble: Ensemble) -> Callable[[Any], object]:
    from radlens.networks import CdmamEnsemble

    if way == "folded":
        return _folded(ensemble).gradient
    members = [member.multiplied_out().requires_grad_(False) for member in _members(ensemble)]
    if way == "batched":
        return CdmamEnsemble(members, logarithmic=ensemble.logarithmic).gradient
    midpoints = [partial(_midpoint, member, ensemble.logarithmic) for member in members]
    return lambda images: sum(_gradient(midpoint, images) for midpoint in midpoints) / ensemble.n_members


def _of_network(way: str, network: Any) -> Callable[[Any], object]:
    def score(images: Any) -> Any:
        return _first_class(network(images))

    if way == "batched":
        return partial(_gradient, score)
    return lambda images: [_gradient(score, image[None]) for image in images]


def _gradient(score: Callable[[Any], Any], images: Any) -> Any:
    images = images.clone().requires_grad_()
    score(images).sum().backward()
    return images.grad


def _midpoint(member: Any, logarithmic: bool, images: Any) -> Any:
    mu, _ = member(images)
    return (mu.exp() if logarithmic else mu).mean(dim=1)


def _first_class(output: Any) -> Any:
    return output[:, 0]


def _folded(ensemble: Ensemble) -> Any:
    from radlens.networks import FoldedCdmamEnsemble

    return FoldedCdmamEnsemble.from_members(_members(ensemble), logarithmic=ensemble.logarithmic)


def _members(ensemble: Ensemble) -> list[Any]:
    import torch

    from radlens.networks import CdmamNet

    torch.manual_seed(0)
    rank = N_DIRECTIONS if ensemble.logarithmic else 8
    return [CdmamNet(rank).eval() for _ in range(ensemble.n_members)]


def _network(model: str) -> Any:
    """Return a network with random weights, in evaluation mode."""
    import torch

    from radlens.networks import create_classifier

    torch.manual_seed(0)
    network = create_classifier(NETWORKS[model], n_outputs=2, n_channels=3)
    return network.eval().requires_grad_(False)


if __name__ == "__main__":
    main()
