"""Simulators of test objects and patient images with known ground truth."""

from radlens.phantoms import cdmam, mammogram, ultrasound

__all__ = ["cdmam", "mammogram", "ultrasound"]
