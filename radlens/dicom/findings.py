"""Contents of an answer as DICOM objects show them, whatever the model: pictures, maps, numbers and sentences."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from pydicom.sr.coding import Code

from radlens.errors import InvalidParameter
from radlens.figures.burnt_in import Legend
from radlens.images import Image

__all__ = ["REQUIRED_PROVENANCE", "Findings", "Group", "Method", "Number", "Picture", "Values"]

REQUIRED_PROVENANCE = ("model", "version", "bundle_hash")
"""Provenance keys that become model name, software version and device UID of the contributing equipment."""


@dataclass(frozen=True)
class Number:
    """A measured or computed number.

    Attributes:
        name: Concept of the number.
        value: The number, finite.
        unit: Unit, a code of UCUM.
    """

    name: Code
    value: float
    unit: Code


@dataclass(frozen=True)
class Group:
    """Numbers and statements that belong together, such as those of one disk diameter.

    Attributes:
        title: Text that identifies the group, unique in its findings.
        numbers: Numbers.
        answers: Pairs of concepts, the question and the answer.
        texts: Pairs of a concept and a sentence.
        method: Concept of the method that gave the group; None if the algorithm alone did.
    """

    title: str
    numbers: tuple[Number, ...] = ()
    answers: tuple[tuple[Code, Code], ...] = ()
    texts: tuple[tuple[Code, str], ...] = ()
    method: Code | None = None


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for a capture.

    Attributes:
        rgb: ``(h, w, 3)`` uint8.
        is_of_image: Whether it shows the whole source image, at any resolution, so that the pixel spacing follows.
        legend: Meaning of the colours; None for a picture without a colour scale.
    """

    rgb: np.ndarray
    is_of_image: bool = True
    legend: Legend | None = None


@dataclass(frozen=True)
class Method:
    """The method of an explanation.

    Attributes:
        code: Concept, of CID 217 where it has one.
        title: Name as papers write it.
        meaning: Interpretation of a value of the map.
    """

    code: Code
    title: str
    meaning: str


@dataclass(frozen=True, eq=False)
class Values:
    """Numbers on the grid of the source image.

    Attributes:
        array: ``(H, W)`` float32, finite.
        label: What they are, such as ``"map"`` or ``"inpainted"``.
        unit: Unit as answers state it; `radlens.dicom.codes.unit_code` codes it.
    """

    array: np.ndarray
    label: str
    unit: str


@dataclass(frozen=True, eq=False)
class Findings:
    """An answer for its DICOM objects.

    Attributes:
        images: The images that were sent; objects refer to all of them, and lie in the study of the first.
        provenance: Provenance of the answer, with the keys of `REQUIRED_PROVENANCE`.
        kind: Whether the answer is a prediction or an explanation.
        title: What the answer is, such as ``"OMIG"``; part of the series descriptions.
        settings: What distinguishes answers to the same image by the same model, as JSON values; equal settings give
            equal SOP Instance UIDs.
        assessable: Whether the model can judge the image.
        reasons: Sentences why not.
        warnings: Sentences about the image.
        domain: Numbers on which the judgement rests, by name, such as a score and its limit.
        picture: Draws the picture of a capture.
        lines: Sentences burnt into a capture beside those that each has.
        groups: Contents of the report.
        method: Method of an explanation; None for a prediction.
        values: Contents of the parametric map; None if the answer has none.
        evidence: ``(H, W)`` float32, signed map behind segmentation and presentation state; None without one.
        withheld: Sentence why a map that was computed is not given; None if it is given, or there is none.
    """

    images: tuple[Image, ...]
    provenance: Mapping[str, Any]
    kind: Literal["prediction", "explanation"]
    title: str
    settings: Mapping[str, Any]
    picture: Callable[[], Picture]
    assessable: bool = True
    reasons: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    domain: Mapping[str, float] = field(default_factory=dict)
    lines: tuple[str, ...] = ()
    groups: tuple[Group, ...] = ()
    method: Method | None = None
    values: Values | None = None
    evidence: np.ndarray | None = None
    withheld: str | None = None

    def __post_init__(self) -> None:
        """Check the provenance.

        Raises:
            InvalidParameter: It lacks a required key, or there is no image.
        """
        missing = [key for key in REQUIRED_PROVENANCE if not self.provenance.get(key)]
        if missing:
            required = ", ".join(REQUIRED_PROVENANCE)
            raise InvalidParameter(f"provenance must have {required}; missing {', '.join(missing)}")
        if not self.images:
            raise InvalidParameter("findings must be of at least one image, got none")

    @property
    def image(self) -> Image:
        """The first image."""
        return self.images[0]
