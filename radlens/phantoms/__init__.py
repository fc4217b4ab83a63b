"""Simulators of test objects and of patients' images, with known truth."""

from radlens.phantoms import cdmam, mammogram, ultrasound

__all__ = ["cdmam", "mammogram", "ultrasound"]
