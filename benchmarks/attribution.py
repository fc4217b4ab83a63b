"""Compare every explanation method of radlens with Captum's, on the same network, image and target, in one run.

    python benchmarks/attribution.py                                    # MobileNetV2 and ResNet-50 at 224x224
    python benchmarks/attribution.py --models efficientnet_b0 --methods occlusion saliency
    python benchmarks/attribution.py --models all --output benchmarks/results/attribution.json

Weights are random; they do not affect the time. "Captum" is the call of its tutorials with the parameters of Sam Millan
2023. Integrated gradients and SmoothGrad then compute all steps at once. If that needs more memory than ``--memory``
(default 16 GiB) it fails, and "Captum, tuned" counts: the same call with 8 images at once, which a user finds after the
first crash. Each variant runs in a separate process, so that its peak memory is measured alone; the shortest time of
``--rounds`` counts. Superpixels (SLIC) are part of the time of LIME and SHAP on both sides.
"""

import argparse
import resource
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PeakMemory, in_process, machine, machine_line, save, show
from rich.progress import Progress

SHAPES = {"mobilenet_v2": (224, 224), "resnet50": (224, 224), "efficientnet_b0": (1024, 512)}
"""Rows and columns of the input of each network."""

METHODS = (
    *("saliency", "integrated_gradients", "occlusion", "guided_grad_cam", "lime", "shap"),
    *("deep_lift", "grad_cam", "smooth_grad"),
)
"""Methods that Captum also has; it does not have CAM."""

PARAMETERS: dict[str, dict[str, Any]] = {"grad_cam": {"positive_only": False}}
"""Parameters of radlens' methods whose defaults differ from those of Sam Millan 2023 or of Captum."""

AT_ONCE = ("integrated_gradients", "smooth_grad")
"""Methods for which Captum computes all steps at once by default."""

