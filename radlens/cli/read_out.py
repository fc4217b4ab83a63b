"""``radlens read-out``: the classical automated read-out of at least 16 images of a phantom."""

from __future__ import annotations

import csv
import hashlib
import json
import platform
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.text import Text

import radlens
from radlens.cli.console import examples, note, out, show, stages, table, warn
from radlens.errors import InvalidInput

if TYPE_CHECKING:
    import numpy as np

    from radlens.images import Image
    from radlens.phantoms.cdmam.series import SeriesReadOut

__all__ = ["EPILOG", "Series", "command", "read_series"]

EPILOG = examples(
    "radlens read-out phantom-*.dcm",
    "radlens read-out phantom-*.dcm -o read-out/",
    "radlens read-out phantom-*.png --spacing 0.07 --json | jq .verdict",
)

SEED = 0
"""Seed of the bootstrap."""


def command(
    images: Annotated[
        list[Path],
        typer.Argument(
            metavar="IMAGE...", exists=True, dir_okay=False, help="At least 16 images of one exposure setting."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for numbers and figures.")
    ] = None,
    spacing: Annotated[
        float | None,
        typer.Option(metavar="MM", min=0.01, max=5.0, help="Pixel spacing, mm; by default that of each file."),
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of tables.")] = False,
) -> None:
    """Read out at least 16 images of a CDMAM 3.4 phantom as the European Guidelines prescribe, without a network.

    The command finds the phantom in each image, even mirrored or rotated by 90 degrees. In each of the 205 cells it
    chooses the corner that looks most like a disk. It smooths the hits, fits a psychometric curve to each diameter, and
    converts the 62.5 % point to human readers. The 95 % interval is a bootstrap over images.

    Images without a phantom are named and left out. With -o, the command writes read-out.json, read-out.csv, hits.png
    (the hit matrix with the fitted thresholds) and cdc.png (the curve with the European limits).
    """
    from radlens.phantoms.cdmam import MIN_IMAGES
    from radlens.phantoms.cdmam.series import read_out_series

    series = read_series(images, spacing)
    warn(series.warnings)
    if len(series.hits) < MIN_IMAGES:
        usable = f"{len(series.hits)} usable of {len(images)}"
        raise InvalidInput(f"a read-out needs at least {MIN_IMAGES} images, got {usable}")
    found = read_out_series(series.hits, seed=SEED)
    cautions = list(_cautions(found.read_out.automated_um[0]))
    warn(cautions)
    result = _result(found, series, [*series.warnings, *cautions])
    if as_json:
        out.print_json(json.dumps(result))
    else:
        _print(result)
    if output is not None:
        for file in _written(result, output):
            note(f"wrote {file}")


@dataclass(frozen=True, eq=False)
class Series:
    """The usable images of a read-out.

    Attributes:
        hits: hits of each image, ``(16, 16)`` bool, from `radlens.phantoms.cdmam.series.find_hits`.
        images: name, hash and unit of each image as JSON values.
        warnings: sentences about images that were left out, and about images that differ.
    """

    hits: list[np.ndarray]
    images: list[dict[str, Any]]
    warnings: list[str]


def read_series(files: Sequence[Path], spacing_mm: float | None = None) -> Series:
    """Find and read out the phantom of each image; unusable images are left out with a warning.

    Args:
        files: paths of the images.
        spacing_mm: pixel spacing; None for that of each file.
    """
    series = Series([], [], [])
    seen: dict[str, str] = {}
    settings: list[dict[str, str | None]] = []
    with stages() as report:
        for done, file in enumerate(files):
            report("reading images", done, len(files))
            try:
                image, hits = _read(file, spacing_mm, seen)
            except InvalidInput as error:
                series.warnings.append(f"{file.name} is left out: {error}")
                continue
            series.warnings.extend(f"{file.name}: {note}" for note in image.notes)
            series.hits.append(hits)
            series.images.append(_stated(file, image))
            settings.append(_setting(image))
        report("reading images", len(files), len(files))
    series.warnings.extend(_differences(settings))
    return series


def _read(file: Path, spacing_mm: float | None, seen: dict[str, str]) -> tuple[Image, np.ndarray]:
    from radlens.images import read
    from radlens.phantoms.cdmam.series import find_hits

    image = read(file.read_bytes())
    spacing = image.spacing_mm if spacing_mm is None else (spacing_mm, spacing_mm)
    if spacing is None:
        raise InvalidInput(
            "; ".join(["the file must state its pixel spacing, or --spacing must, got neither", *image.notes])
        )
    digest = hashlib.sha256(image.pixels.tobytes()).hexdigest()
    if digest in seen:
        raise InvalidInput(f"it has the same pixels as {seen[digest]}, and an image counts once")
    hits = find_hits(image.pixels, spacing)
    seen[digest] = file.name
    return image, hits


def _stated(file: Path, image: Image) -> dict[str, Any]:
    from radlens.images.header import acquired, unit

    return {
        "name": file.name,
        "sha256": image.sha256,
        "sop_instance_uid": image.sop_instance_uid,
        "shape": list(image.pixels.shape),
        "spacing_mm": None if image.spacing_mm is None else list(image.spacing_mm),
        "acquired": acquired(image.dataset),
        **unit(image.dataset),
    }


def _setting(image: Image) -> dict[str, str | None]:
    from radlens.images.header import setting

    shape = "x".join(str(size) for size in sorted(image.pixels.shape))
    return {"size": shape, **setting(image.dataset)}


def _differences(settings: Sequence[dict[str, str | None]]) -> Iterable[str]:
    for name in settings[0] if settings else ():
        values = list(dict.fromkeys(str(setting[name] or "none") for setting in settings))
        if len(values) > 1:
            yield f"images of one setting must not differ, got {name} {', '.join(values)}"


def _result(found: SeriesReadOut, series: Series, warnings: Sequence[str]) -> dict[str, Any]:
    """Return read-out, verdict and provenance as JSON values."""
    from radlens.evaluation import describe, verdict
    from radlens.phantoms.cdmam import CDC_DIAMETERS_MM, DIAMETERS_MM, HUMAN_FACTORS, THICKNESSES_UM
    from radlens.phantoms.cdmam.geometry import CELL_EXISTS
    from radlens.phantoms.cdmam.series import N_RESAMPLES

    fit = found.read_out
    judged = verdict(fit.thresholds_um[0], found.interval_um)
    hits = [
        [int(n) if exists else None for n, exists in zip(*row, strict=True)]
        for row in zip(found.n_hits, CELL_EXISTS, strict=True)
    ]
    return {
        "assessable": True,
        "read_out": {
            "n_images": found.n_images,
            "diameters_mm": list(CDC_DIAMETERS_MM),
            "mean_um": fit.thresholds_um[0].tolist(),
            "interval_um": found.interval_um.tolist(),
            "automated_um": fit.automated_um[0].tolist(),
            "slopes": fit.slopes[0].tolist(),
            "human_factors": list(HUMAN_FACTORS),
            "midpoint_um": float(fit.thresholds_um[0].mean()),
            "hits": {"diameters_mm": list(DIAMETERS_MM), "thicknesses_um": list(THICKNESSES_UM), "n": hits},
            "bootstrap": {"over": "images", "n_resamples": N_RESAMPLES, "seed": SEED},
        },
        "verdict": asdict(judged) | {"summary": describe(judged, source=f"these {found.n_images} images")},
        "images": series.images,
        "warnings": list(warnings),
        "provenance": _provenance(),
    }


def _cautions(automated_um: np.ndarray) -> Iterable[str]:
    """Yield warnings that name the diameters whose threshold is an end of the fitted range."""
    import numpy as np

    from radlens.phantoms.cdmam import CDC_DIAMETERS_MM
    from radlens.phantoms.cdmam.reading import THRESHOLD_RANGE_UM

    for end, word in zip(THRESHOLD_RANGE_UM, ("lower", "upper"), strict=True):
        # The fit computes with logarithms, so an end returns with a rounding error.
        at = ", ".join(f"{CDC_DIAMETERS_MM[i]:.2f}" for i in np.flatnonzero(np.isclose(automated_um, end, rtol=1e-9)))
        if at:
            yield f"the automated threshold at {at} mm is the {word} end of the fitted range, {end:g} µm of gold"


def _provenance() -> dict[str, Any]:
    return {
        "method": "automated read-out, EUREF supplement to the European Guidelines",
        "libraries": {
            "radlens": radlens.__version__,
            "python": platform.python_version(),
            **{package: version(package) for package in ("numpy", "scipy")},
        },
        "time": datetime.now(UTC).isoformat(timespec="milliseconds"),
    }


def _print(result: dict[str, Any]) -> None:
    found = result["read_out"]
    _print_hits(found["hits"], found["n_images"])
    numbers = zip(*(found[name] for name in _FITTED), strict=True)
    rows = [(f"{d:.2f}", f"{a:.3f}", f"{s:.2f}", f"{f:.2f}", f"{h:.3f}") for d, a, s, f, h in numbers]
    columns = ["mm", "automated, µm", "slope", "human factor", "human-equivalent, µm"]
    table(columns, rows, title="Psychometric fit: threshold at 62.5 % hits")
    from radlens.families.cdmam.tables import curve_table

    show([curve_table(found, result["verdict"], f"Contrast-detail curve of {found['n_images']} images")])
    bootstrap = found["bootstrap"]
    note(f"interval: bootstrap over images, {bootstrap['n_resamples']} resamples, seed {bootstrap['seed']}")


_FITTED = ("diameters_mm", "automated_um", "slopes", "human_factors", "mean_um")


def _print_hits(hits: dict[str, Any], n_images: int) -> None:
    """Print one line per diameter; cells below 62.5 % are dim."""
    out.print(f"[bold]Hits in {n_images} images[/bold] (down: diameter, mm; right: thickness, µm of gold)")
    labels = [f" {thickness:.2f}".replace(" 0", " ") for thickness in hits["thicknesses_um"]]
    out.print("     " + "".join(labels), soft_wrap=True)
    for diameter, row in zip(hits["diameters_mm"], hits["n"], strict=True):
        shown = Text(f"{diameter:>5.2f}")
        for n, label in zip(row, labels, strict=True):
            is_missed = n is not None and n < 0.625 * n_images
            shown.append(f"{'' if n is None else n:>{len(label)}}", "dim" if is_missed else "")
        out.print(shown, soft_wrap=True)


def _written(result: dict[str, Any], folder: Path) -> Iterable[Path]:
    import numpy as np

    from radlens.figures import Curve, figure_cdc, figure_hits, save

    folder.mkdir(parents=True, exist_ok=True)
    found, n_images = result["read_out"], result["read_out"]["n_images"]
    (folder / "read-out.json").write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    yield folder / "read-out.json"
    with (folder / "read-out.csv").open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(_lines(result))
    yield folder / "read-out.csv"
    hits = np.array([[0 if n is None else n for n in row] for row in found["hits"]["n"]])
    drawn = figure_hits(hits, n_images, automated_um=found["automated_um"], human_um=found["mean_um"])
    (folder / "hits.png").write_bytes(save(drawn))
    yield folder / "hits.png"
    curve = Curve(np.array(found["mean_um"]), np.array(found["interval_um"]), label=f"read-out of {n_images} images")
    (folder / "cdc.png").write_bytes(save(figure_cdc([curve])))
    yield folder / "cdc.png"


def _lines(result: dict[str, Any]) -> Iterable[Sequence[Any]]:
    found, judged = result["read_out"], {point["diameter_mm"]: point for point in result["verdict"]["diameters"]}
    limits = ("acceptable_um", "acceptable", "achievable_um", "achievable")
    yield (
        *("diameter_mm", "threshold_um", "lower_um", "upper_um", "automated_um", "slope", "human_factor", "n_images"),
        *limits,
    )
    numbers = zip(*(found[name] for name in (*_FITTED, "interval_um")), strict=True)
    for diameter, automated, slope, factor, threshold, (low, high) in numbers:
        point = judged.get(diameter, {})
        measured = [f"{value:.6g}" for value in (threshold, low, high, automated, slope, factor)]
        yield (f"{diameter:.2f}", *measured, found["n_images"], *(point.get(name, "") for name in limits))
