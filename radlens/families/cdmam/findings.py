"""Answers of phantom models for their DICOM objects; this module needs no torch."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np

from radlens.dicom.codes import method_code, method_title, private
from radlens.dicom.findings import Findings, Group, Method, Picture, Values
from radlens.families.cdmam.drawing import ablation_picture, curve_picture, silence_of, upsampled_map
from radlens.families.reported import common_fields, figure, laid_over, map_group, number, numbers, page, spread
from radlens.images import Image
from radlens.maps import UpsampledMap
from radlens.wire import ABLATION

__all__ = ["findings"]

_CURVE = "Contrast-detail curve"

_SAMPLING = ("sampler", "seed", "n_samples", "start", "normalize", "wanted_reliability", "max_samples")

_ANSWERS = {"met": "MET", "not met": "NOT-MET", "not settled": "NOT-SETTLED"}

_OF_POINT = {"aleatoric_um": "ALEATORIC", "epistemic_um": "EPISTEMIC", "total_um": "TOTAL"}


def findings(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    """Return an answer for its DICOM objects.

    Args:
        answer: Decoded prediction or explanation.
        images: The images that were sent.
    """
    if "explanation" not in answer:
        return _prediction(answer, images)
    found = answer["explanation"]
    if found is None:
        how = answer["provenance"]["explainer"]["method"]
        return Findings(title=method_title(how), picture=_reasons(answer), **_common(answer, images))
    return _ablation(answer, images) if found["method"] == ABLATION else _map(answer, images)


def _common(answer: Mapping[str, Any], images: Sequence[Image]) -> dict[str, Any]:
    stated = answer["provenance"]
    settings = {key: stated["sampling"][key] for key in _SAMPLING if key in stated["sampling"]}
    if "explainer" in stated:
        settings |= {**stated["explainer"], **{key: stated[key] for key in ("members", "output") if key in stated}}
    return common_fields(answer, images, settings)


def _reasons(answer: Mapping[str, Any]) -> Callable[[], Picture]:
    return partial(page, answer["reasons"])


def _prediction(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    common = _common(answer, images)
    if not answer["assessable"]:
        return Findings(title=_CURVE, picture=_reasons(answer), **common)
    found, judged = answer["prediction"], answer["verdict"]
    groups = (_summary(found, judged), *_points(found, judged))
    if judged is None:
        text = "No verdict: a predicted threshold is not positive."
        return Findings(title=_CURVE, picture=partial(page, [text], "No verdict", ""), groups=groups, **common)
    return Findings(
        title=_CURVE,
        picture=lambda: figure(curve_picture(answer)),
        lines=(judged["summary"],),
        groups=groups,
        **common,
    )


def _summary(found: Mapping[str, Any], judged: Mapping[str, Any] | None) -> Group:
    """Return the midpoint of the curve, and the verdict on each limit."""
    values = numbers(found, {"midpoint_um": "MIDPOINT"}, "um of gold")
    values += numbers(found, {"n_images": "N-IMAGES", "n_samples": "N-SAMPLES"})
    if judged is None:
        return Group(_CURVE, values)
    return Group(_CURVE, values, _verdicts(judged), ((private("VERDICT"), judged["summary"]),))


def _verdicts(judged: Mapping[str, Any]) -> tuple[Any, ...]:
    names = {"acceptable": "ACCEPTABLE", "achievable": "ACHIEVABLE"}
    return tuple((private(code), private(_ANSWERS[judged[name]])) for name, code in names.items())


def _points(found: Mapping[str, Any], judged: Mapping[str, Any] | None) -> list[Group]:
    """Return a group for each disk diameter: threshold, interval, uncertainties, limits, and whether they are met."""
    limited = {point["diameter_mm"]: point for point in (judged["diameters"] if judged else ())}
    groups = []
    for i, diameter in enumerate(found["diameters_mm"]):
        low, high = found["interval_um"][i]
        values = number("DIAMETER", diameter, "mm") + number("THRESHOLD", found["mean_um"][i], "um of gold")
        values += number("INTERVAL-LOW", low, "um of gold") + number("INTERVAL-HIGH", high, "um of gold")
        values += numbers({key: found[key][i] for key in _OF_POINT}, _OF_POINT, "um of gold")
        point, answers = limited.get(diameter), ()
        if point is not None:
            limits = {"acceptable_um": "ACCEPTABLE-LIMIT", "achievable_um": "ACHIEVABLE-LIMIT"}
            values, answers = values + numbers(point, limits, "um of gold"), _verdicts(point)
        groups.append(Group(f"Disks of {diameter:.2f} mm", values, answers))
    return groups


def _ablation(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    found = answer["explanation"]
    statement = ((private("STATEMENT"), found["statement"]),)
    values = numbers(found["prediction"], {"midpoint_um": "MIDPOINT"}, "um of gold")
    return Findings(
        title=method_title(ABLATION),
        picture=lambda: figure(ablation_picture(answer, images[0])),
        lines=(found["statement"],),
        groups=(Group("Ablation", values, texts=statement, method=method_code(ABLATION)),),
        method=_method(found),
        **_common(answer, images),
    )


def _map(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    found, image = answer["explanation"], images[0]
    shown, silence = upsampled_map(answer), silence_of(answer)
    of_interest = replace(shown, map=np.asarray(found["disagreement"], np.float64)) if _is_spread(answer) else shown
    values = np.asarray(of_interest.map, dtype=np.float32)
    disks = found.get("disks")
    further = number("RELIABILITY", found.get("reliability")) + number("N-SAMPLES", found["n_samples"])
    statement: tuple[Any, ...] = ()
    if disks is not None:
        further += number("DISKS-T", disks["disks"]["large"]["t"]) + number("TWIN-T", disks["twin"]["large"]["t"])
        statement = ((private("STATEMENT"), disks["sentence"]),)
    if silence is not None and disks is None:
        statement = ((private("STATEMENT"), silence),)
    group = map_group(shown.map, found, *further)
    return Findings(
        title=method_title(found["method"]),
        picture=partial(_picture, answer, image, of_interest, silence),
        lines=_lines(found),
        groups=(replace(group, texts=group.texts + statement),),
        method=_method(found),
        values=None if silence else Values(values, "disagreement" if _is_spread(answer) else "map", found["unit"]),
        evidence=None if silence else np.asarray(shown.map, dtype=np.float32),
        withheld=silence,
        **_common(answer, images),
    )


def _picture(answer: Mapping[str, Any], image: Image, shown: UpsampledMap, silence: str | None) -> Picture:
    if silence is not None:
        return page([silence], "No map", "What this map would show is not a finding.")
    found = answer["explanation"]
    return spread(shown, found) if _is_spread(answer) else laid_over(image, shown, found)


def _is_spread(answer: Mapping[str, Any]) -> bool:
    return bool(answer["provenance"].get("output") == "disagreement")


def _lines(found: Mapping[str, Any]) -> tuple[str, ...]:
    samples = f"{found['n_samples']} sample{'s' if found['n_samples'] > 1 else ''}"
    reached = found.get("reliability")
    return (f"{samples}, reliability {reached:.2f}" if reached is not None else samples,)


def _method(found: Mapping[str, Any]) -> Method:
    name = found["method"]
    return Method(method_code(name), method_title(name), str(found["meaning"]))
