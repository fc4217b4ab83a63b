"""The CDMAM ensemble: contrast-detail curves of phantom images (Amanova et al. 2022)."""

from radlens.families.cdmam.calibration import Calibration
from radlens.families.cdmam.reader import DEFAULT_SAMPLES, Curve, PhantomReader, combined

__all__ = ["DEFAULT_SAMPLES", "Calibration", "Curve", "PhantomReader", "combined"]
