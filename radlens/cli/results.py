"""Explanations as files, and the regions of an image that are worth enlarging."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image as Pillow

from radlens.cli.console import err, table
from radlens.errors import InvalidParameter, UnreadableImage
from radlens.families.cdmam.cells import automated_um
from radlens.families.cdmam.opening import spacing_of
from radlens.figures import (
    LARGE_DISKS,
    SMALL_DISKS,
    Box,
    colorize,
    display_grey,
    display_map,
    figure_map,
    figure_members,
    figure_not_assessable,
    overlay,
    region,
    save,
)
from radlens.figures.ablation import AblatedCells, figure_ablation
from radlens.images import Image, read, secondary_capture, to_npy, to_png
from radlens.maps import UpsampledMap
from radlens.phantoms.cdmam import locate, register
from radlens.wire import ABLATION, CLASSIFICATION

__all__ = ["print_trust", "regions", "upsampled_map", "write_explanation"]

_DRAWN_SIDE = 600
"""Largest number of rows and columns of the map of a member in a figure."""


def upsampled_map(answer: dict[str, Any]) -> UpsampledMap:
    """Return the map of a decoded explanation."""
    found = answer["explanation"]
    return UpsampledMap(
        found["map"].astype(np.float64), found["visits"].astype(np.int64), found["n_samples"], found["normalize"]
    )


def write_explanation(answer: dict[str, Any], data: bytes, folder: Path, *, prefix: str = "") -> list[Path]:
    """Write map, picture, overlay and what they mean.

    Args:
        answer: a decoded explanation, of CDMAM or of a class.
        data: the image file that was explained.
        folder: made if it is missing.
        prefix: of the names of the files.

    Returns:
        What was written.
    """
    contents = _contents(answer, read(data))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{prefix}{name}" for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    return files


def _contents(answer: dict[str, Any], image: Image) -> dict[str, bytes]:
    if not answer.get("assessable", True) and answer["explanation"] is None:
        return _silent_files(answer, image, answer["reasons"])
    if answer["explanation"]["method"] == ABLATION:
        return _ablation_files(answer, image)
    return _class_files(answer, image) if answer["task"] == CLASSIFICATION else _cdmam_files(answer, image)


def _silent_files(answer: dict[str, Any], image: Image, reasons: Sequence[str], *words: str) -> dict[str, bytes]:
    """Return a grey page in place of the pictures of a map, and the answer itself."""
    picture = figure_not_assessable(reasons, *words)
    capture = secondary_capture(picture, image, series_description="radlens: no map", provenance=answer["provenance"])
    page = to_png(picture)
    return {
        "map.png": page,
        "overlay.png": page,
        "overlay.dcm": capture,
        "explanation.json": _described(answer).encode(),
    }


def _ablation_files(answer: dict[str, Any], image: Image) -> dict[str, bytes]:
    """Return the effect of each cell as a picture and as a table."""
    found = answer["explanation"]
    effect = np.array(found["effect"], dtype=np.float64)
    mean = np.array(found["prediction"]["mean_um"])
    cells = AblatedCells(effect, np.array(found["significant"]), mean, automated_um(mean))
    phantom = register(image.pixels, spacing_of(image))
    drawn = figure_ablation(cells, phantom.upright(image.pixels), phantom.layout)
    header = ["diameter_mm", *(f"{thickness:g} um" for thickness in found["thicknesses_um"])]
    rows = [[diameter, *row] for diameter, row in zip(found["diameters_mm"], found["effect"], strict=True)]
    lines = [",".join("" if value is None else str(value) for value in row) for row in [header, *rows]]
    return {
        "ablation.png": save(drawn),
        "ablation.csv": ("\n".join(lines) + "\n").encode(),
        "explanation.json": _described(answer).encode(),
    }


def _cdmam_files(answer: dict[str, Any], image: Image) -> dict[str, bytes]:
    found, shown = answer["explanation"], upsampled_map(answer)
    laid_over = overlay(image.pixels, shown)
    title = f"{found['method']}, {found['n_samples']} sample{'s' if found['n_samples'] > 1 else ''}"
    title += f", reliability {found['reliability']:.2f}" if found.get("reliability") is not None else ""
    of_members = [replace(shown, map=values) for values in found.get("members", ())]
    disks = found.get("disks")
    if disks is not None and not disks["marks_disks"]:
        silent = _silent_files(answer, image, [disks["sentence"]], "No map", "This map is not a finding.")
        return {"map.npy": to_npy(found["map"]), "visits.npy": to_npy(found["visits"]), **silent}
    return {
        **_member_files(found, image, of_members),
        "map.npy": to_npy(found["map"]),
        "visits.npy": to_npy(found["visits"]),
        "map.png": save(figure_map(shown, spacing_mm=image.spacing_mm, title=title, label=found["unit"])),
        "overlay.png": to_png(laid_over),
        "overlay.dcm": secondary_capture(
            laid_over, image, series_description=f"radlens {found['method']}"[:64], provenance=answer["provenance"]
        ),
        "explanation.json": _described(answer).encode(),
    }


def _class_files(answer: dict[str, Any], image: Image) -> dict[str, bytes]:
    found = answer["explanation"]
    laid_over = overlay(image.pixels, found["map"])
    contents = {
        "map.npy": to_npy(found["map"]),
        "map.png": to_png(colorize(found["map"])),
        "overlay.png": to_png(laid_over),
        "explanation.json": _described(answer).encode(),
    }
    if image.dataset is not None:
        title = f"radlens {found['method']} of {found['target_class']}"[:64]
        provenance = answer["provenance"]
        contents["overlay.dcm"] = secondary_capture(laid_over, image, series_description=title, provenance=provenance)
    contents |= _member_files(found, image, found.get("members", ()))
    if "trust" in answer:
        contents["trust.json"] = (json.dumps(answer["trust"], indent=2) + "\n").encode()
    return contents


def _member_files(
    found: Mapping[str, Any], image: Image, maps: Sequence[np.ndarray | UpsampledMap]
) -> dict[str, bytes]:
    """Return the maps of members and where they disagree, if there are any; ``maps`` as they are to be drawn."""
    if not maps:
        return {}
    drawn = np.stack([display_map(values, max_side=_DRAWN_SIDE) for values in maps])
    grey = _resized(display_grey(image.pixels, max_side=_DRAWN_SIDE), drawn.shape[1:])
    return {
        "members.npy": to_npy(np.stack(found["members"])),
        "members.png": save(figure_members(grey, drawn, label=found["unit"], title=found["method"])),
        "disagreement.npy": to_npy(found["disagreement"]),
        "disagreement.png": to_png(colorize(drawn.std(axis=0))),
    }


def _resized(grey: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Return a grey picture with another number of rows and columns, float32."""
    rows, columns = shape
    return np.asarray(Pillow.fromarray(grey.astype(np.float32)).resize((columns, rows), Pillow.Resampling.BILINEAR))


