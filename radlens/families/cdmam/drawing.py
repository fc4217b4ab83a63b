"""Pictures of decoded answers of phantom models; this module needs no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from radlens.families.cdmam.cells import automated_um
from radlens.families.cdmam.opening import spacing_of
from radlens.figures import Curve, figure_cdc, save
from radlens.figures.ablation import AblatedCells, figure_ablation
from radlens.images import Image
from radlens.maps import UpsampledMap
from radlens.phantoms.cdmam import register

__all__ = ["ONE_SAMPLE", "ablation_picture", "curve_picture", "silence_of", "upsampled_map"]

ONE_SAMPLE = "A map of one sample visits one pixel in ninety: it shows no disks. Use more samples."
"""Sentence that replaces the map of one sample of a registered phantom."""


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


def ablation_picture(answer: Mapping[str, Any], image: Image) -> bytes:
    """Return the effects of the cells of a decoded ablation as PNG."""
    found = answer["explanation"]
    effect = np.array(found["effect"], dtype=np.float64)
    mean = np.array(found["prediction"]["mean_um"])
    cells = AblatedCells(effect, np.array(found["significant"]), mean, automated_um(mean))
    phantom = register(image.pixels, spacing_of(image))
    return save(figure_ablation(cells, phantom.upright(image.pixels), phantom.layout))


def silence_of(answer: Mapping[str, Any]) -> str | None:
    """Return the sentence that replaces the map of a decoded explanation: it looks like a finding and is none.

    None if the map may be shown.
    """
    found = answer["explanation"]
    if "disks" not in found:
        return None
    if found["n_samples"] == 1:
        return ONE_SAMPLE
    disks = found["disks"]
    return None if disks is None or disks["marks_disks"] else str(disks["sentence"])
