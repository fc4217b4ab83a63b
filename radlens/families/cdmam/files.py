"""Files of a phantom's explanations, and the regions of an image to enlarge; this module needs no torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.families.cdmam.cells import automated_um
from radlens.families.cdmam.opening import spacing_of
from radlens.families.pictures import described, member_files, silent_files
from radlens.figures import LARGE_DISKS, SMALL_DISKS, Box, Curve, figure_cdc, figure_map, overlay, region, save
from radlens.figures.ablation import AblatedCells, figure_ablation
from radlens.images import Image, secondary_capture, to_npy, to_png
from radlens.maps import UpsampledMap
from radlens.phantoms.cdmam import locate, register
from radlens.wire import ABLATION

__all__ = ["curve_picture", "explanation_files", "regions", "upsampled_map"]


def upsampled_map(answer: Mapping[str, Any]) -> UpsampledMap:
    """Return the map of a decoded explanation."""
    found = answer["explanation"]
    return UpsampledMap(
        found["map"].astype(np.float64), found["visits"].astype(np.int64), found["n_samples"], found["normalize"]
    )


def curve_picture(answer: Mapping[str, Any]) -> bytes:
    """Return the predicted curve with its interval as PNG."""
    found = answer["prediction"]
    return save(figure_cdc([Curve(np.array(found["mean_um"]), np.array(found["interval_um"]))]))


def explanation_files(answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    """Return the files of an explanation by name: map, pictures and numbers."""
    if not answer.get("assessable", True) and answer["explanation"] is None:
        return silent_files(answer, image, answer["reasons"])
    return _ablation_files(answer, image) if answer["explanation"]["method"] == ABLATION else _map_files(answer, image)


def _ablation_files(answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    """Return the effects of the cells as a picture and as a table."""
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
        "explanation.json": described(answer),
    }


def _map_files(answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    found, shown = answer["explanation"], upsampled_map(answer)
    laid_over = overlay(image.pixels, shown)
    title = f"{found['method']}, {found['n_samples']} sample{'s' if found['n_samples'] > 1 else ''}"
    title += f", reliability {found['reliability']:.2f}" if found.get("reliability") is not None else ""
    if (disks := found.get("disks")) is not None:
        # The colours of a map fill its own range, so that a weak map looks as convincing as a strong one.
        marked, twin = (disks[each]["large"]["t"] for each in ("disks", "twin"))
        title += "" if marked is None or twin is None else f"\nt of the disks {marked:.1f}, without them {twin:.1f}"
    of_members = [replace(shown, map=values) for values in found.get("members", ())]
    if disks is not None and not disks["marks_disks"]:
        silent = silent_files(answer, image, [disks["sentence"]], "No map", "This map is not a finding.")
        return {"map.npy": to_npy(found["map"]), "visits.npy": to_npy(found["visits"]), **silent}
    return {
        **member_files(found, image, of_members),
        "map.npy": to_npy(found["map"]),
        "visits.npy": to_npy(found["visits"]),
        "map.png": save(figure_map(shown, spacing_mm=image.spacing_mm, title=title, label=found["unit"])),
        "overlay.png": to_png(laid_over),
        "overlay.dcm": secondary_capture(
            laid_over, image, series_description=f"radlens {found['method']}"[:64], provenance=answer["provenance"]
        ),
        "explanation.json": described(answer),
    }


def regions(image: Image) -> dict[str, Box]:
    """Return the regions of an image to enlarge: large and small disks, or halves if no phantom is found."""
    height, width = image.pixels.shape
    try:
        if image.spacing_mm is None:
            raise UnreadableImage("spacing must be known to find a phantom")
        layout = locate(image.pixels, image.spacing_mm)
        return {"large disks": region(layout, LARGE_DISKS), "small disks": region(layout, SMALL_DISKS)}
    except (UnreadableImage, InvalidParameter):
        upper = height // 2
        return {"upper half": Box(0, 0, upper, width), "lower half": Box(upper, 0, height - upper, width)}
