"""Full-size networks of MONAI as bundles: graphs of every engine against float64, and methods that it serves.

    python benchmarks/foreign_networks.py --networks all --output benchmarks/results/foreign_networks.json
    python benchmarks/foreign_networks.py --networks --output benchmarks/results/foreign_networks.json
    python benchmarks/foreign_networks.py --bundling

The second command prints the table of a file, without measuring. The third one measures how long MONAI's ResNet-50
takes to bundle, its randomisation record included; with ``PYTHONPATH`` at another version of radlens it measures that
one.

Weights are random; batch norms have the statistics of random images, so that signals neither vanish nor explode. Each
network is bundled and served in a process of its own, with one thread of torch. The error of a graph is the largest
relative error of its outputs (Euclidean norm over two images) against torch in float64, beside that of torch in
float32, which is the larger one of two runs whose inputs differ by rounding. An engine may have ten times that error,
or it is refused. All engines of ViT-B, one after the other, took 15 GiB of memory.
"""

import argparse
import json
import resource
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from measuring import PeakMemory, in_process, machine, machine_line, save, show

QUICK = {
    "integrated_gradients": {"n_steps": "4"},
    "smooth_grad": {"n_draws": "2"},
    "lime": {"n_segments": "9", "n_evaluations": "10"},
    "shap": {"n_segments": "9", "n_evaluations": "10"},
}
"""Parameters of slow methods: whether an engine serves a method does not depend on them."""

ENGINES = ("onnxruntime", "openvino", "torch")
"""Engines of the summary: those that run without a GPU. LLVM has kernels for the network of the phantom alone."""

SUMMARISED = ("prediction", "gradient")
"""Graphs of the summary."""


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="*", default=["all"], help=f"all, or some of {', '.join(NETWORKS)}")
    parser.add_argument("--side", type=int, default=224, help="rows and columns of the images (default 224)")
    parser.add_argument("--bundling", action="store_true", help="measure how long a ResNet-50 takes to bundle")
    parser.add_argument("--output", type=Path, help="JSON file to write; other networks in it are kept")
    options = parser.parse_args()
    print(machine_line(machine()))
    if options.bundling:
        _print_bundling(in_process(measure_bundling, options.side))
        return
    names = list(NETWORKS) if "all" in options.networks else options.networks
    if unknown := sorted(set(names) - set(NETWORKS)):
        parser.error(f"networks must be of {', '.join(NETWORKS)}, got {', '.join(unknown)}")
    is_kept = options.output is not None and options.output.exists()
    results = json.loads(options.output.read_text())["networks"] if is_kept else {}
    for name in names:
        results[name] = in_process(measure, name, options.side)
        _print(name, results[name])
        if options.output is not None:
            save(options.output, {"machine": machine(), "side": options.side, "networks": results})
    _print_summary({name: results[name] for name in NETWORKS if name in results})


def _print(name: str, found: Mapping[str, Any]) -> None:
    if "error" in found:
        print(f"{name}: {found['error']}")
        return
    engines = list(found["served"])
    rows = [
        [graph, each["float32"], *(each["engines"].get(engine, "-") for engine in engines)]
        for graph, each in found["graphs"].items()
    ]
    served = [f"{len(found['served'][engine])} of {len(found['methods'])}" for engine in engines]
    spent = f"bundled in {found['cpu_seconds']:.0f} CPU seconds, {found['peak_mib']:.0f} MiB to bundle and serve"
    title = f"{name}: {found['millions']:.1f} million weights, {spent}"
    show(title, ["error against float64", "torch float32", *engines], [*rows, ["methods served", "", *served]])
    for what, reason in found["refused"].items():
        print(f"  no {what}: {reason}")
    for engine, reasons in found["failed"].items():
        for what, reason in reasons.items():
            print(f"  {engine}, {what}: {reason}")


