"""Files of the explanations of a classifier; this module needs no torch."""

import json
from collections.abc import Mapping
from typing import Any

from radlens.dicom import write
from radlens.families.classifier.findings import findings, strip_picture
from radlens.families.pictures import described, member_files, silent_files
from radlens.figures import animated_strip, colorize, display_grey, overlay
from radlens.images import Image, to_npy, to_png

__all__ = ["explanation_files"]


def explanation_files(answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    """Return the files of an explanation by name: map, pictures and numbers."""
    found = answer["explanation"]
    if found is None:
        return {
            **silent_files(answer, answer["reasons"]),
            "overlay.dcm": write(findings(answer, [image]), ("capture",))[0],
        }
    laid_over = overlay(image.pixels, found["map"])
    contents = {
        "map.npy": to_npy(found["map"]),
        "map.png": to_png(colorize(found["map"])),
        "overlay.png": to_png(laid_over),
        "explanation.json": described(answer),
    }
    if image.dataset is not None:
        (contents["overlay.dcm"],) = write(findings(answer, [image]), ("capture",))
    for name, values in found.get("pictures", {}).items():
        contents |= {f"{name}.npy": to_npy(values), f"{name}.png": to_png(display_grey(values))}
    if "strip" in found:
        contents |= _strip_files(found, image)
    contents |= member_files(found, image, found.get("members", ()))
    if "trust" in answer:
        contents["trust.json"] = (json.dumps(answer["trust"], indent=2) + "\n").encode()
    return contents


def _strip_files(found: Mapping[str, Any], image: Image) -> dict[str, bytes]:
    stated, numbers, pictures = found["strip"], found["numbers"], found["pictures"]
    given = (pictures[stated["first"]], image.pixels, pictures[stated["last"]], numbers["positions"], numbers["scores"])
    return {"strip.png": strip_picture(found, image), "strip.apng": animated_strip(*given, label=stated["label"])}
