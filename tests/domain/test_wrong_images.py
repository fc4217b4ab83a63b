"""Every kind of wrong image is refused before any model is asked."""

import pytest
from phantom_judge import why_not

from radlens.evaluation.wrong_phantoms import WRONG, Source

NAMED = {
    "CDMAM 4.0": "CDMAM 4.0",
    "CDMAM 4.0 on its side": "CDMAM 4.0",
    "disks of CDMAM 4.0 between the lines of 3.4": "CDMAM 4.0",
    "corners permuted": "in other corners than in CDMAM 3.4",
    "inverted": "the image is inverted",
    "saturated": "saturated or clipped",
    "lines saturated": "saturated or clipped",
    "clipped at the bottom": "the image is clipped",
    "8 bits": "the values are too coarse",
    "half of it": "part of it is blank",
    "partly outside": "lies outside the image",
    "two phantoms side by side": "it must show only one",
    "spacing 3 % too large": "cells of 10.3 mm instead of 10.0 mm",
    "turned by 8 degrees": "the grid is turned by 8 degrees",
    "no disks": "there are no disks, or the noise hides them",
    "noise six times that of scenario 3": "there are no disks, or the noise hides them",
    "mean of eight images of scenario 1": "less noise than in one exposure",
    "motion": "blurred by motion",
    "rows twice": "rows are missing or repeated",
    "median filter": "smoothed",
    "unsharp mask": "sharpened",
    "mild unsharp mask": "sharpened",
    "mild noise reduction that spares edges": "smoothed",
    "without the disks of 0.25 mm": "disks of 0.25 mm",
    "unsharp exposure": "the image is not sharp",
    "dust": "dust",
    "blank plate": "no phantom was found",
}
"""What some reason must say."""

QUICK = ("inverted", "blank plate", "no disks", "8 bits", "saturated", "dust", "half of it", "CDMAM 4.0")
"""Kinds of the quick tests."""

KINDS = [kind if kind in QUICK else pytest.param(kind, marks=pytest.mark.slow) for kind in WRONG]
"""All kinds; most are slow tests."""


@pytest.fixture(scope="module")
def source() -> Source:
    """One exposure at 0.1 mm, the largest pixels of training, where everything takes half the time of 0.07 mm."""
    return Source(1, 0.1)


def test_corpus_is_large() -> None:
    """The issue asks for at least 40 kinds."""
    assert len(WRONG) >= 80


@pytest.mark.parametrize("kind", KINDS)
def test_wrong_image_is_refused(source: Source, kind: str) -> None:
    """A wrong image has a reason, and where the cause is one that can be told, the reason names it."""
    found = why_not(*WRONG[kind](source))
    assert found
    assert any(word in " ".join(found) for word in NAMED.get(kind, "").split("|"))
