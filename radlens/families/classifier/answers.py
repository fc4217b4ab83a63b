"""Responses of the classifier service: predictions and explanations as JSON, PNG, ``.npy`` and DICOM objects."""

import json
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from radlens.dicom import write
from radlens.errors import NotAssessable
from radlens.evaluation.planted import known_of
from radlens.families.classifier.computing import ClassExplanation, ClassPrediction
from radlens.families.classifier.findings import findings
from radlens.families.classifier.manifest import ClassifierManifest
from radlens.families.classifier.rows import ClassifierRow
from radlens.families.classifier.settings import STRIP
from radlens.figures import animated_strip, colorize, display_grey, figure_not_assessable, figure_strip, overlay
from radlens.images import to_npy, to_png
from radlens.images.image import NPY
from radlens.service.domain import Assessment
from radlens.service.messages import Response
from radlens.service.objects import DICOM_FORMATS, as_body
from radlens.service.provenance import header_value
from radlens.wire import APNG, JSON, PROVENANCE, array_to_json

__all__ = ["ClassContext", "explanation_document", "response"]

_SCORE = {"score": "score", "unit": "logit of the class", "image": "unit of the preprocessed image"}
"""Names of score and units in the texts of methods."""


@dataclass(frozen=True, eq=False)
class ClassContext:
    """Fields of an answer apart from its result.

    Attributes:
        provenance: origin of the answer as JSON values.
        warnings: sentences about the image.
        manifest: manifest of the model.
        assessment: whether the model can judge the image.
    """

    provenance: dict[str, Any]
    warnings: list[str]
    manifest: ClassifierManifest
    assessment: Assessment


def response(row: ClassifierRow, result: ClassPrediction | ClassExplanation, context: ClassContext) -> Response:
    """Return a result in the format that the row requests; findings apart from the map go into the provenance."""
    if isinstance(result, ClassExplanation):
        context = replace(context, provenance=_with_findings(row, result, context))
    if row.media_type in DICOM_FORMATS:
        return _objects(row, result, context)
    if isinstance(result, ClassPrediction):
        body = _prediction(row, result, context) if row.settings.explainer is None else _silent(row, result, context)
    else:
        body = _explanation(row, result, context)
    return Response(200, row.media_type, body, {PROVENANCE: header_value(context.provenance)})


def _objects(row: ClassifierRow, result: ClassPrediction | ClassExplanation, context: ClassContext) -> Response:
    """Return a result as the DICOM objects that the row requests."""
    if row.settings.explainer is None:
        assert isinstance(result, ClassPrediction), "a prediction has no explainer"
        document = _prediction_document(result, context)
    else:
        document = explanation_document(row, result, context, encode=_same)
    content_type, body = as_body(
        write(findings(document, [row.image]), row.settings.objects.split(",")), row.media_type
    )
    return Response(200, content_type, body, {PROVENANCE: header_value(context.provenance)})


def _same(array: np.ndarray) -> np.ndarray:
    """Return an array as it is, where an answer does not become JSON."""
    return array


def _silent(row: ClassifierRow, found: ClassPrediction, context: ClassContext) -> bytes:
    """Return the answer to a request for a map of an image that cannot be judged."""
    reasons = context.assessment.reasons
    if row.media_type == JSON:
        return json.dumps(explanation_document(row, found, context)).encode()
    if row.media_type == NPY:
        raise NotAssessable(context.assessment.sentence())
    return to_png(figure_not_assessable(reasons))


def _prediction(row: ClassifierRow, found: ClassPrediction, context: ClassContext) -> bytes:
    if row.media_type == NPY:
        if not context.assessment.assessable:
            raise NotAssessable(context.assessment.sentence())
        return to_npy(found.probabilities)
    return json.dumps(_prediction_document(found, context)).encode()


def _prediction_document(found: ClassPrediction, context: ClassContext) -> dict[str, Any]:
    return {"prediction": _prediction_fields(found, context), **_ending(context)}


def _prediction_fields(found: ClassPrediction, context: ClassContext) -> dict[str, Any]:
    classes = context.manifest.classes
    fields: dict[str, Any] = {
        "predicted": classes[found.predicted] if context.assessment.assessable else None,
        "classes": list(classes),
        "probabilities": found.probabilities.tolist(),
        "logits": found.logits.mean(axis=0).tolist(),
    }
    if len(found.logits) > 1:
        fields["member_probabilities"] = found.member_probabilities.tolist()
        fields["probability_std"] = found.member_probabilities.std(axis=0).tolist()
    return fields


