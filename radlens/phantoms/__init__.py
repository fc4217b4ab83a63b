"""Simulators of test objects with known truth."""

from radlens.phantoms import cdmam

__all__ = ["cdmam"]
