"""From numbers to answers: predictions and explanations as JSON, PNG, ``.npy`` and DICOM."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from radlens.errors import NotAcceptable
from radlens.evaluation.cdc import describe, linear_interval, log_interval, verdict
from radlens.explainers import UpsampledMap
from radlens.families.cdmam.computing import Explanation, OneSample
from radlens.families.cdmam.rows import Row
from radlens.figures import Curve, colorize, display_map, figure_cdc, overlay, save
from radlens.images import secondary_capture, to_npy, to_png
from radlens.images.image import DICOM, NPY, PNG
from radlens.service.messages import Response
from radlens.service.provenance import header_value
from radlens.wire import PROVENANCE, array_to_json

__all__ = ["Context", "explanation_fields", "explanation_response", "prediction_response", "preview"]

_PREVIEW_SIDE = 500
"""Largest number of rows and columns of a partial map."""

_NORMALISED = "standard deviations of the training images' pixels"

_UNITS = {
    "omig": _NORMALISED,
    "sensitivity": f"um of gold per {_NORMALISED}",
    "occlusion": "um of gold",
}
"""Unit of a map, by method."""

_MEANINGS = {
    "omig": "positive pixels must become brighter and negative ones darker, all at the same time, "
    "for the predicted curve to fall",
    "sensitivity": "how fast the midpoint of the predicted curve falls as a pixel becomes brighter",
    "occlusion": "by how much the midpoint of the predicted curve rises when a pixel gets the training mean",
}
"""What the sign of a value says, by method (Amanova et al. 2022, section 2.3.1)."""


@dataclass(frozen=True, eq=False)
class Context:
    """What an answer says beside its result.

    Attributes:
        provenance: JSON values, see :func:`radlens.service.provenance.provenance`.
        warnings: sentences, see :func:`radlens.families.cdmam.cautions.cautions`.
        diameters_mm: of the points of a curve.
    """

    provenance: dict[str, Any]
    warnings: list[str]
    diameters_mm: Sequence[float]

    def with_found(self, explanation: Explanation) -> "Context":
        """Return the context of an explanation that is finished: its samples and their reliability are known."""
        sampling = self.provenance["sampling"] | explanation.found()
        return replace(self, provenance=self.provenance | {"sampling": sampling})


def prediction_response(row: Row, curves: np.ndarray, context: Context) -> Response:
    """Return a prediction as JSON, PNG or ``.npy``, whichever the row asks for.

    Args:
        row: of the prediction.
        curves: ``(4, 12)`` um of gold: mean, aleatoric, epistemic, total.
        context: what else to say.
    """
    if row.media_type == PNG:
        body = _cdc_png(curves)
    elif row.media_type == NPY:
        body = to_npy(curves)
    else:
        body = json.dumps(_prediction_fields(curves, context)).encode()
    return _response(row, body, context)


def explanation_response(row: Row, explanation: Explanation, context: Context) -> Response:
    """Return an explanation as JSON, PNG, ``.npy`` or DICOM, whichever the row asks for."""
    context = context.with_found(explanation)
    if row.media_type == PNG:
        body = to_png(_picture(row, explanation))
    elif row.media_type == NPY:
        found = explanation.upsampled()
        is_spread = row.settings.output == "disagreement"
        body = to_npy(found.disagreement() if is_spread else found.map.astype(np.float32))
    elif row.media_type == DICOM:
        body = _secondary_capture(row, explanation, context)
    else:
        body = json.dumps(_explanation_fields(row, explanation, context)).encode()
    return _response(row, body, context)


def explanation_fields(row: Row, explanation: Explanation, context: Context) -> dict[str, Any]:
    """Return an explanation as JSON values: the map and how often each pixel was visited, or the map of one sample.

    A map of many samples comes with its reliability, and with the two halves that tells: whoever joins maps of several
    ranges of samples joins them as well. Maps of members are not in it, but their standard deviation.
    """
    return _explanation_fields(row, explanation, context.with_found(explanation), with_members=False)


def _explanation_fields(
    row: Row, explanation: Explanation, context: Context, *, with_members: bool = True
) -> dict[str, Any]:
    method, settings = _method(row), row.settings
    if settings.output == "sampled" and isinstance(explanation, OneSample):
        fields, members = _sampled_fields(explanation), explanation.of_members
    else:
        upsampled = explanation.upsampled()
        fields, members = _map_fields(upsampled), upsampled.members
    if with_members and members is not None:
        fields["members"] = [array_to_json(values) for values in members]
    described = {
        "method": method,
        "unit": _UNITS.get(method, ""),
        "meaning": _MEANINGS.get(method, ""),
        "n_samples": settings.n_samples,
        "normalize": settings.normalize,
        **explanation.found(),
    }
    return {"explanation": described | fields, "warnings": context.warnings, "provenance": context.provenance}


def preview(partial: UpsampledMap) -> dict[str, Any]:
    """Return a map of the samples so far, averaged over blocks to at most 500x500 float32, as JSON values."""
    return array_to_json(display_map(partial, max_side=_PREVIEW_SIDE).astype(np.float32))


def _prediction_fields(curves: np.ndarray, context: Context) -> dict[str, Any]:
    mean, aleatoric, epistemic, total = curves.astype(np.float64)
    is_positive = mean.min() > 0
    interval = log_interval(mean, total) if is_positive else linear_interval(mean, total)
    found = verdict(mean, interval) if is_positive else None
    numbers = {
        "diameters_mm": context.diameters_mm,
        "mean_um": mean.tolist(),
        "aleatoric_um": aleatoric.tolist(),
        "epistemic_um": epistemic.tolist(),
        "total_um": total.tolist(),
        "interval_um": interval.tolist(),
        "midpoint_um": float(mean.mean()),
    }
    return {
        "prediction": numbers,
        "verdict": asdict(found) | {"summary": describe(found)} if found else None,
        "warnings": context.warnings,
        "provenance": context.provenance,
    }


def _cdc_png(curves: np.ndarray) -> bytes:
    mean, _, _, total = curves.astype(np.float64)
    if mean.min() <= 0:
        raise NotAcceptable(f"a curve can be drawn if it is above 0 um, got {mean.min():g}; JSON can hold it")
    return save(figure_cdc([Curve(mean, log_interval(mean, total))]))


def _map_fields(upsampled: UpsampledMap) -> dict[str, Any]:
    visits = upsampled.visits.astype(np.min_scalar_type(int(upsampled.visits.max())))
    fields = {"map": array_to_json(upsampled.map.astype(np.float32)), "visits": array_to_json(visits)}
    if upsampled.members is not None:
        fields["disagreement"] = array_to_json(upsampled.disagreement())
    if upsampled.halves is not None:
        fields |= {f"half_{name}": array_to_json(getattr(upsampled.halves, name)) for name in ("totals", "visits")}
    return fields


def _sampled_fields(explanation: OneSample) -> dict[str, Any]:
    values, rows, cols = explanation.sampled
    members = explanation.of_members
    spread = {} if members is None else {"disagreement": array_to_json(members.std(axis=0))}
    return {
        **spread,
        "sampled": array_to_json(values),
        "rows": array_to_json(rows.astype(np.uint32)),
        "cols": array_to_json(cols.astype(np.uint32)),
    }


def _picture(row: Row, explanation: Explanation) -> np.ndarray:
    if row.settings.output == "overlay":
        return overlay(row.image.pixels, explanation.upsampled())
    if row.settings.output == "disagreement":
        found = explanation.upsampled()
        return colorize(display_map(replace(found, map=found.disagreement())))
    if row.settings.output == "sampled" and isinstance(explanation, OneSample):
        return colorize(explanation.sampled.image)
    return colorize(display_map(explanation.upsampled()))


def _secondary_capture(row: Row, explanation: Explanation, context: Context) -> bytes:
    return secondary_capture(
        overlay(row.image.pixels, explanation.upsampled()),
        row.image,
        series_description=f"radlens {_method(row)}"[:64],
        provenance=context.provenance,
    )


def _method(row: Row) -> str:
    return row.settings.explainer.name if row.settings.explainer else ""


def _response(row: Row, body: bytes, context: Context) -> Response:
    return Response(200, row.media_type, body, {PROVENANCE: header_value(context.provenance)})
