"""Responses of the CDMAM service: predictions and explanations as JSON, PNG, ``.npy`` and DICOM."""

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from radlens.dicom import write
from radlens.errors import NotAcceptable, NotAssessable
from radlens.evaluation.cdc import describe, verdict
from radlens.explainers import UpsampledMap
from radlens.families.cdmam.ablation import Ablation
from radlens.families.cdmam.cells import automated_um
from radlens.families.cdmam.computing import Explanation, OneSample
from radlens.families.cdmam.drawing import ONE_SAMPLE
from radlens.families.cdmam.findings import findings
from radlens.families.cdmam.judging import Judged, JudgedImage
from radlens.families.cdmam.methods import ABLATION
from radlens.families.cdmam.reader import Curve
from radlens.families.cdmam.rows import Row
from radlens.figures import Curve as DrawnCurve
from radlens.figures import colorize, display_map, figure_cdc, figure_not_assessable, overlay, save
from radlens.figures.ablation import AblatedCells, figure_ablation
from radlens.images import to_npy, to_png
from radlens.images.image import NPY, PNG
from radlens.phantoms.cdmam import DIAMETERS_MM, THICKNESSES_UM
from radlens.service.domain import Assessment
from radlens.service.messages import Response
from radlens.service.objects import DICOM_FORMATS, as_body
from radlens.service.provenance import header_value, input_stated
from radlens.wire import CDC, NDJSON, PROVENANCE, array_to_json

__all__ = [
    "Context",
    "ablation_response",
    "explanation_fields",
    "explanation_response",
    "prediction_response",
    "preview",
    "unassessable_response",
]

_PREVIEW_SIDE = 500
"""Largest number of rows and columns of a partial map."""

_NORMALISED = "standard deviations of the training images' pixels"

_NO_MAP = ("No map", "What this map would show is not a finding.")
"""Heading and first line of the page that replaces a map."""

_OWN_NOISE = "standard deviations of the image's own noise, compressed by asinh"


@dataclass(frozen=True, eq=False)
class Context:
    """Fields of an answer apart from its result.

    Attributes:
        provenance: origin of the answer as JSON values, from :func:`radlens.service.provenance.provenance`.
        warnings: sentences about the image, such as those of :func:`radlens.families.cdmam.cautions.cautions`.
        diameters_mm: disk diameters of the points of a curve.
    """

    provenance: dict[str, Any]
    warnings: list[str]
    diameters_mm: Sequence[float]

    def with_found(self, explanation: Explanation) -> "Context":
        """Return the context with the number of samples and the reliability of a finished explanation."""
        sampling = self.provenance["sampling"] | explanation.found()
        return replace(self, provenance=self.provenance | {"sampling": sampling})


def prediction_response(row: Row, found: Judged, context: Context) -> Response:
    """Return a prediction as JSON, PNG, ``.npy`` or DICOM objects, as the row requests.

    JSON and PNG can state why an image cannot be judged; ``.npy`` cannot, so it is refused without a curve.

    Args:
        row: request of the prediction.
        found: the curve, and whether a verdict on it may be given.
        context: provenance and warnings.

    Raises:
        NotAssessable: The row requests ``.npy`` and there is no curve.
    """
    if row.media_type in DICOM_FORMATS:
        return _objects(row, _prediction_fields(found, context), context)
    if row.media_type == PNG:
        body = _cdc_png(found)
    elif row.media_type == NPY:
        if found.curve is None:
            raise NotAssessable(found.assessment.sentence())
        curve = found.curve
        body = to_npy(np.stack([curve.mean, curve.aleatoric, curve.epistemic, curve.total]).astype(np.float32))
    else:
        body = json.dumps(_prediction_fields(found, context)).encode()
    return _response(row, body, context)


def unassessable_response(row: Row, found: Judged, context: Context) -> Response:
    """Return the reasons why the model may not judge an image, in place of its explanation.

    Raises:
        NotAssessable: The row requests ``.npy``, which cannot hold reasons.
    """
    if row.media_type == NPY:
        raise NotAssessable(found.assessment.sentence())
    if row.media_type == PNG:
        return _response(row, to_png(figure_not_assessable(found.assessment.reasons)), context)
    fields = {
        "task": CDC,
        **_assessed(found.assessment),
        "explanation": None,
        "warnings": context.warnings,
        "provenance": context.provenance,
    }
    if row.media_type in DICOM_FORMATS:
        return _objects(row, fields, context)
    if row.media_type == NDJSON:
        return _response(row, json.dumps({"event": "result", "complete": True, **fields}).encode() + b"\n", context)
    return _response(row, json.dumps(fields).encode(), context)


