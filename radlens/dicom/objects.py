"""The DICOM objects of an answer: which there are, and their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from pydicom import Dataset

from radlens.dicom.base import can_be_marked, encoded
from radlens.dicom.capture import capture
from radlens.dicom.findings import Findings
from radlens.dicom.parametric_map import parametric_map
from radlens.dicom.presentation import presentation
from radlens.dicom.report import report
from radlens.dicom.segmentation import segmentation
from radlens.errors import InvalidParameter, NotAssessable
from radlens.images.dicom import quiet_pydicom
from radlens.wire import OBJECTS

__all__ = ["possible", "write"]


def possible(findings: Findings) -> dict[str, Callable[[], Dataset]]:
    """Return the objects that an answer can be given as, in the order of `radlens.wire.OBJECTS`, with their makers.

    Every answer has a capture and a report. Those with values have a parametric map. Those with a signed map have a
    segmentation and a presentation state if the source is a DICOM image that states class, instance and series.
    """
    made: dict[str, Callable[[Findings], Dataset]] = {"capture": capture, "report": report}
    if findings.values is not None:
        made["map"] = parametric_map
    if findings.evidence is not None and can_be_marked(findings):
        made |= {"segmentation": segmentation, "presentation": presentation}
    return {name: partial(make, findings) for name, make in made.items()}


def write(findings: Findings, names: Sequence[str]) -> list[bytes]:
    """Return DICOM files, one for each name, in the order of `radlens.wire.OBJECTS`.

    Objects that need a map are left out of an answer without one, such as that to an image that cannot be judged,
    unless nothing would remain.

    Args:
        findings: The answer.
        names: Some of `radlens.wire.OBJECTS`, at least one.

    Raises:
        NotAssessable: None of the objects can be given, because the model cannot judge the image.
        InvalidParameter: None of the objects can be given for another reason; the message names what there is.
        UnreadableImage: Patient or study attributes of the source cannot be copied.
    """
    with quiet_pydicom():
        makers = possible(findings)
        wanted = [name for name in OBJECTS if name in names and name in makers]
        if not wanted:
            asked, there = ", ".join(names), ", ".join(makers)
            if not findings.assessable:
                raise NotAssessable(f"not assessable: {'; '.join(findings.reasons)}; there is {there}, got {asked}")
            if findings.withheld is not None:
                raise NotAssessable(f"{findings.withheld} There is {there}, got {asked}")
            raise InvalidParameter(f"objects of this answer are {there}, got {asked}")
        return [encoded(makers[name]()) for name in wanted]
