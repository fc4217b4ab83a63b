"""The domain of a model of the CDMAM 3.4 phantom: which images it may judge.

`findings` measures a registered phantom. `reasons` compares the numbers with `Limits`, which come from the training
range, and states each number outside its limits in a sentence. `contradictions` compares a predicted curve with the
disks as the automated reader sees them at the registered positions, without a network. `unregistered` describes an
image in which no phantom was found.

The limits admit every phantom of the training range and exclude what spoils the read-out. Changes that cannot be
distinguished from another good exposure pass: another gain or offset, a lower dose, a fainter grid.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from numpy.typing import NDArray

from radlens.errors import UnreadableImage
from radlens.phantoms.cdmam.contradictions import contradictions
from radlens.phantoms.cdmam.domain_findings import Findings, findings
from radlens.phantoms.cdmam.domain_limits import Limits, Range
from radlens.phantoms.cdmam.geometry import CELL_MM
from radlens.phantoms.cdmam.lattice import lattice
from radlens.phantoms.cdmam.registration import MAX_ROTATION_DEG

__all__ = ["Findings", "Limits", "contradictions", "findings", "reasons", "unregistered"]


class _Sentence(NamedTuple):
    """The sentence for a number outside its limits.

    Attributes:
        text: Sentence with braces in place of the number, and ``{mm}`` for the diameter of the weakest disks.
        spelled: Format of the number and its limits.
        low: Meaning of a value below the limits.
        high: Meaning of a value above the limits.
    """

    text: str
    spelled: str = ".2f"
    low: str = ""
    high: str = ""


_UPRIGHT_DEG = 30.0
_SAME_PITCH = 0.02
_CELLS_4_MM = (6.5, 11.0)

_OTHER = "other versions of the phantom, such as CDMAM 4.0, have other disks and cannot be judged"
_SMOOTHED = "the image was smoothed, resampled or compressed"
_SHARPENED = "the image was sharpened, or its noise is not that of a detector"
_BENT = "the pixel values were transformed nonlinearly, or two images are mixed"

_SENTENCES: Mapping[str, _Sentence] = MappingProxyType(
    {
        "missing": _Sentence("{} of the phantom lies outside the image", ".1%"),
        "hidden_cells": _Sentence("{} of 205 cells lie outside the image", ".0f"),
        "second_phantom": _Sentence(
            "the image shows a second phantom, with a correlation of {}", high="it must show only one"
        ),
        "pixel_mm": _Sentence(
            "the pixels measure {} mm",
            ".3f",
            low="the model was not trained on smaller pixels",
            high="the model was not trained on larger pixels",
        ),
        "clipped_top": _Sentence(
            "{} of the pixels of the phantom have the largest value", ".2%", high="the image is saturated or clipped"
        ),
        "clipped_bottom": _Sentence(
            "{} of the pixels of the phantom have the smallest value", ".2%", high="the image is clipped"
        ),
        "step": _Sentence(
            "the step from one pixel value to the next is {} times the noise", high="the values are too coarse"
        ),
        "odd_cells": _Sentence(
            "around {} of 205 cells the contrast of the lines differs from that around the others",
            ".0f",
            high="part of the phantom is covered, missing, damaged or at another scale",
        ),
        "unevenness": _Sentence(
            "the noise of one part of the phantom is {} times that of another",
            high="part of it is blank, covered or from another exposure",
        ),
        "quietest_cell": _Sentence(
            "the noise of one cell is {} times that of all cells", low="part of the phantom is blank or covered"
        ),
        "noisiest_cell": _Sentence(
            "the noise of one cell is {} times that of all cells", high="an object lies on the phantom"
        ),
        "visibility": _Sentence(
            "the contrast-to-noise ratio at the positions of the disks of CDMAM 3.4 is {} times that of scenario 1",
            low=f"there are no disks, or the noise hides them; {_OTHER}",
            high="there is less noise than in one exposure",
        ),
        "corner_to_middle": _Sentence(
            "the disks in the corners are {} times as visible as those in the middle of the cells",
            low=f"the orientation is wrong, or the disks are in other corners than in CDMAM 3.4; {_OTHER}",
            high=f"the disks in the middle are missing; {_OTHER}",
        ),
        "disk_mismatch": _Sentence(
            "the mean square difference of the disks from those of CDMAM 3.4 is {} times that due to noise",
            high=f"disks are missing, distorted or of other sizes; {_OTHER}",
        ),
        "other_corners": _Sentence(
            "the mean square signal in the corners without a disk is {} times that due to noise",
            high=f"there are disks or other objects; {_OTHER}",
        ),
        "small_disks": _Sentence(
            "disks of 0.25 mm and less differ in contrast by {} standard deviations from the larger ones",
            ".1f",
            low="small disks are missing or weaker than those of CDMAM 3.4",
            high="large disks are weaker than those of CDMAM 3.4",
        ),
        "smallest_disks": _Sentence(
            "disks of 0.16 mm and less differ in contrast by {} standard deviations from the larger ones",
            ".1f",
            low="small disks are missing or weaker than those of CDMAM 3.4",
            high="large disks are weaker than those of CDMAM 3.4",
        ),
        "weakest_row": _Sentence(
            "the disks of {mm:.2f} mm differ in contrast by {} standard deviations from the larger ones",
            ".1f",
            low="disks of this diameter are missing or weaker than those of CDMAM 3.4",
        ),
        "faint_disks": _Sentence(
            "barely visible disks differ in contrast by {} standard deviations from clearly visible ones",
            ".1f",
            low="thin disks are missing or weaker than those of CDMAM 3.4",
            high="thick disks are weaker than those of CDMAM 3.4",
        ),
        "thick_to_thin": _Sentence(
            "the visibility of thick disks relative to thin ones is {} times that of CDMAM 3.4",
            low=f"{_BENT}; {_OTHER}",
            high=f"{_BENT}; {_OTHER}",
        ),
        "line_contrast": _Sentence(
            "the contrast of the lines is {} times the noise", ".1f", low="lines must be bright: the image is inverted"
        ),
        "shift_mm": _Sentence(
            "the lines of single cells are displaced by {} mm",
            high="the pixel spacing is wrong, or the image is distorted",
        ),
        "line_misfit": _Sentence(
            "the profile of the lines differs from that of CDMAM 3.4 by {} of their contrast",
            ".1%",
            high="the lines are distorted, doubled or saturated",
        ),
        "blur_mm": _Sentence(
            "the lines are blurred by {} mm", low="the image was sharpened", high="the image is not sharp"
        ),
        "disk_blur_mm": _Sentence(
            "the edges of the disks are blurred by {} mm",
            ".3f",
            low="the image was sharpened",
            high="the image is not sharp",
        ),
        "line_noise": _Sentence(
            "the noise on the lines is {} times that beside them",
            low=f"the lines are saturated, or {_BENT}",
            high=_BENT,
        ),
        "filter_px": _Sentence(
            "the noise of neighbouring pixels is correlated as by a filter of {} pixels", low=_SHARPENED, high=_SMOOTHED
        ),
        "second": _Sentence(
            "the correlation of the noise of pixels two apart differs by {} from that of a detector",
            ".4f",
            low=_SHARPENED,
            high=_SMOOTHED,
        ),
        "fine": _Sentence(
            "the noise of single pixels is {} times that implied by the noise over half a millimetre",
            ".3f",
            low=_SMOOTHED,
            high=_SHARPENED,
        ),
        "anisotropy": _Sentence(
            "the correlation of the noise along columns differs from that along rows by {}",
            low="rows are missing or repeated",
            high="the image is blurred by motion, or columns are missing or repeated",
        ),
        "large_noise": _Sentence(
            "the noise of means over cells is {} times that expected from the noise over half a millimetre",
            low="large structures were suppressed, as in processing for display",
            high="the image shows an object besides the phantom",
        ),
        "far_pixels": _Sentence(
            "{} of the pixels without gold differ strongly from their surroundings",
            ".4%",
            high="there are dead pixels, dust or scratches",
        ),
        "far_bins": _Sentence(
            "{} places without gold differ strongly from their surroundings",
            ".0f",
            high="an object lies on the phantom, or two images are mixed",
        ),
        "excess": _Sentence("the excess kurtosis of the noise of pixels is {}", low=_BENT, high=_BENT),
        "bin_excess": _Sentence("the excess kurtosis of the noise over half a millimetre is {}", low=_BENT, high=_BENT),
        "stripes": _Sentence(
            "the mean of one row or column of pixels differs by {} standard deviations",
            ".1f",
            high="rows or columns are dead or striped",
        ),
        "slope": _Sentence("the background changes by {} times the noise along 100 mm", ".0f"),
        "bend": _Sentence(
            "the background differs from a plane by {} times the noise",
            ".0f",
            high="the image shows an object besides the phantom",
        ),
    }
)
"""Sentence for each number, the most informative ones first."""


def reasons(found: Findings, limits: Limits) -> tuple[str, ...]:
    """Return the reasons why the model may not judge an image: one sentence for each number outside its limits."""
    numbers = found.numbers()
    return tuple(
        _said(sentence, numbers[name], getattr(limits, name), found.weakest_mm)
        for name, sentence in _SENTENCES.items()
        if name in numbers and not getattr(limits, name)[0] <= numbers[name] <= getattr(limits, name)[1]
    )


def _said(sentence: _Sentence, value: float, limit: Range, weakest_mm: float) -> str:
    low, high = (format(each, sentence.spelled) for each in limit)
    expected = f"at most {high}" if limit[0] == 0 else f"{low} to {high}"
    meaning = sentence.low if value < limit[0] else sentence.high
    text = f"{sentence.text.format(format(value, sentence.spelled), mm=weakest_mm)}; {expected} is expected"
    return f"{text}: {meaning}" if meaning else text


def unregistered(pixels: NDArray[Any], spacing_mm: float | tuple[float, float], error: UnreadableImage) -> str:
    """Describe an image in which no phantom was found.

    Args:
        pixels: (H, W), attenuation bright.
        spacing_mm: distance between pixel centres, one number or (row, column), mm.
        error: the error that `register` raised.
    """
    found = lattice(pixels, spacing_mm)
    if found is None:
        return f"{error}; no grid of lines is visible"
    turn = min(found.angle_deg, 90 - found.angle_deg)
    cells = f"a grid with cells of {found.pitch_mm:.1f} mm"
    if turn < _UPRIGHT_DEG:
        version = ": CDMAM 4.0 has an upright grid" if _CELLS_4_MM[0] < found.pitch_mm < _CELLS_4_MM[1] else ""
        return (
            f"the image shows {cells} turned by {turn:.0f} degrees{version}; the model judges only CDMAM 3.4, whose "
            f"cells measure {CELL_MM:.0f} mm and are turned by 45 degrees"
        )
    if abs(found.pitch_mm / CELL_MM - 1) > _SAME_PITCH:
        return (
            f"the image shows {cells} instead of {CELL_MM:.1f} mm: the pixel spacing is wrong, the image is enlarged, "
            "or it shows another phantom than CDMAM 3.4"
        )
    if found.skewness < 0:
        return f"the lines of the grid are darker than their surroundings: the image is inverted; {error}"
    if 45 - turn > MAX_ROTATION_DEG:
        return f"the grid is turned by {45 - turn:.0f} degrees; at most {MAX_ROTATION_DEG:.0f} are supported"
    return f"the image shows {cells}, but not a complete CDMAM 3.4; {error}"