def explanation_response(row: Row, explanation: Explanation, context: Context) -> Response:
    """Return an explanation as JSON, PNG, ``.npy`` or DICOM objects, as the row requests."""
    context = context.with_found(explanation)
    if row.media_type in DICOM_FORMATS:
        return _objects(row, _explanation_fields(row, explanation, context, with_members=False, encode=_same), context)
    silence = _silence(row, explanation)
    if silence is not None and row.media_type == PNG:
        body = to_png(figure_not_assessable([silence], *_NO_MAP))
    elif row.media_type == PNG:
        body = to_png(_picture(row, explanation))
    elif row.media_type == NPY:
        found = explanation.upsampled()
        is_spread = row.settings.output == "disagreement"
        body = to_npy(found.disagreement() if is_spread else found.map.astype(np.float32))
    else:
        body = json.dumps(_explanation_fields(row, explanation, context)).encode()
    return _response(row, body, context)


def _silence(row: Row, explanation: Explanation) -> str | None:
    """Return the sentence that replaces a picture which is not a finding but looks like one; None if it is one."""
    if not row.registered:
        return None
    if isinstance(explanation, OneSample):
        return ONE_SAMPLE
    statement = None if explanation.disks is None else explanation.disks.statement
    return None if statement is None or statement.marks_disks else statement.sentence


def ablation_response(row: Row, found: Ablation, context: Context) -> Response:
    """Return a disk ablation as JSON, PNG or DICOM objects, as the row requests."""
    if row.media_type == PNG:
        phantom = row.opened[0].phantom
        assert phantom is not None, "an ablation is of a registered phantom"
        cells = AblatedCells(found.effect, found.significant, found.curve.mean, automated_um(found.curve.mean))
        drawn = figure_ablation(cells, phantom.upright(row.image.pixels), phantom.layout)
        return _response(row, save(drawn), context)
    fields = {
        "task": CDC,
        **_assessed(row.assessment),
        "explanation": {
            "method": ABLATION,
            "unit": "natural logarithm of the midpoint",
            "meaning": "rise of the predicted midpoint when a cell loses its two disks; positive cells carried it",
            "prediction": _curve_fields(found.curve),
            "diameters_mm": list(DIAMETERS_MM),
            "thicknesses_um": list(THICKNESSES_UM),
            **found.as_json(),
        },
        "warnings": context.warnings,
        "provenance": context.provenance,
    }
    if row.media_type in DICOM_FORMATS:
        return _objects(row, fields, context)
    return _response(row, json.dumps(fields).encode(), context)


def explanation_fields(row: Row, explanation: Explanation, context: Context) -> dict[str, Any]:
    """Return an explanation as JSON values: the map and the visits of each pixel, or the map of one sample.

    A map of many samples includes its reliability and the half maps behind it, which a client needs to merge the maps
    of several ranges of samples. The maps of members are left out; their standard deviation is included.
    """
    return _explanation_fields(row, explanation, context.with_found(explanation), with_members=False)


def _explanation_fields(
    row: Row,
    explanation: Explanation,
    context: Context,
    *,
    with_members: bool = True,
    encode: Callable[[np.ndarray], Any] = array_to_json,
) -> dict[str, Any]:
    settings, explainer = row.settings, row.settings.explainer
    assert explainer is not None, "an explanation has a method"
    if settings.output == "sampled" and isinstance(explanation, OneSample):
        fields, members = _sampled_fields(explanation), explanation.of_members
    else:
        upsampled = explanation.upsampled()
        fields, members = _map_fields(upsampled, encode), upsampled.members
    if with_members and members is not None:
        fields["members"] = [encode(values) for values in members]
    described = {
        "method": explainer.name,
        **explainer.described(
            score="midpoint of the predicted curve",
            unit="um of gold",
            image=_OWN_NOISE if row.registered else _NORMALISED,
        ),
        "n_samples": settings.n_samples,
        "normalize": settings.normalize,
        **explanation.found(),
    }
    if row.registered:
        disks = None if isinstance(explanation, OneSample) else explanation.disks
        described["disks"] = None if disks is None else disks.as_json()
    return {
        "task": CDC,
        **_assessed(row.assessment),
        "explanation": described | fields,
        "warnings": context.warnings,
        "provenance": context.provenance,
    }