def _print_summary(results: Mapping[str, Mapping[str, Any]]) -> None:
    """Print one line for each network, in Markdown."""
    errors = [f"{graph}: {engine}" for graph in SUMMARISED for engine in ("torch float32", *ENGINES)]
    columns = ["network", "million weights", "CPU s to bundle", *errors, f"methods: {', '.join(ENGINES)}"]
    print(f"| {' | '.join(columns)} |\n|{'---|' * len(columns)}")
    for name, found in results.items():
        if "error" in found:
            print(f"| {name} | {found['error']} |")
            continue
        spent = found["cpu_seconds"]
        cells = [f"{found['millions']:.0f}", "-" if spent is None else f"{spent:.0f}"]
        for graph in SUMMARISED:
            each = found["graphs"].get(graph)
            values = [] if each is None else [each["float32"], *(each["engines"].get(engine) for engine in ENGINES)]
            cells += ["-" if value is None else f"{value:.0e}" for value in values] or ["-"] * (1 + len(ENGINES))
        served = ", ".join(str(len(found["served"].get(engine, []))) for engine in ENGINES)
        cells.append(f"{served} of {len(found['methods'])}")
        print(f"| {name} | {' | '.join(cells)} |")


def _print_bundling(found: Mapping[str, Any]) -> None:
    if "error" in found:
        print(found["error"])
        return
    print(f"radlens in {found['radlens']}")
    title = f"ResNet-50 bundled in {found['cpu_seconds']:.0f} CPU seconds, {found['peak_mib']:.0f} MiB"
    show(title, ["stage", "CPU seconds"], found["stages"].items())


def measure(name: str, side: int) -> dict[str, Any]:
    """Bundle a network, compare every engine with its golden values, and ask every engine for every method."""
    import torch

    from radlens.datasets import ModelInput
    from radlens.engines import parity
    from radlens.engines.golden import Golden
    from radlens.families.classifier.making import bundle_classifier

    torch.set_num_threads(1)
    torch.manual_seed(0)
    network, memory = _calibrated(NETWORKS[name](side), side), PeakMemory()
    with tempfile.TemporaryDirectory() as folder:
        started, used = time.perf_counter(), _cpu_seconds()
        bundle = bundle_classifier(
            [network],
            folder,
            name="foreign",
            version="1.0",
            classes=("normal", "benign", "malignant"),
            model_input=ModelInput((side, side), n_channels=3),
            examples=_images(side).numpy(),
            randomise=False,
        )
        seconds, cpu_seconds = time.perf_counter() - started, _cpu_seconds() - used
        graphs: dict[str, Any] = {}
        failed: dict[str, dict[str, str]] = {}
        for graph, path in bundle.graphs(0).items():
            golden = Golden.load(path)
            assert golden is not None, "graphs of bundles have golden values"
            measured = {each.engine: each for each in parity.measure(path, ["f32"])}
            graphs[graph] = {
                "float32": max(golden.float32_errors.values()),
                "engines": {engine: each.error for engine, each in measured.items()},
            }
            for engine, each in measured.items():
                if each.reason is not None:
                    failed.setdefault(engine, {})[graph] = each.reason
        methods = bundle.manifest.explainers
        served = {}
        for engine in graphs["prediction"]["engines"]:
            served[engine], reasons = _served(bundle, engine, methods, side)
            if reasons:
                failed.setdefault(engine, {}).update(reasons)
        return {
            "millions": sum(value.numel() for value in network.parameters()) / 1e6,
            "seconds": seconds,
            "cpu_seconds": cpu_seconds,
            "peak_mib": memory.mib(),
            "graphs": graphs,
            "methods": list(methods),
            "served": served,
            "refused": dict(bundle.manifest.refused),
            "failed": failed,
        }


def measure_bundling(side: int) -> dict[str, Any]:
    """Bundle MONAI's ResNet-50 as ``radlens bundle`` does, and return the CPU seconds of each stage."""
    import torch
    from monai.networks.nets import resnet50

    import radlens
    from radlens.datasets import ModelInput
    from radlens.families.classifier.making import bundle_classifier

    torch.set_num_threads(1)
    torch.manual_seed(0)
    given: dict[str, Any] = {"spatial_dims": 2, "n_input_channels": 3, "num_classes": 2, "conv1_t_stride": 2}
    network = _calibrated(resnet50(**given, shortcut_type="B"), side)
    stages: dict[str, float] = {}
    current, since = "preparing", _cpu_seconds()

    def report(stage: str, done: float, total: float) -> None:
        # The time since the last call belongs to the stage that it named.
        nonlocal current, since
        now = _cpu_seconds()
        stages[current] = stages.get(current, 0.0) + now - since
        current, since = stage, now

    memory, used, started = PeakMemory(), _cpu_seconds(), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        bundle_classifier(
            [network],
            folder,
            name="resnet50",
            version="1.0",
            classes=("a", "b"),
            model_input=ModelInput((side, side), n_channels=3),
            on_progress=report,
        )
    report("end", 0, 0)
    return {
        "cpu_seconds": _cpu_seconds() - used,
        "seconds": time.perf_counter() - started,
        "peak_mib": memory.mib(),
        "stages": stages,
        "radlens": str(Path(radlens.__file__).parent),
    }


