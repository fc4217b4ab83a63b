"""Texts of a report, from the answers of a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from radlens.figures.page import DiskRow, ImageRow
from radlens.phantoms.cdmam.registered import Registered

__all__ = [
    "checks",
    "disk_rows",
    "header_rows",
    "image_rows",
    "left_out",
    "method_line",
    "numbers",
    "origin",
    "stated_inputs",
    "training",
]

_MOST_VALUES = 3
_MOST_NAMED = 6

_NUMBERS = {
    "correlation": "correlation with a noise-free phantom",
    "missing": "fraction outside the image",
    "hidden_cells": "cells outside the image",
    "second_phantom": "second phantom",
    "pixel_mm": "pixel size (mm)",
    "line_contrast": "contrast of the grid lines (noise = 1)",
    "odd_cells": "cells with deviating line contrast",
    "shift_mm": "displacement of the lines (mm)",
    "line_misfit": "deviation of the line profile",
    "blur_mm": "blur of the lines (mm)",
    "disk_blur_mm": "blur of the disks (mm)",
    "line_noise": "noise on / beside the lines",
    "filter_px": "filter of the noise (pixels)",
    "second": "noise correlation, 2 pixels apart, minus the filter's",
    "fine": "noise of single pixels / implied by 0.5 mm bins",
    "anisotropy": "noise correlation, down minus right",
    "large_noise": "noise of cell means / of 0.5 mm bins",
    "unevenness": "largest / smallest noise of 9 parts",
    "quietest_cell": "smallest noise of a cell (all cells = 1)",
    "noisiest_cell": "largest noise of a cell (all cells = 1)",
    "far_pixels": "fraction of outlier pixels",
    "far_bins": "outlier bins of 0.5 mm",
    "excess": "excess kurtosis, pixels",
    "bin_excess": "excess kurtosis, 0.5 mm bins",
    "stripes": "stripes (noise = 1)",
    "clipped_top": "fraction clipped at the top",
    "clipped_bottom": "fraction clipped at the bottom",
    "step": "step of pixel values (noise = 1)",
    "slope": "background, change along 100 mm (noise = 1)",
    "bend": "background, deviation from a plane (noise = 1)",
    "visibility": "visibility of the disks (scenario 1 = 1)",
    "corner_to_middle": "visibility, corner / middle disks",
    "thick_to_thin": "visibility, thick / thin disks",
    "small_disks": "disks of 0.25 mm and less vs. larger ones (standard deviations)",
    "smallest_disks": "disks of 0.16 mm and less vs. larger ones (standard deviations)",
    "weakest_row": "disks of the weakest diameter vs. larger ones (standard deviations)",
    "faint_disks": "barely visible disks vs. others (standard deviations)",
    "disk_mismatch": "disk mismatch (expected: 1)",
    "other_corners": "signal in corners without a disk (expected: 1)",
    "hits": "cells of 205 read correctly",
}
"""Names of the numbers of an assessment in a report; other numbers keep their names."""

_GROUPS = {
    "large": "1 mm and more",
    "middle": "0.5 to 0.8 mm",
    "small": "0.4 mm and less",
    "empty": "corners without a disk",
}


def header_rows(stated: Sequence[Mapping[str, str | None]]) -> list[tuple[str, str | None]]:
    """Return one text for each name: the value that all images share, or the different values.

    Args:
        stated: attributes of each image, from `radlens.images.exposure.exposure`; at least one.
    """
    return [(name, _joined([each[name] for each in stated])) for name in stated[0]]


def _joined(values: Sequence[str | None]) -> str | None:
    different = sorted({value or "not stated" for value in values})
    if len(different) == 1:
        return values[0]
    if len(different) <= _MOST_VALUES:
        return "; ".join(different)
    return f"{different[0]} to {different[-1]} ({len(different)} values)"


def training(provenance: Mapping[str, Any]) -> str:
    """Return a sentence about the training images of the model, from its record.

    Args:
        provenance: provenance of the prediction.
    """
    recordings = (provenance.get("training") or {}).get("recordings")
    if recordings is None or recordings == "not stated":
        return (
            "The record of the model does not state its training images: assume simulated images only. Its results "
            "have not been compared with read-outs of real phantoms."
        )
    if recordings == "real":
        return "The model was trained on simulated images and on recordings of real phantoms."
    return (
        "The model was trained on simulated images only; its results have not been compared with read-outs of real "
        "phantoms."
    )


def checks(phantom: Registered | None, failure: str) -> list[tuple[str, str]]:
    """Return names and texts of the results of the registration.

    Args:
        phantom: the registered phantom; None if the registration failed.
        failure: reason why the registration failed.
    """
    if phantom is None:
        return [("Registration", f"failed: {failure}")]
    layout = phantom.layout
    mirrors = [
        words
        for is_mirrored, words in (
            (layout.mirror_horizontal, "left and right exchanged"),
            (layout.mirror_vertical, "top and bottom exchanged"),
        )
        if is_mirrored
    ]
    return [
        ("Registration", f"phantom found, correlation with a noise-free phantom {phantom.correlation:.3f}"),
        ("Rotation", f"{layout.rotation_deg:+.2f}°, {'on its side' if phantom.is_transposed else 'upright'}"),
        ("Mirroring", "; ".join(mirrors) or "not mirrored"),
        ("Outside the image", f"{100 * phantom.missing:.1f} % of the phantom"),
    ]


def numbers(assessment: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return names and values of the numbers of an assessment, without those that `checks` states."""
    return [
        (_NUMBERS.get(name, name.replace("_", " ")), f"{value:.3g}")
        for name, value in assessment.items()
        if isinstance(value, int | float) and not isinstance(value, bool) and name not in ("correlation", "missing")
    ]


