"""Time of counterfactual impact analysis: eager autograd, the compiled step, windows, and one pass, in one run.

    python benchmarks/counterfactual.py                               # 576x448, MobileNet, 10 steps of each way
    python benchmarks/counterfactual.py --shape 288x224 --steps 100 --output benchmarks/results/counterfactual.json

Weights are random; they do not affect the time. "eager" is the loop that one writes with torch: inpainter, classifier
and loss under autograd, `torch.optim.Adam`. "compiled" is the method with the graph of a whole step, by the fastest
engine whose golden values agree, and by each engine. "windows" is the setting recommended, "one pass" the method
counterfactual_fast, whose network proposes the mask, also with 8 thresholds. Each way runs in a process of its own, so
that its peak memory is measured alone. Steps cost the same, so that fewer than the 100 of the paper give the time of
100.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from measuring import PeakMemory, in_process, machine, machine_line, save, show

N_STEPS = 100
"""Steps of an explanation (Major et al. 2020, section 3)."""

ENGINES = ("auto", "onnxruntime", "openvino", "torch")

MANY = 4
"""Images that are explained together."""


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shape", default="576x448", help="rows x columns (default 576x448, the paper's)")
    parser.add_argument("--width", type=int, default=16, help="maps of the inpainter's first layer (default 16)")
    parser.add_argument("--steps", type=int, default=10, help="steps that are measured (default 10)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    rows, _, columns = options.shape.partition("x")
    shape = (int(rows), int(columns))
    with tempfile.TemporaryDirectory() as folder:
        written = in_process(_write, shape, options.width, Path(folder))
        if "error" in written:
            raise SystemExit(written["error"])
        ways: dict[str, Callable[[], dict[str, Any]]] = {
            "eager": lambda: in_process(_eager, shape, options.width, 1, options.steps),
            **{name: partial(in_process, _compiled, shape, Path(folder), name, 1, options.steps) for name in ENGINES},
            "windows": partial(in_process, _whole, shape, Path(folder), "counterfactual", {}),
            "one pass": partial(in_process, _whole, shape, Path(folder), "counterfactual_fast", {}),
            "one pass, 8 thresholds": partial(
                in_process, _whole, shape, Path(folder), "counterfactual_fast", {"refine": 8}
            ),
            f"auto, {MANY} images": lambda: in_process(_compiled, shape, Path(folder), "auto", MANY, options.steps),
        }
        found = {name: measure() for name, measure in ways.items()}
    results = {"machine": machine(), "shape": shape, "width": options.width, "steps": options.steps, "ways": found}
    print(machine_line(results["machine"]))
    eager = found["eager"]
    lines = [
        [
            name,
            each.get("engine", "torch with autograd"),
            each["seconds"],
            eager["seconds"] / each["seconds"],
            each["peak_mib"],
        ]
        if "seconds" in each
        else [name, each["error"][:60], "-", "-", "-"]
        for name, each in found.items()
    ]
    title = f"An image of {shape[0]}x{shape[1]}; searches by steps: {N_STEPS} steps, from {options.steps}"
    show(title, ["way", "engine", "seconds per image", "times faster", "peak MiB"], lines)
    if options.output:
        save(options.output, results)


def _networks(width: int) -> tuple[Any, Any, Any]:
    import torch

    from radlens.networks import MaskProposer, PartialConvInpainter, create_classifier

    torch.manual_seed(0)
    classifier, inpainter = create_classifier("mobilenet", n_outputs=2), PartialConvInpainter(1, width)
    proposer = MaskProposer(1, (1,), 12)
    # With the initial statistics of batch norms signals vanish: use those of real activations.
    networks = (classifier, inpainter, proposer)
    norms = [part for each in networks for part in each.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    images = _image((96, 96), 4)
    with torch.no_grad():
        classifier(images)
        inpainter(images, (torch.rand(images.shape) > 0.2).float())
        proposer(images)
    return classifier.eval(), inpainter.eval(), proposer.eval()


def _image(shape: tuple[int, int], n: int) -> Any:
    import torch

    from radlens.phantoms import mammogram

    pixels = [mammogram.sample("normal", image_shape=shape, seed=seed).pixels for seed in range(n)]
    images = torch.stack([torch.from_numpy(each).float() for each in pixels])[:, None]
    return (images - images.mean((1, 2, 3), keepdim=True)) / images.std((1, 2, 3), keepdim=True)


def _write(shape: tuple[int, int], width: int, folder: Path) -> dict[str, Any]:
    import torch

    from radlens.graphs import classifier_graphs

    classifier, inpainter, proposer = _networks(width)
    images = torch.randn(2, 1, *shape)
    companions = {"inpainter": inpainter, "proposer": proposer}
    graphs = classifier_graphs(classifier, images, n_outputs=2, companions=companions)
    for name in ("prediction", "odds", "inpaint", "impact", "counterfactual", "proposal"):
        graphs.to_onnx(name, folder / f"{name}.onnx")
    return {}


def _eager(shape: tuple[int, int], width: int, n: int, steps: int) -> dict[str, Any]:
    import torch
    import torch.nn.functional as F

    from radlens.explainers.counterfactual import organ_mask

    classifier, inpainter, _ = (each.requires_grad_(False) for each in _networks(width))
    images = _image(shape, n)
    organ = torch.stack([organ_mask(image) for image in images])[:, None].float()
    relaxed = (organ * (torch.rand(organ.shape) > 0.7)).requires_grad_()
    optimizer, memory = torch.optim.Adam([relaxed], 0.05), PeakMemory()

    def odds(images: Any) -> Any:
        logits = classifier(images)
        return logits[:, 1] - logits[:, 0]

    def step() -> None:
        binary = (relaxed > 0.5).float() + (relaxed - relaxed.detach())
        filled = images * (1 - binary) + binary * inpainter(images, 1 - binary)
        z = odds(filled)
        variation = (relaxed[:, :, 1:] - relaxed[:, :, :-1]).abs().sum() + (
            relaxed[..., 1:] - relaxed[..., :-1]
        ).abs().sum()
        overlap = 2 * (relaxed * organ).sum() / (relaxed.sum() + organ.sum())
        loss = (F.softplus(z) + z).sum() + 0.1 * variation + 0.1 * overlap
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        with torch.no_grad():
            relaxed.clamp_(0, 1)

    step()
    begin = time.perf_counter()
    for _ in range(steps):
        step()
    seconds = (time.perf_counter() - begin) / steps * N_STEPS / n
    return {"seconds": seconds, "peak_mib": memory.mib()}


def _compiled(shape: tuple[int, int], folder: Path, engine: str, n: int, steps: int) -> dict[str, Any]:
    from radlens.explainers import Counterfactual
    from radlens.families.classifier.model import GraphClassifier

    paths = {file.stem: file for file in folder.glob("*.onnx")}
    images, memory = _image(shape, n), PeakMemory()
    model = GraphClassifier(paths, 2, (1, *shape), engine=engine)
    # The first call opens and measures engines; two numbers of steps leave out what is done once.
    Counterfactual(setting="gradient", n_steps=1).explain(model, images, 1)
    taken = []
    for count in (1, steps + 1):
        begin = time.perf_counter()
        Counterfactual(setting="gradient", n_steps=count).explain(model, images, 1)
        taken.append(time.perf_counter() - begin)
    seconds = (taken[1] - taken[0]) / steps * N_STEPS / n
    return {"seconds": seconds, "peak_mib": memory.mib(), "engine": model.engine("counterfactual").name}


def _whole(shape: tuple[int, int], folder: Path, method: str, how: Mapping[str, Any]) -> dict[str, Any]:
    """Return the time of a whole explanation of one image."""
    from radlens.explainers import create
    from radlens.families.classifier.model import GraphClassifier

    paths = {file.stem: file for file in folder.glob("*.onnx")}
    images, memory = _image(shape, 1), PeakMemory()
    model, explainer = GraphClassifier(paths, 2, (1, *shape)), create(method, **how)
    # The first call opens and measures engines. The class with the larger score, for the search of the other is empty.
    target = int(model.outputs(images).argmax())
    target = target if method == "counterfactual" else 1
    explainer.explain(model, images, target)
    begin = time.perf_counter()
    explainer.explain(model, images, target)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "peak_mib": memory.mib(), "engine": model.engine("impact").name}


if __name__ == "__main__":
    main()
