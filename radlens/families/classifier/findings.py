"""Answers of classifiers for their DICOM objects; this module needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from radlens.dicom.codes import method_code, method_title, private
from radlens.dicom.findings import Findings, Group, Method, Number, Picture, Values
from radlens.families.reported import (
    common_fields,
    figure,
    grey,
    laid_over,
    map_group,
    number,
    numbers,
    page,
    spread,
)
from radlens.figures import figure_strip
from radlens.images import Image

__all__ = ["findings", "strip_picture"]

_CLASSIFICATION = "Classification"

_PIXELS = "pixel values of the image"

_CARD = {
    "convergence_delta": "DELTA",
    "deletion": "DELETION",
    "insertion": "INSERTION",
    "infidelity": "INFIDELITY",
    "infidelity_of_no_map": "INFIDELITY-NONE",
}

_NOT_FURTHER = ("sentence", "positions", "scores", "steps", "members")
"""Numbers of methods that are stated elsewhere, or are lists."""


def findings(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    """Return an answer for its DICOM objects.

    Args:
        answer: Decoded prediction or explanation.
        images: The only image.
    """
    if not answer["assessable"]:
        how = answer["provenance"].get("explainer")
        title = _CLASSIFICATION if how is None else method_title(how["method"])
        return Findings(title=title, picture=partial(page, answer["reasons"]), **_common(answer, images))
    return _map(answer, images) if "explanation" in answer else _prediction(answer, images)


def strip_picture(found: Mapping[str, Any], image: Image) -> bytes:
    """Return the strip of a decoded explanation as PNG."""
    stated, shown, known = found["strip"], found["pictures"], found["numbers"]
    ends = (shown[stated["first"]], image.pixels, shown[stated["last"]])
    return figure_strip(*ends, known["positions"], known["scores"], label=stated["label"])


def _common(answer: Mapping[str, Any], images: Sequence[Image]) -> dict[str, Any]:
    stated, found = answer["provenance"], answer.get("explanation") or {}
    settings: dict[str, Any] = {}
    if "explainer" in stated:
        how = {name: stated["explainer"][name] for name in ("method", "parameters")}
        others = {name: stated[name] for name in ("members", "output", "mask_sha256") if name in stated}
        settings = {**how, **others, "trust": "trust" in answer, "target": found.get("target_class")}
    return common_fields(answer, images, settings)


def _prediction(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    found = answer["prediction"]
    return Findings(
        title=_CLASSIFICATION,
        picture=partial(grey, images[0].pixels),
        lines=_probabilities(found),
        groups=tuple(_classes(found)),
        **_common(answer, images),
    )


def _probabilities(found: Mapping[str, Any]) -> tuple[str, ...]:
    each = ", ".join(f"{name} {p:.3f}" for name, p in zip(found["classes"], found["probabilities"], strict=True))
    return (f"predicted: {found['predicted']}", f"probabilities: {each}")


def _classes(found: Mapping[str, Any]) -> list[Group]:
    """Return the predicted class, and a group for each class."""
    groups = [Group(_CLASSIFICATION, texts=((private("PREDICTED-CLASS"), found["predicted"]),))]
    logits = found["logits"] if len(found["logits"]) == len(found["classes"]) else None
    for i, name in enumerate(found["classes"]):
        values = number("PROBABILITY", found["probabilities"][i])
        if "probability_std" in found:
            values += number("MEMBERS-STD", found["probability_std"][i])
        if logits is not None:
            values += number("LOGIT", logits[i], "logit of the class")
        groups.append(Group(f"Class {name}", values, texts=((private("CLASS"), name),)))
    return groups


def _map(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    found, image = answer["explanation"], images[0]
    code, target = method_code(found["method"]), found["target_class"]
    known = found.get("numbers", {})
    further = number("DELTA", found.get("convergence_delta"), found["unit"])
    texts = [(private("EXPLAINED-CLASS"), target)]
    texts += [(private("STATEMENT"), known["sentence"])] if "sentence" in known else []
    texts += [(private("FURTHER"), f"{name}: {value}") for name, value in known.items() if name not in _NOT_FURTHER]
    group = map_group(found["map"], found, *further)
    sentence = (known["sentence"],) if "sentence" in known else ()
    return Findings(
        title=f"{method_title(found['method'])} of {target}",
        picture=partial(_picture, answer, image),
        lines=(*_probabilities(answer["prediction"]), f"explained class: {target}", *sentence),
        groups=(
            *_classes(answer["prediction"]),
            Group(group.title, group.numbers, texts=(*group.texts, *texts), method=group.method),
            *_card(answer.get("trust")),
        ),
        method=Method(code, method_title(found["method"]), str(found["meaning"])),
        values=_values(answer),
        evidence=np.asarray(found["map"], dtype=np.float32),
        **_common(answer, images),
    )


def _values(answer: Mapping[str, Any]) -> Values:
    """Return the numbers of the chosen output; those of the map if the output is a drawing of it."""
    found, output = answer["explanation"], answer["provenance"].get("output", "map")
    if output == "disagreement":
        return Values(found["disagreement"], output, found["unit"])
    if output in found.get("pictures", {}):
        return Values(found["pictures"][output], output, "1" if output == "mask" else _PIXELS)
    return Values(found["map"], "map", found["unit"])


def _picture(answer: Mapping[str, Any], image: Image) -> Picture:
    found, output = answer["explanation"], answer["provenance"].get("output", "map")
    if output == "disagreement":
        return spread(found["disagreement"], found)
    if output in found.get("pictures", {}):
        return grey(found["pictures"][output])
    return figure(strip_picture(found, image)) if output == "strip" else laid_over(image, found["map"], found)


def _card(card: Mapping[str, Any] | None) -> list[Group]:
    """Return the trust card, and what is known of the method and of the model."""
    if card is None:
        return []
    values: tuple[Number, ...] = numbers(card, _CARD)
    randomised = card.get("randomisation") or {}
    for key, code in (("spearman", "RANDOM-SPEARMAN"), ("ssim", "RANDOM-SSIM")):
        values += number(code, randomised[key][-1]) if randomised.get(key) else ()
    planted = (card.get("planted_causes") or {}).get("causes", {})
    texts = [
        (private("PLANTED"), f"{cause}: {each['n_hits']} of {each['n']} ({each['low']:.0%} to {each['high']:.0%})")
        for cause, each in planted.items()
    ]
    if (record := card.get("causal")) is not None:
        texts += [(private("CAUSAL"), text) for text in _causal(record)]
    return [Group("Trust card", values, texts=(*texts, (private("MEANING"), card["meaning"])))]


def _causal(record: Mapping[str, Any]) -> list[str]:
    removed = {"lesion": "lesion removed", "control": "healthy tissue of the same size removed"}
    return [
        f"{words}: the score fell in {record[key]['n_lowered']} of {record[key]['n']} simulated images, "
        f"by {record[key]['fall']:.2f} log-odds on average"
        for key, words in removed.items()
        if record.get(key)
    ]