def origin(prediction: Mapping[str, Any], provenance: Mapping[str, Any]) -> list[str]:
    """Return sentences about the calculation of a curve.

    Args:
        prediction: the curve as JSON values.
        provenance: provenance of the prediction.
    """
    n_images, n_samples = prediction.get("n_images", 1), prediction.get("n_samples", 1)
    samples = f"{n_samples} sample{'s' if n_samples > 1 else ''} of 250 × 250 pixels"
    seed = provenance.get("sampling", {}).get("seed")
    drawn = "" if seed is None else f" (seed {seed})"
    combined = (
        f"The curve of each image is the mean over {samples}{drawn}. The reported curve is the geometric mean of "
        f"{n_images} images. Errors common to all images do not average out; the interval includes them."
        if n_images > 1
        else f"The curve is the mean over {samples} of one image{drawn}."
    )
    found = [f"{combined} Its midpoint, the mean of the 12 thresholds, is {prediction['midpoint_um']:.3f} µm of gold."]
    if min(prediction["mean_um"]) > 0:
        parts = [_relative(prediction, name) for name in ("aleatoric", "epistemic")]
        found.append(
            "The 95 % interval is log-normal. It combines the expected reading error (aleatoric, "
            f"{parts[0]}, one standard deviation) and the disagreement of the networks (epistemic, {parts[1]})."
        )
    return found


def _relative(prediction: Mapping[str, Any], name: str) -> str:
    values = [deviation / mean for deviation, mean in zip(prediction[f"{name}_um"], prediction["mean_um"], strict=True)]
    low, high = f"{100 * min(values):.1f}", f"{100 * max(values):.1f}"
    return f"{low} %" if low == high else f"{low} to {high} %"


def method_line(explanation: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Return method, parameters, number of samples and reliability of a map for the captions of its pictures.

    Args:
        explanation: the map with its fields.
        provenance: provenance of the explanation.
    """
    stated = provenance.get("explainer") or {}
    parameters = stated.get("parameters") or {}
    names = {"path_length": "c", "n_steps": "L", "zscore": "t"}  # symbols of Amanova et al. 2022
    parts = [str(explanation["method"]).upper() if explanation["method"] == "omig" else str(explanation["method"])]
    parts += [
        f"{names.get(name, name.replace('_', ' '))} = {value:g}"
        if isinstance(value, int | float)
        else f"{name} {value}"
        for name, value in parameters.items()
        if value is not None
    ]
    n_samples = explanation["n_samples"]
    reliability = explanation.get("reliability")
    parts.append(f"{n_samples} sample{'s' if n_samples != 1 else ''}")
    parts.append("reliability not known" if reliability is None else f"reliability {reliability:.2f}")
    return ", ".join(parts)


def disk_rows(disks: Mapping[str, Any] | None) -> list[DiskRow]:
    """Return the disk statistic of a map and that of its disk-free twin; an empty list without a statistic."""
    if disks is None:
        return []
    return [
        DiskRow(
            words,
            str(disks["disks"][group]["n"]),
            *_t_and_share(disks["disks"][group]),
            *_t_and_share(disks["twin"][group]),
        )
        for group, words in _GROUPS.items()
    ]


def _t_and_share(contrast: Mapping[str, Any]) -> tuple[str, str]:
    t, share = contrast["t"], contrast["redder"]
    return "-" if t is None else f"{t:.1f}", "-" if share is None else f"{100 * share:.0f} %"


def image_rows(images: Sequence[Mapping[str, Any]]) -> list[ImageRow]:
    """Return one row for each image of a prediction of several images.

    Args:
        images: the field ``images`` of the prediction.
    """
    return [
        ImageRow(
            str(number),
            _identity(image),
            (image.get("acquired") or "not stated").replace("T", " ")[:16],
            _thresholds(image["prediction"]),
            _standing(image),
            bool(image["counts"]),
        )
        for number, image in enumerate(images, start=1)
    ]


def left_out(images: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a sentence for each image that does not count; beyond `_MOST_NAMED`, one sentence states their number.

    Args:
        images: the field ``images`` of the prediction.
    """
    said = [
        f"Image {row.number} ({row.identity}): {'; '.join([row.standing, *image['reasons']])}."
        for row, image in zip(image_rows(images), images, strict=True)
        if not row.counts
    ]
    further = len(said) - _MOST_NAMED
    return said[:_MOST_NAMED] + ([f"{further} further images are left out, see the table."] if further > 0 else [])


def _identity(image: Mapping[str, Any]) -> str:
    uid = image.get("sop_instance_uid")
    return f"…{uid[-8:]}" if uid else image["sha256"][:10]


def _thresholds(prediction: Mapping[str, Any] | None) -> list[str]:
    if prediction is None:
        return ["-"] * 13
    values = [prediction["midpoint_um"], *prediction["mean_um"]]
    return [f"{value:.3f}" if value < 1 else f"{value:.2f}" for value in values]


def _standing(image: Mapping[str, Any]) -> str:
    if not image["assessable"]:
        return "left out, not assessable"
    if image["is_outlier"]:
        return "left out, outlier"
    return "left out, same exposure as another" if image["is_repeated"] else "counts"


def stated_inputs(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return the provenance with each of several inputs shortened to a text of hash and UID."""
    if "inputs" not in provenance:
        return dict(provenance)
    inputs = {
        f"{number}": f"sha256 {each['sha256'][:16]}" + (f", {uid}" if (uid := each.get("sop_instance_uid")) else "")
        for number, each in enumerate(provenance["inputs"], start=1)
    }
    return {name: value for name, value in provenance.items() if name != "input"} | {"inputs": inputs}
