"""Answers of inpainters for their DICOM objects; this module needs no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from radlens.dicom.codes import method_code
from radlens.dicom.findings import Findings, Group, Values
from radlens.families.reported import common_fields, grey, number
from radlens.images import Image
from radlens.wire import INPAINTING

__all__ = ["findings"]

_PIXELS = "pixel values of the image"


def findings(answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
    """Return a filled image for its DICOM objects.

    Args:
        answer: Decoded prediction.
        images: The only image.
    """
    found, stated = answer["prediction"], answer["provenance"]
    output, holes = stated["output"], np.asarray(found["mask"]) > 0
    change = float(np.abs(found["change"][holes]).mean()) if holes.any() else 0.0
    values = number("HOLES", int(holes.sum()), "pixels") + number("MEAN-CHANGE", change, _PIXELS)
    code = method_code(INPAINTING)
    return Findings(
        title="Inpainting",
        picture=partial(grey, found[output]),
        lines=(f"{output}: {int(holes.sum())} pixels in holes; tissue in them is invented",),
        groups=(Group("Filled holes", values, method=code),),
        values=Values(np.asarray(found[output], dtype=np.float32), output, "1" if output == "mask" else _PIXELS),
        evidence=np.asarray(found["change"], dtype=np.float32),
        **common_fields(answer, images, {"output": output, "mask_sha256": stated["mask_sha256"]}),
    )
