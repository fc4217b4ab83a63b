"""``radlens simulate``: images of a CDMAM phantom."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from radlens.cli.console import examples, note, stages, table
from radlens.cli.options import require
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.phantoms.cdmam import Acquisition, Layout, PhantomImage

__all__ = ["EPILOG", "SUFFIXES", "command", "encode"]

SUFFIXES = (".dcm", ".png", ".tif", ".tiff", ".npy")
"""Formats of a written image."""

DEFAULT_MARGIN = 1

EPILOG = examples(
    "radlens simulate phantom.dcm",
    "radlens simulate noisy.png --scenario 4 --seed 7",
    "radlens simulate set/phantom.dcm --count 16 --margin 3",
    "radlens simulate detector.dcm --shape 4096x3328 --voltage 30 --mas 80",
)


def command(
    output: Annotated[Path, typer.Argument(metavar="OUT", help="File to write: .dcm, .png (16 bit), .tif or .npy.")],
    scenario: Annotated[
        str, typer.Option(help="Exposure of the paper's Table 1: 1, 2, 3, 4 or ood; other options override it.")
    ] = "1",
    voltage: Annotated[float | None, typer.Option(help="Tube voltage, kV.")] = None,
    mas: Annotated[float | None, typer.Option(help="Current-time product, mAs.")] = None,
    noise: Annotated[float | None, typer.Option(help="Standard deviation of the noise before filtering.")] = None,
    blur: Annotated[float | None, typer.Option(help="Standard deviation of the point spread function, mm.")] = None,
    scatter: Annotated[float | None, typer.Option(help="Ratio of scattered to primary radiation.")] = None,
    margin: Annotated[
        int | None, typer.Option(help="Size of the margin around the grid, 0 to 5.", show_default=str(DEFAULT_MARGIN))
    ] = None,
    shape: Annotated[str | None, typer.Option(metavar="HxW", help="Rows and columns instead of a margin.")] = None,
    spacing: Annotated[float, typer.Option(metavar="MM", min=0.01, max=5.0, help="Pixel spacing, mm.")] = 0.07,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the noise.")] = 0,
    count: Annotated[int, typer.Option(min=1, help="Number of images; seeds and file names count up.")] = 1,
) -> None:
    """Simulate images of a CDMAM 3.4 phantom, and print their expected contrast-detail curve."""
    from radlens.phantoms.cdmam import expected_cdc

    require("OUT", output.suffix.lower(), SUFFIXES)
    acquisition = _acquisition(
        scenario,
        voltage_kvp=voltage,
        exposure_mas=mas,
        noise_level=noise,
        blur_mm=blur,
        scatter_to_primary=scatter,
    )
    layout = _layout(margin, shape, spacing)
    output.parent.mkdir(parents=True, exist_ok=True)
    files = _names(output, count)
    with stages() as report:
        for i, file in enumerate(files):
            report("simulating", i, count)
            file.write_bytes(_simulated(acquisition, layout, seed + i, file.suffix))
        report("simulating", count, count)
    rows, columns = layout.image_shape
    note(f"wrote {count} x {rows}x{columns} pixels of {spacing:g} mm: {', '.join(str(file) for file in files[:3])}")
    _print_curve(expected_cdc([acquisition], spacing)[0].tolist())


def encode(image: PhantomImage, suffix: str) -> bytes:
    """Return the contents of an image file of the format ``suffix``, one of `SUFFIXES`."""
    import numpy as np

    from radlens.images import to_npy, to_png, to_tiff
    from radlens.phantoms.cdmam import to_dicom

    if suffix == ".dcm":
        return to_dicom(image)
    write = {".png": to_png, ".npy": to_npy}.get(suffix, to_tiff)
    return write(image.pixels.astype(np.uint16))


def _simulated(acquisition: Acquisition, layout: Layout, seed: int, suffix: str) -> bytes:
    from radlens.phantoms.cdmam import simulate

    return encode(simulate(acquisition, layout, seed), suffix.lower())


def _acquisition(scenario: str, **given: float | None) -> Acquisition:
    from radlens.phantoms.cdmam import SCENARIOS

    require("--scenario", scenario, tuple(SCENARIOS))
    return replace(SCENARIOS[scenario], **{name: value for name, value in given.items() if value is not None})


def _layout(margin: int | None, shape: str | None, spacing: float) -> Layout:
    from radlens.phantoms.cdmam import Layout

    if shape is None:
        return Layout.with_margin(DEFAULT_MARGIN if margin is None else margin, spacing)
    if margin is not None:
        raise InvalidParameter("--shape and --margin exclude each other, got both")
    found = re.fullmatch(r"(\d{1,5})x(\d{1,5})", shape)
    if not found:
        raise InvalidParameter(f"--shape must be HxW such as 4096x3328, got {shape!r}")
    return Layout.on_detector((int(found[1]), int(found[2])), spacing)


def _names(output: Path, count: int) -> list[Path]:
    if count == 1:
        return [output]
    return [output.with_stem(f"{output.stem}-{i:03d}") for i in range(1, count + 1)]


def _print_curve(thresholds_um: list[float]) -> None:
    from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

    rows = [(f"{d:.2f}", f"{t:.3f}") for d, t in zip(CDC_DIAMETERS_MM, thresholds_um, strict=True)]
    mean = sum(thresholds_um) / len(thresholds_um)
    table(["diameter (mm)", "threshold (µm of gold)"], [*rows, ("mean", f"{mean:.3f}")], title="Expected curve")
