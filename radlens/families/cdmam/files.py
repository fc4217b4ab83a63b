"""Files of a phantom's explanations, and the regions of an image to enlarge; this module needs no torch."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from radlens.dicom import write
from radlens.errors import InvalidParameter, UnreadableImage
from radlens.families.cdmam.drawing import ablation_picture, upsampled_map
from radlens.families.cdmam.findings import findings
from radlens.families.pictures import described, member_files, silent_files
from radlens.figures import LARGE_DISKS, SMALL_DISKS, Box, figure_map, overlay, region, save
from radlens.images import Image, to_npy, to_png
from radlens.phantoms.cdmam import locate
from radlens.wire import ABLATION

__all__ = ["explanation_files", "regions"]


def explanation_files(answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    """Return the files of an explanation by name: map, pictures and numbers."""
    (capture,) = write(findings(answer, [image]), ("capture",))
    if not answer.get("assessable", True) and answer["explanation"] is None:
        return {**silent_files(answer, answer["reasons"]), "overlay.dcm": capture}
    if answer["explanation"]["method"] == ABLATION:
        return {**_ablation_files(answer, image), "ablation.dcm": capture}
    return {**_map_files(answer, image), "overlay.dcm": capture}


def _ablation_files(answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    """Return the effects of the cells as a picture and as a table."""
    found = answer["explanation"]
    header = ["diameter_mm", *(f"{thickness:g} um" for thickness in found["thicknesses_um"])]
    rows = [[diameter, *row] for diameter, row in zip(found["diameters_mm"], found["effect"], strict=True)]
    lines = [",".join("" if value is None else str(value) for value in row) for row in [header, *rows]]
    return {
        "ablation.png": ablation_picture(answer, image),
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
        silent = silent_files(answer, [disks["sentence"]], "No map", "This map is not a finding.")
        return {"map.npy": to_npy(found["map"]), "visits.npy": to_npy(found["visits"]), **silent}
    return {
        **member_files(found, image, of_members),
        "map.npy": to_npy(found["map"]),
        "visits.npy": to_npy(found["visits"]),
        "map.png": save(figure_map(shown, spacing_mm=image.spacing_mm, title=title, label=found["unit"])),
        "overlay.png": to_png(laid_over),
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