def _same(array: np.ndarray) -> np.ndarray:
    """Return an array as it is, where an answer does not become JSON."""
    return array


def preview(partial: UpsampledMap) -> dict[str, Any]:
    """Return a partial map as JSON values, averaged over blocks to at most 500x500 float32."""
    return array_to_json(display_map(partial, max_side=_PREVIEW_SIDE).astype(np.float32))


def _assessed(assessment: Assessment) -> dict[str, Any]:
    found = assessment.as_json()
    return {"assessable": found["assessable"], "reasons": found["reasons"], "assessment": found["numbers"]}


def _prediction_fields(found: Judged, context: Context) -> dict[str, Any]:
    curve, is_judged = found.curve, found.assessment.assessable
    judged = verdict(curve.mean, curve.interval) if curve is not None and is_judged else None
    answer = {
        "task": CDC,
        **_assessed(found.assessment),
        "prediction": None if curve is None else _curve_fields(curve) | {"diameters_mm": context.diameters_mm},
        "verdict": asdict(judged) | {"summary": describe(judged)} if judged else None,
        "warnings": [*context.warnings, *found.warnings],
        "provenance": context.provenance,
    }
    if len(found.images) > 1:
        answer["images"] = [_image_fields(image) for image in found.images]
    return answer


def _curve_fields(curve: Curve) -> dict[str, Any]:
    return {
        "mean_um": curve.mean.tolist(),
        "aleatoric_um": curve.aleatoric.tolist(),
        "epistemic_um": curve.epistemic.tolist(),
        "total_um": curve.total.tolist(),
        "interval_um": curve.interval.tolist(),
        "midpoint_um": curve.midpoint,
        "n_images": curve.n_images,
        "n_samples": curve.n_samples,
    }


def _image_fields(image: JudgedImage) -> dict[str, Any]:
    return {
        **input_stated(image.opened.image),
        **_assessed(image.assessment),
        "is_outlier": image.is_outlier,
        "is_repeated": image.is_repeated,
        "counts": image.counts,
        "prediction": None if image.curve is None else _curve_fields(image.curve),
    }


def _cdc_png(found: Judged) -> bytes:
    curve = found.curve
    if not found.assessment.assessable and (curve is None or curve.n_samples > 1):
        return to_png(figure_not_assessable(found.assessment.reasons))
    if curve is None or curve.interval.min() <= 0:
        lowest = "no curve" if curve is None else f"{curve.mean.min():g}"
        raise NotAcceptable(f"a curve can be drawn if its interval is above 0 um, got {lowest}; JSON can hold it")
    return save(figure_cdc([DrawnCurve(curve.mean, curve.interval)]))


def _map_fields(upsampled: UpsampledMap, encode: Callable[[np.ndarray], Any]) -> dict[str, Any]:
    # The smallest integer type that holds the counts: a map of 7 million pixels travels in this answer.
    visits = upsampled.visits.astype(np.min_scalar_type(int(upsampled.visits.max())))
    fields = {"map": encode(upsampled.map.astype(np.float32)), "visits": encode(visits)}
    if upsampled.members is not None:
        fields["disagreement"] = encode(upsampled.disagreement())
    if upsampled.halves is not None:
        fields |= {f"half_{name}": encode(getattr(upsampled.halves, name)) for name in ("totals", "visits")}
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


def _objects(row: Row, fields: dict[str, Any], context: Context) -> Response:
    """Return an answer, given as JSON values with arrays, as the DICOM objects that the row requests."""
    files = write(findings(fields, [opened.image for opened in row.opened]), row.settings.objects.split(","))
    content_type, body = as_body(files, row.media_type)
    return Response(200, content_type, body, {PROVENANCE: header_value(context.provenance)})


def _response(row: Row, body: bytes, context: Context) -> Response:
    return Response(200, row.media_type, body, {PROVENANCE: header_value(context.provenance)})
