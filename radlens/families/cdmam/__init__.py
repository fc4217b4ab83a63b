"""The CDMAM ensemble: contrast-detail curves of phantom images (Amanova et al. 2022)."""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.families.cdmam.calibration import Calibration
    from radlens.families.cdmam.reader import DEFAULT_SAMPLES, Curve, PhantomReader, combined
    from radlens.families.cdmam.rows import MAX_PLAIN_EVALUATIONS, MAX_STREAMED_EVALUATIONS
    from radlens.families.cdmam.service import Service
    from radlens.families.cdmam.streaming import Pace
else:
    __getattr__ = lazily(__name__)

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
