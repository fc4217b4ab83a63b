"""The CDMAM ensemble: contrast-detail curves of phantom images (Amanova et al. 2022)."""

from typing import TYPE_CHECKING

from radlens.extras import lazy

if TYPE_CHECKING:
    from radlens.families.cdmam.calibration import Calibration
    from radlens.families.cdmam.reader import DEFAULT_SAMPLES, Curve, PhantomReader, combined
    from radlens.families.cdmam.rows import MAX_PLAIN_EVALUATIONS, MAX_STREAMED_EVALUATIONS
    from radlens.families.cdmam.service import Service
    from radlens.families.cdmam.streaming import Pace

__all__ = [
    "DEFAULT_SAMPLES",
    "MAX_PLAIN_EVALUATIONS",
    "MAX_STREAMED_EVALUATIONS",
    "Calibration",
    "Curve",
    "Pace",
    "PhantomReader",
    "Service",
    "combined",
]

# A type checker sees the imports above, and so every wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(
        __name__,
        {
            "Calibration": "calibration",
            **dict.fromkeys(("DEFAULT_SAMPLES", "Curve", "PhantomReader", "combined"), "reader"),
            **dict.fromkeys(("MAX_PLAIN_EVALUATIONS", "MAX_STREAMED_EVALUATIONS"), "rows"),
            "Service": "service",
            "Pace": "streaming",
        },
    )
