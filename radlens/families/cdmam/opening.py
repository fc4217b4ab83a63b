"""Registration of the phantom in a sent image, and the reasons why the model may not judge it."""

from __future__ import annotations

import math
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
"""Pixel spacing, mm, of an image that states no spacing and whose lines do not reveal it."""

_SPACING_ERROR = 5e-4
"""Relative difference between stated and fitted pixel spacing that is worth a warning."""

_KEPT = 2
"""Number of opened images that are cached for the next requests; each takes 40 MB."""


@dataclass(frozen=True, eq=False)
class OpenedImage:
    """An image with its registered phantom.

    Attributes:
        image: the sent image.
        phantom: the registered phantom; None if no phantom was found.
        spacing_mm: pixel spacing at which the phantom was found; None if no phantom was found.
        reasons: reasons, known before a prediction, why no model may judge the image; empty if a model may.
        findings: measurements behind the reasons.
        limits: limits of the training images.
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
            curve: curve predicted from the image; None before a prediction.
        """
        reasons = list(self.reasons)
        numbers = {} if self.findings is None else dict(self.findings.numbers())
        if curve is not None and self.findings is not None:
            reasons += domain.contradictions(self.findings, curve.mean, curve.interval, self.limits)
        return Assessment(not reasons, tuple(reasons), numbers)


@dataclass(frozen=True, eq=False)
class PhantomOpener:
    """Registers phantoms and checks whether their images can be judged.

    It caches the last images, because a page of a report sends several requests with the same image.

    Args:
        limits: limits of the training images.
    """

    limits: domain.Limits
    _kept: OrderedDict[str, OpenedImage] = field(default_factory=OrderedDict, init=False, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, init=False, repr=False)

    def open(self, image: Image) -> OpenedImage:
        """Return an image with its phantom, or with the reasons why it cannot be judged; no image raises an error."""
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
            # Absurdly large pixels overflow; the checks below refuse the result.
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
    """Return the pixel spacing that an image states, or the one at which the cells of its grid have the right size."""
    if image.spacing_mm is not None:
        return image.spacing_mm
    found = lattice(image.pixels, USUAL_SPACING_MM)
    spacing = USUAL_SPACING_MM if found is None else USUAL_SPACING_MM * CELL_MM / found.pitch_mm
    return spacing, spacing


def spacing_caution(opened: OpenedImage) -> str | None:
    """Return a warning if the image does not state its pixel spacing, or if the grid has another size at it."""
    if opened.phantom is None or opened.spacing_mm is None:
        return None
    fitted = math.sqrt(math.prod(opened.phantom.layout.spacing_mm))
    if opened.image.spacing_mm is not None:
        stated = math.sqrt(math.prod(opened.image.spacing_mm))
        if abs(fitted / stated - 1) < _SPACING_ERROR:
            return None
        return (
            f"the image states pixels of {stated:.5f} mm; {fitted:.5f} mm are used, which the grid of the phantom fits"
        )
    return f"the image states no pixel spacing; the grid of the phantom fits {fitted:.4f} mm"