TUNED = 8
"""Batch size of "Captum, tuned"."""


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50"], choices=[*SHAPES, "all"])
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=METHODS)
    parser.add_argument("--rounds", type=int, default=1, help="rounds of each variant; the fastest counts (default 1)")
    parser.add_argument("--memory", type=float, default=16.0, help="memory limit of a process in GiB (default 16)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    models = list(SHAPES) if "all" in options.models else options.models
    results: dict[str, Any] = {"machine": machine(), "memory_gib": options.memory, "models": {}}
    with tempfile.TemporaryDirectory() as folder:
        for model in models:
            results["models"][model] = rows = _measured(model, Path(folder), options)
            _show(model, rows, results)
    if options.output:
        save(options.output, results)


def _measured(model: str, folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    written = in_process(_write_graphs, model, folder)
    if "error" in written:
        raise SystemExit(f"{model}: {written['error']}")
    rows = []
    with Progress() as progress:
        bar = progress.add_task(model, total=len(options.methods))
        for method in options.methods:
            progress.update(bar, description=f"{model}: {method}")
            rows.append(_compared(model, method, folder, options))
            progress.advance(bar)
    return rows


def _compared(model: str, method: str, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Return times, peak memory and the difference of the maps of one method."""
    found: dict[str, dict[str, Any]] = {}
    ways: dict[str, Callable[[], dict[str, Any]]] = {
        "captum": lambda: in_process(_captum, model, method, folder, options.memory, None),
        "radlens": lambda: in_process(_radlens, model, method, folder, options.memory),
    }
    if method in AT_ONCE:
        ways["captum_tuned"] = lambda: in_process(_captum, model, method, folder, options.memory, TUNED)
    for _ in range(options.rounds):
        for name, measure in ways.items():
            found[name] = _better(found.get(name), measure())
    theirs = [found[name] for name in ("captum", "captum_tuned") if "ms" in found.get(name, {})]
    row: dict[str, Any] = {"method": method, **found}
    if theirs and "ms" in found["radlens"]:
        row["ratio"] = min(way["ms"] for way in theirs) / found["radlens"]["ms"]
        # Captum draws other noise when it draws it in parts, so the maps of "tuned" SmoothGrad cannot be compared.
        if method != "smooth_grad" or "ms" in found["captum"]:
            row["difference"] = _difference(*(folder / f"{model}-{method}-{who}.npy" for who in ("captum", "radlens")))
    return row


def _better(before: dict[str, Any] | None, now: dict[str, Any]) -> dict[str, Any]:
    if before is None or "ms" not in before or "ms" not in now:
        return now
    return {**now, "ms": min(before["ms"], now["ms"]), "peak_mib": max(before["peak_mib"], now["peak_mib"])}


def _difference(theirs: Path, ours: Path) -> float:
    """Return the norm of the difference of two maps over the norm of Captum's map."""
    a, b = (np.load(file).astype(np.float64) for file in (theirs, ours))
    return float(np.linalg.norm(a - b) / np.linalg.norm(a))


def _network(model: str) -> Any:
    import torch

    from radlens.networks import create_classifier

    torch.manual_seed(0)
    network = create_classifier(model, n_outputs=2).eval()
    # With the initial statistics of batch norms the scores would hardly vary: use those of real activations.
    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    network.train()
    with torch.no_grad():
        network(torch.cat([_image(model), torch.zeros(1, 1, *SHAPES[model])]))
    # Scale scores to those of a trained network: the lasso of LIME would set smaller effects to zero.
    network.head.weight.data *= 20
    return network.eval()


def _image(model: str) -> Any:
    import torch

    generator = torch.Generator().manual_seed(1)
    coarse = torch.randn(1, 1, SHAPES[model][0] // 16, SHAPES[model][1] // 16, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=SHAPES[model], mode="bicubic")


def _write_graphs(model: str, folder: Path) -> dict[str, Any]:
    from radlens.graphs import asks, classifier_graphs

    graphs = classifier_graphs(_network(model), _image(model), n_outputs=2, as_captum=True)
    for name in asks.answerable({}):
        graphs.to_onnx(name, _graph(model, folder, name))
    return {}


def _graph(model: str, folder: Path, name: str) -> Path:
    return folder / f"{model}.{name}.onnx"


def _radlens(model: str, method: str, folder: Path, memory: float) -> dict[str, Any]:
    from radlens import explainers
    from radlens.families.classifier.model import GraphClassifier
    from radlens.graphs import asks

    _limit(memory)
    paths = {name: _graph(model, folder, name) for name in asks.answerable({})}
    classifier = GraphClassifier(paths, 2, (1, *SHAPES[model]))
    explainer = explainers.create(method, **PARAMETERS.get(method, {}))
    for name in {*explainer.needs} - {"score"} | {"prediction"}:
        classifier.engine(name)
    image = _image(model)
    found = _timed(lambda: explainer.attribute(classifier, image, 1))
    np.save(folder / f"{model}-{method}-radlens.npy", found.pop("map"))
    return {**found, "engines": classifier.engines}


def _captum(model: str, method: str, folder: Path, memory: float, at_once: int | None) -> dict[str, Any]:
    warnings.simplefilter("ignore")
    _limit(memory)
    network, image = _network(model), _image(model)
    found = _timed(_captum_calls(network, image, at_once)[method])
    np.save(folder / f"{model}-{method}-captum.npy", found.pop("map"))
    return found


def _captum_calls(network: Any, image: Any, at_once: int | None) -> Mapping[str, Callable[[], Any]]:
    """Return the call of each method as in the tutorials of Captum, for target 1."""
    import torch
    from captum import attr

    from radlens.explainers import superpixels

    tuned = {} if at_once is None else {"internal_batch_size": at_once}
    noisy = {} if at_once is None else {"nt_samples_batch_size": at_once}

    def over_superpixels(method: Any) -> Any:
        torch.manual_seed(0)
        mask = superpixels(image[0], 150)[None, None]
        return method(network).attribute(image, target=1, feature_mask=mask, n_samples=200)

    def smooth_grad() -> Any:
        torch.manual_seed(0)
        deviation = 0.15 * float(image.max() - image.min())
        tunnel = attr.NoiseTunnel(attr.Saliency(network))
        return tunnel.attribute(image, nt_samples=50, stdevs=deviation, target=1, abs=False, **noisy)

    def grad_cam() -> Any:
        coarse = attr.LayerGradCam(network, network.features).attribute(image, 1)
        return attr.LayerAttribution.interpolate(coarse, image.shape[2:], "bilinear")

    return {
        "saliency": lambda: attr.Saliency(network).attribute(image.clone().requires_grad_(), 1),
        "integrated_gradients": lambda: attr.IntegratedGradients(network).attribute(
            image, target=1, n_steps=200, return_convergence_delta=True, **tuned
        )[0],
        "occlusion": lambda: attr.Occlusion(network).attribute(
            image, sliding_window_shapes=(1, 60, 60), strides=(1, 30, 30), target=1
        ),
        "guided_grad_cam": lambda: attr.GuidedGradCam(network, network.features).attribute(
            image.clone().requires_grad_(), 1
        ),
        "lime": lambda: over_superpixels(attr.Lime),
        "shap": lambda: over_superpixels(attr.KernelShap),
        "deep_lift": lambda: attr.DeepLift(network).attribute(
            image.clone().requires_grad_(), target=1, return_convergence_delta=True
        )[0],
        "grad_cam": grad_cam,
        "smooth_grad": smooth_grad,
    }


def _limit(gib: float) -> None:
    """Limit the memory of this process, so that it fails before the machine runs out of memory."""
    n_bytes = int(gib * 2**30)
    resource.setrlimit(resource.RLIMIT_DATA, (n_bytes, n_bytes))


def _timed(explain: Callable[[], Any]) -> dict[str, Any]:
    """Time a method; a call of less than 2 s is repeated up to five times, and the fastest counts."""
    peak = PeakMemory()
    peak.reset()
    times: list[float] = []
    while not times or (max(times) < 2 and len(times) < 6):
        started = time.perf_counter()
        values = explain()
        times.append(time.perf_counter() - started)
    return {"ms": 1000 * min(times), "peak_mib": peak.mib(), "map": values.detach().numpy()}


def _show(model: str, rows: list[dict[str, Any]], results: dict[str, Any]) -> None:
    def cell(row: dict[str, Any], way: str, key: str) -> object:
        return row.get(way, {}).get(key, "fails" if "error" in row.get(way, {}) else "")

    h, w = SHAPES[model]
    show(
        f"{model} at {h}x{w}: ms, times faster than the faster way with Captum; {machine_line(results['machine'])}",
        ["method", "Captum", "tuned", "radlens", "ratio", "Captum MiB", "tuned MiB", "radlens MiB", "map differs by"],
        [
            (
                row["method"],
                *(cell(row, way, "ms") for way in ("captum", "captum_tuned", "radlens")),
                row.get("ratio", ""),
                *(cell(row, way, "peak_mib") for way in ("captum", "captum_tuned", "radlens")),
                f"{row['difference']:.0e}" if "difference" in row else row["radlens"].get("error", ""),
            )
            for row in rows
        ],
    )


if __name__ == "__main__":
    main()