def _cpu_seconds() -> float:
    """Return the CPU time of this process and of its children that have ended."""
    spent = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in spent)


def _served(bundle: Any, engine: str, methods: tuple[str, ...], side: int) -> tuple[list[str], dict[str, str]]:
    """Return the methods that an engine serves, and the reasons why it does not serve others."""
    from radlens.families import open_service
    from radlens.images import to_npy
    from radlens.service import Request

    service, served, reasons = open_service(bundle, engine=engine), [], {}
    pixels = np.random.default_rng(0).normal(size=(side, side)).astype(np.float32)
    squares = {"occlusion": {"window": str(side // 3), "stride": str(side // 3)}}
    for method in methods:
        parameters = {"method": method, "target": "malignant", **{**QUICK, **squares}.get(method, {})}
        request = Request("explain", to_npy(pixels), accept=None, parameters=parameters, request_id=method)
        (response,) = service.respond([request])
        if response.status == 200:
            served.append(method)
        else:
            reasons[method] = str(response.body)[:200]
    return served, reasons


def _images(side: int) -> Any:
    import torch

    coarse = torch.randn(2, 3, side // 8, side // 8, generator=torch.Generator().manual_seed(1))
    return torch.nn.functional.interpolate(coarse, size=(side, side), mode="bicubic")


def _calibrated(network: Any, side: int) -> Any:
    """Give batch norms the statistics of random images."""
    import torch

    norms = [part for part in network.modules() if isinstance(part, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    if norms:
        network.train()
        with torch.no_grad():
            network(torch.cat([_images(side), torch.randn(2, 3, side, side)]))
    return network.eval().requires_grad_(False)


def _densenet(side: int) -> Any:
    from monai.networks.nets import DenseNet121

    return DenseNet121(spatial_dims=2, in_channels=3, out_channels=3)


def _senet(side: int) -> Any:
    from monai.networks.nets import SENet154

    return SENet154(spatial_dims=2, in_channels=3, num_classes=3)


def _efficientnet(number: int) -> Callable[[int], Any]:
    def make(side: int) -> Any:
        from monai.networks.nets import EfficientNetBN

        return EfficientNetBN(f"efficientnet-b{number}", pretrained=False, num_classes=3)

    return make


def _vit(side: int) -> Any:
    from monai.networks.nets import ViT

    network = ViT(3, (side, side), (16, 16), classification=True, num_classes=3, spatial_dims=2, post_activation=None)
    return _headed(network, lambda outputs: outputs[0], None)


def _swin(side: int) -> Any:
    import torch
    from monai.networks.nets.swin_unetr import SwinTransformer

    network = SwinTransformer(3, 96, (7, 7), (4, 4), (2, 2, 6, 2), (3, 6, 12, 24), spatial_dims=2)
    # Swin-T: its last feature maps, averaged, and a dense layer.
    return _headed(network, lambda outputs: outputs[-1].mean((2, 3)), torch.nn.Linear(1536, 3))


def _headed(network: Any, chosen: Callable[[Any], Any], head: Any) -> Any:
    """Return a module that gives logits: those of ``head`` for what is ``chosen`` of the outputs."""
    import torch

    class Headed(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.network, self.head = network, head or torch.nn.Identity()

        def forward(self, images: Any) -> Any:
            return self.head(chosen(self.network(images)))

    return Headed()


NETWORKS: Mapping[str, Callable[[int], Any]] = {
    "DenseNet-121": _densenet,
    "SENet-154": _senet,
    "EfficientNet-B0": _efficientnet(0),
    "EfficientNet-B4": _efficientnet(4),
    "ViT-B": _vit,
    "Swin-T": _swin,
}
"""Functions that make a network with random weights for images of a given side."""


if __name__ == "__main__":
    main()