def _explanation(row: ClassifierRow, found: ClassExplanation, context: ClassContext) -> bytes:
    output = row.settings.output
    if row.media_type == JSON:
        return json.dumps(explanation_document(row, found, context)).encode()
    if output in found.pictures:
        return _picture(row, found, output)
    if output == STRIP:
        return _strip(row, found, context)
    values = found.disagreement() if output == "disagreement" else found.map()
    if row.media_type == NPY:
        return to_npy(values)
    return to_png(overlay(row.image.pixels, values) if output == "overlay" else colorize(values))


def explanation_document(
    row: ClassifierRow,
    found: ClassPrediction | ClassExplanation,
    context: ClassContext,
    encode: Callable[[np.ndarray], Any] = array_to_json,
) -> dict[str, Any]:
    """Return the answer to a request for an explanation as JSON values; ``encode`` makes them of arrays."""
    if isinstance(found, ClassPrediction):
        fields = {"explanation": None, "prediction": _prediction_fields(found, context)}
    else:
        fields = _explanation_fields(row, found, context, encode)
    return fields | _ending(context)


def _picture(row: ClassifierRow, found: ClassExplanation, name: str) -> bytes:
    values = found.on_image(name, row.image.pixels)
    return to_npy(values) if row.media_type == NPY else to_png(display_grey(values))


def _strip(row: ClassifierRow, found: ClassExplanation, context: ClassContext) -> bytes:
    pixels, stated = row.image.pixels, _stated_strip(row, found, context)
    first, last = (found.on_image(stated[end], pixels) for end in ("first", "last"))
    draw = animated_strip if row.media_type == APNG else figure_strip
    return draw(first, pixels, last, found.numbers["positions"], found.numbers["scores"], label=stated["label"])


def _stated_strip(row: ClassifierRow, found: ClassExplanation, context: ClassContext) -> dict[str, str]:
    """Return what a reader needs to draw the strip beside pictures and numbers."""
    assert row.settings.explainer is not None, "an explanation has a method"
    ends = row.settings.explainer.strip
    assert ends is not None, "the method has a strip"
    name = context.manifest.classes[found.numbers["class_plus"]]
    return {"first": ends[0], "last": ends[1], "label": f"probability of {name}"}


def _explanation_fields(
    row: ClassifierRow, found: ClassExplanation, context: ClassContext, encode: Callable[[np.ndarray], Any]
) -> dict[str, Any]:
    explainer = row.settings.explainer
    assert explainer is not None, "an explanation has a method"
    fields: dict[str, Any] = {
        "method": explainer.name,
        **explainer.described(**_SCORE),
        "target": found.target,
        "target_class": context.manifest.classes[found.target],
        "convergence_delta": found.delta,
        "map": encode(found.map()),
    }
    if found.pictures:
        pixels = row.image.pixels
        fields["pictures"] = {name: encode(found.on_image(name, pixels)) for name in found.pictures}
    if found.numbers:
        fields["numbers"] = dict(found.numbers)
    if explainer.strip and found.pictures:
        fields["strip"] = _stated_strip(row, found, context)
    if row.settings.members == "each":
        fields["members"] = [encode(values) for values in found.members()]
        fields["disagreement"] = encode(found.disagreement())
    answer: dict[str, Any] = {"explanation": fields, "prediction": _prediction_fields(found.prediction, context)}
    if found.trust is not None:
        answer["trust"] = _trust(found, explainer.name, context.manifest)
    return answer


def _with_findings(row: ClassifierRow, found: ClassExplanation, context: ClassContext) -> dict[str, Any]:
    """Return the provenance with findings that a picture cannot show: class, convergence delta and trust card."""
    stated, method = context.provenance, context.provenance["explainer"]
    target = {"target": found.target, "target_class": context.manifest.classes[found.target]}
    # Numbers of every step would be too long for a header.
    numbers = {name: value for name, value in found.numbers.items() if not isinstance(value, dict | list)}
    findings: dict[str, Any] = {"explainer": {**method, **target, "convergence_delta": found.delta, **numbers}}
    if found.trust is not None:
        findings["trust"] = _trust(found, method["method"], context.manifest)
    return {**stated, **findings}


def _trust(found: ClassExplanation, method: str, manifest: ClassifierManifest) -> dict[str, Any]:
    assert found.trust is not None, "the request asked for a trust card"
    return found.trust.stated() | {
        "randomisation": manifest.randomisation.get(method),
        "planted_causes": known_of(method),
        "causal": manifest.training.get("causal"),
    }


def _ending(context: ClassContext) -> dict[str, Any]:
    found = context.assessment
    return {
        "task": context.manifest.task,
        "assessable": found.assessable,
        "reasons": list(found.reasons),
        "assessment": dict(found.numbers),
        "warnings": context.warnings,
        "provenance": context.provenance,
    }
