"""From an image that was sent to what the phantom model gets of it, and what keeps it from judging it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.families.cdmam.reader import Curve
from radlens.images import SAMPLED_SHAPE, Image
from radlens.phantoms.cdmam import domain
from radlens.phantoms.cdmam.registered import Registered, register
from radlens.service.domain import Assessment

__all__ = ["COMMON_SPACINGS_MM", "OpenedImage", "PhantomOpener"]

COMMON_SPACINGS_MM = (0.07, 0.05, 0.065, 0.085, 0.0941, 0.1)
"""Pixel spacings of mammography detectors, mm, tried in this order where an image states none."""

_KEPT = 2
"""Opened images that are kept for the next request: 40 MB each."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image as a phantom model gets it.

    Attributes:
        image: as it was sent.
        phantom: the registered phantom; None where none was found.
        spacing_mm: pixel spacing with which it was found; None where it was not.
        reasons: why no model may judge the image, found before any prediction; empty if it may.
        findings: the numbers that these reasons rest on.
    """

    image: Image
    phantom: Registered | None = None
    spacing_mm: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()
    findings: domain.Findings | None = None

    def judged(self, curve: Curve | None) -> Assessment:
        """Return whether a verdict on ``curve`` may be given: the image can be judged and does not contradict it.

        Args:
            curve: predicted from the image; None where it was not predicted.
        """
        reasons = list(self.reasons)
        numbers = {} if self.findings is None else dict(self.findings.as_json())
        if curve is not None and self.findings is not None:
            reasons += domain.contradictions(self.findings, curve.mean, curve.interval)
        return Assessment(not reasons, tuple(reasons), numbers)


@dataclass(frozen=True, eq=False)
class PhantomOpener:
    """Finds the phantom in images and looks whether they can be judged.

    The images that were opened last are kept: a page of a report asks for several things of one image.

    Args:
        limits: what training saw.
        spacings_mm: tried in this order where an image states none.
    """

    limits: domain.Limits
    spacings_mm: Sequence[float] = COMMON_SPACINGS_MM
    _kept: OrderedDict[str, OpenedImage] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def open(self, image: Image) -> OpenedImage:
        """Return the phantom of an image, or the reasons why there is none to be judged; never raises for an image."""
        with self._lock:
            if image.sha256 in self._kept:
                self._kept.move_to_end(image.sha256)
                return self._kept[image.sha256]
        opened = self._opened(image)
        with self._lock:
            self._kept[image.sha256] = opened
            while len(self._kept) > _KEPT:
                self._kept.popitem(last=False)
        return opened

    def _opened(self, image: Image) -> OpenedImage:
        if image.pixels.shape == SAMPLED_SHAPE:
            reason = "an image of the network's own size shows too little of a phantom to find it"
            return OpenedImage(image, reasons=(reason,))
        try:
            # Absurdly large pixels overflow; what comes of them is refused.
            with np.errstate(all="ignore"):
                phantom, spacing_mm = self._registered(image)
        except (UnreadableImage, InvalidParameter) as error:
            return OpenedImage(image, reasons=(str(error),))
        findings = domain.findings(phantom, image.pixels)
        return OpenedImage(image, phantom, spacing_mm, tuple(domain.reasons(findings, self.limits)), findings)

    def _registered(self, image: Image) -> tuple[Registered, tuple[float, float]]:
        if image.spacing_mm is not None:
            return register(image.pixels, image.spacing_mm), image.spacing_mm
        for spacing in self.spacings_mm:
            try:
                return register(image.pixels, spacing), (spacing, spacing)
            except UnreadableImage:
                continue
        tried = ", ".join(f"{spacing:g}" for spacing in self.spacings_mm)
        raise UnreadableImage(f"the image states no pixel spacing, and no phantom was found with {tried} mm")


def spacing_caution(opened: OpenedImage) -> str | None:
    """Return what to say of a spacing that the image does not state."""
    if opened.image.spacing_mm is not None or opened.spacing_mm is None:
        return None
    return f"the image states no pixel spacing; the grid of the phantom fits {opened.spacing_mm[0]:g} mm"


def values_of(opened: OpenedImage) -> NDArray[np.float32]:
    """Return the registered values of an image whose phantom was found.

    Raises:
        UnreadableImage: none was found.
    """
    if opened.phantom is None:
        raise UnreadableImage("; ".join(opened.reasons))
    return opened.phantom.values
