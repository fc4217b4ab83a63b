"""An answer with a map, made up, for tests of DICOM objects."""

from typing import Any

import numpy as np
from pydicom.sr.coding import Code

from radlens.dicom import Findings, Group, Method, Number, Picture, Values
from radlens.dicom.codes import method_code, private, unit_code
from radlens.figures.burnt_in import Legend
from radlens.images import Image

PROVENANCE = {
    "model": "cdmam",
    "version": "1.0",
    "bundle_hash": "ab12",
    "engine": "torch",
    "time": "2026-03-04T05:06:07.089+00:00",
    "explainer": {"n_steps": 50},
}

UM = unit_code("um of gold")


def some_map(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Return a signed map ``(h, w)`` float32 with values of every size."""
    rng = np.random.default_rng(seed)
    return (rng.normal(size=shape) * 10.0 ** rng.integers(-6, 3, shape)).astype(np.float32)


def map_findings(image: Image, values: np.ndarray | None = None, **changes: Any) -> Findings:
    """Return findings with a map, by default `some_map`; ``changes`` replaces fields."""
    shown = some_map(image.pixels.shape) if values is None else values
    code: Code = method_code("saliency")
    fields: dict[str, Any] = {
        "images": (image,),
        "provenance": PROVENANCE,
        "kind": "explanation",
        "title": "Saliency",
        "settings": {"method": "saliency", "parameters": {"absolute": True}, "output": "map"},
        "picture": lambda: Picture(np.zeros((*image.pixels.shape, 3), np.uint8), legend=Legend(0.5, "um of gold")),
        "warnings": ("the image states no pixel spacing",),
        "groups": (
            Group(
                "Disks of 1.00 mm",
                (Number(private("THRESHOLD"), 0.1 + 0.2, UM), Number(private("INTERVAL-LOW"), 1 / 3, UM)),
                ((private("ACCEPTABLE"), private("MET")),),
                ((private("VERDICT"), "Acceptable limit: met at 1 mm; Größe 3 µm."),),
            ),
            Group("Map", method=code, texts=((private("MEANING"), "how much the score depends on a pixel"),)),
        ),
        "method": Method(code, "Saliency", "how much the score depends on a pixel"),
        "values": Values(shown, "map", "um of gold"),
        "evidence": shown,
    }
    return Findings(**(fields | changes))
