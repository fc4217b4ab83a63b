"""From an image that was sent to what the phantom model gets of it, and what keeps it from judging it."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from radlens.errors import InvalidParameter, UnreadableImage
from radlens.images import SAMPLED_SHAPE, Image
from radlens.phantoms.cdmam import CELL_MM, domain
from radlens.phantoms.cdmam.lattice import lattice
from radlens.phantoms.cdmam.registered import Registered, register
from radlens.service.domain import Assessment

if TYPE_CHECKING:
    from radlens.families.cdmam.reader import Curve

__all__ = ["USUAL_SPACING_MM", "OpenedImage", "PhantomOpener", "spacing_caution", "spacing_of"]

USUAL_SPACING_MM = 0.07
"""Pixel spacing, mm, that is tried where an image states none and no grid of lines tells it."""

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
        limits: what training saw.
    """

    image: Image
    phantom: Registered | None = None
    spacing_mm: tuple[float, float] | None = None
    reasons: tuple[str, ...] = ()
    findings: domain.Findings | None = None
    limits: domain.Limits | None = None

    def judged(self, curve: Curve | None) -> Assessment:
        """Return whether a verdict on ``curve`` may be given: the image can be judged and does not contradict it.

        Args:
            curve: predicted from the image; None where it was not predicted.
        """
        reasons = list(self.reasons)
        numbers = {} if self.findings is None else dict(self.findings.numbers())
        if curve is not None and self.findings is not None:
            reasons += domain.contradictions(self.findings, curve.mean, curve.interval, self.limits)
        return Assessment(not reasons, tuple(reasons), numbers)


@dataclass(frozen=True, eq=False)
class PhantomOpener:
    """Finds the phantom in images and looks whether they can be judged.

    The images that were opened last are kept: a page of a report asks for several things of one image.

    Args:
        limits: what training saw.
    """

    limits: domain.Limits
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
        except UnreadableImage as error:
            return OpenedImage(image, reasons=(domain.unregistered(image.pixels, spacing_of(image), error),))
        except InvalidParameter as error:
            return OpenedImage(image, reasons=(str(error),))
        findings = domain.findings(phantom, image.pixels)
        return OpenedImage(image, phantom, spacing_mm, domain.reasons(findings, self.limits), findings, self.limits)

    def _registered(self, image: Image) -> tuple[Registered, tuple[float, float]]:
        spacing_mm = spacing_of(image)
        return register(image.pixels, spacing_mm), spacing_mm


def spacing_of(image: Image) -> tuple[float, float]:
    """Return the pixel spacing that an image states, or the one at which cells of its grid have their size."""
    if image.spacing_mm is not None:
        return image.spacing_mm
    found = lattice(image.pixels, USUAL_SPACING_MM)
    spacing = USUAL_SPACING_MM if found is None else USUAL_SPACING_MM * CELL_MM / found.pitch_mm
    return spacing, spacing


def spacing_caution(opened: OpenedImage) -> str | None:
    """Return what to say of a spacing that the image does not state."""
    if opened.image.spacing_mm is not None or opened.spacing_mm is None:
        return None
    return f"the image states no pixel spacing; the grid of the phantom fits {opened.spacing_mm[0]:.4f} mm"
