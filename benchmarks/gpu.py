"""Run all measurements that need a GPU: engines, parity, OMIG and the whole map of N = 5000.

    python benchmarks/gpu.py --output benchmarks/results/gpu.json

Requirements besides radlens: torch with CUDA, tensorrt (or tensorrt-rtx-cu13), onnxruntime-gpu instead of onnxruntime,
and a suitable driver. An engine or precision that does not start or does not reproduce the golden values is reported
with the reason, and the others continue. The last part computes all N samples, without scaling.
"""

import argparse
import subprocess
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from measuring import PeakMemory, fastest, in_process, machine, machine_line, save, show
from rich.progress import Progress

GOAL_SECONDS = 30
"""Goal for the map of N = 5000 on one GPU of the H200 class, s."""

CANDIDATES = ("tensorrt", "onnxruntime-tensorrt", "onnxruntime-cuda", "torch-cuda", "torch")
PRECISIONS = ("f32", "tf32", "f16", "bf16")


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=10, help="members of the ensemble (default 10)")
    parser.add_argument("--steps", type=int, default=50, help="gradients per sample (default 50)")
    parser.add_argument("--samples", type=int, default=5000, help="samples of the whole map (default 5000)")
    parser.add_argument(
        "--batches", type=int, nargs="+", default=[1, 8, 32, 128], help="images at once (default 1 8 32 128)"
    )
    parser.add_argument("--engines", nargs="+", help="engines, by default those that may use a GPU")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    results: dict[str, Any] = {"machine": machine(), "driver": _driver()}
    results |= {"members": options.members, "steps": options.steps, "samples": options.samples}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if failed := in_process(_export, folder, options.members):
            raise SystemExit(failed["error"])
        results["gradients"] = rows = _gradients(folder, options)
        _show_gradients(results)
        usable = [row for row in rows if "error" not in row and row["precision"] == "f32"]
        if not usable:
            raise SystemExit("no engine works in f32 on this machine")
        best = min(usable, key=lambda row: row["ms"])
        arguments = (folder, best["engine"], best["batch"], options.steps, options.samples)
        results["map"] = in_process(_whole_map, *arguments)
    _show_map(results)
    if options.output:
        save(options.output, results)


def _gradients(folder: Path, options: argparse.Namespace) -> list[dict[str, Any]]:
    from radlens import engines

    names = options.engines or [name for name in CANDIDATES if name in engines.names()]
    rows: list[dict[str, Any]] = []
    with Progress(transient=True) as progress:
        task = progress.add_task("engines", total=len(names) * len(PRECISIONS))
        for name in names:
            for precision in PRECISIONS:
                progress.update(task, description=f"{name} {precision}")
                found = in_process(_time_engine, folder, name, precision, sorted(options.batches), options.steps)
                if isinstance(found, dict):
                    found = [{"engine": name, "precision": precision, **found}]
                rows += found
                progress.advance(task)
    return rows


def _time_engine(folder: Path, name: str, precision: str, batches: list[int], n_steps: int) -> list[dict[str, Any]]:
    import torch

    from radlens.engines.golden import Golden, correlation, relative_error
    from radlens.explainers import omig
    from radlens.families.cdmam.manifest import Bundle
    from radlens.families.cdmam.model import open_bundle

    bundle = Bundle.load(folder)
    started = time.perf_counter()
    model = open_bundle(bundle, name, precision)
    opened = time.perf_counter() - started
    golden = Golden.load(bundle.gradient_onnx)
    assert golden is not None, "an export writes golden values"
    found, expected = model.gradient(torch.from_numpy(golden.inputs["images"])), golden.outputs["gradient"]
    values = found.double().numpy()
    parity = {"error": relative_error(values, expected), "correlation": correlation(values, expected)}
    rows, peak = [], PeakMemory()
    for batch in batches:
        images = torch.randn(batch, 1, 250, 250, generator=torch.Generator().manual_seed(0))
        peak.reset()
        gradient = fastest(partial(model.gradient, images), seconds=2)
        whole = fastest(partial(omig, model.gradient, images, n_steps=n_steps), seconds=2, at_least=1)
        rows.append(
            {
                "engine": name,
                "precision": precision,
                "batch": batch,
                "opened_s": opened,
                "parity": parity,
                "ms": 1e3 * gradient / batch,
                "omig_maps_per_s": batch / whole,
                "peak_mib": peak.mib(),
                "gpu_peak_mib": torch.cuda.max_memory_allocated() / 2**20 if torch.cuda.is_available() else 0.0,
            }
        )
    return rows


def _whole_map(folder: Path, engine: str, batch: int, n_steps: int, n_samples: int) -> dict[str, Any]:
    from radlens.explainers import create, upsample
    from radlens.families.cdmam.manifest import Bundle
    from radlens.families.cdmam.model import open_bundle
    from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate

    bundle = Bundle.load(folder)
    model = open_bundle(bundle, engine)
    pixels = bundle.normalize(simulate(SCENARIOS["1"], Layout.with_margin(1)).pixels)
    explain = partial(create("omig", n_steps=n_steps).attribute, model)
    upsample(pixels, explain, n_samples=1)
    started = time.perf_counter()
    with Progress(transient=True) as progress:
        task = progress.add_task("whole map", total=n_samples)
        found = upsample(
            pixels,
            explain,
            n_samples=n_samples,
            batch_size=batch,
            on_progress=lambda done, *_: progress.update(task, completed=done),
        )
    seconds = time.perf_counter() - started
    return {
        "engine": engine,
        "batch": batch,
        "seconds": seconds,
        "n_samples": found.n_samples,
        "reliability": found.reliability,
    }


def _show_gradients(results: dict[str, Any]) -> None:
    rows = results["gradients"]
    show(
        f"Gradient of {results['members']} members. {machine_line(results['machine'])}",
        ["engine", "precision", "batch", "error", "correlation", "ms an image", "OMIG maps/s", "opened s", "GPU MiB"],
        [
            [
                row["engine"],
                row["precision"],
                row["batch"],
                row["parity"]["error"],
                f"{row['parity']['correlation']:.5f}",
                row["ms"],
                row["omig_maps_per_s"],
                row["opened_s"],
                round(row["gpu_peak_mib"]),
            ]
            for row in rows
            if "error" not in row
        ],
    )
    for row in rows:
        if "error" in row:
            print(f"left out: {row['engine']} {row['precision']}: {row['error']}")


def _show_map(results: dict[str, Any]) -> None:
    found = results["map"]
    if "error" in found:
        raise SystemExit(f"whole map: {found['error']}")
    met = "met" if found["seconds"] <= GOAL_SECONDS else "missed"
    print(
        f"Map of {found['n_samples']} samples, {results['steps']} steps, with {found['engine']}:"
        f" {found['seconds']:.1f} s, reliability {found['reliability']:.3f}. Goal of {GOAL_SECONDS} s {met}."
    )


def _driver() -> str | None:
    command = ["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def _export(folder: Path, n_members: int) -> None:
    from ensemble import demo_bundle

    demo_bundle(folder, n_members)


if __name__ == "__main__":
    main()