def print_trust(answer: dict[str, Any]) -> None:
    """Print the trust card of an explanation on stderr, if there is one."""
    if "trust" not in answer:
        return
    card = answer["trust"]
    delta = card["convergence_delta"]
    rows = [
        ("deletion", f"{card['deletion']:.4f}", "0 to 1, low is good"),
        ("insertion", f"{card['insertion']:.4f}", "0 to 1, high is good"),
        ("infidelity", f"{card['infidelity']:.3g}", f"0 is perfect, no map has {card['infidelity_of_no_map']:.3g}"),
        *([] if delta is None else [("convergence delta", f"{delta:.3g}", "what the map's sum misses of the score")]),
        *_randomised(card["randomisation"]),
    ]
    table(["measure", "value", "meaning"], rows, title="Trust card", console=err)


def _randomised(stored: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return how alike the maps of a wholly randomised network are, as the bundle states it."""
    said = "all weights random; 0 is good"
    measures = {name: (stored or {}).get(name) for name in ("spearman", "ssim")}
    return [
        (f"randomised, {name}", "none" if values[-1] is None else f"{values[-1]:.3f}", said)
        for name, values in measures.items()
        if values
    ]


def regions(image: Image) -> dict[str, Box]:
    """Return the parts of an image to enlarge: large and small disks, or its halves where no phantom is found."""
    height, width = image.pixels.shape
    try:
        if image.spacing_mm is None:
            raise UnreadableImage("spacing must be known to find a phantom")
        layout = locate(image.pixels, image.spacing_mm)
        return {"large disks": region(layout, LARGE_DISKS), "small disks": region(layout, SMALL_DISKS)}
    except (UnreadableImage, InvalidParameter):
        upper = height // 2
        return {"upper half": Box(0, 0, upper, width), "lower half": Box(upper, 0, height - upper, width)}


def _described(answer: dict[str, Any]) -> str:
    """Return an explanation as JSON; its arrays are in files beside it."""
    in_files = {"members"}
    found = {
        name: value
        for name, value in (answer["explanation"] or {}).items()
        if not isinstance(value, np.ndarray) and name not in in_files
    }
    return json.dumps(answer | {"explanation": found or None}, indent=2) + "\n"
