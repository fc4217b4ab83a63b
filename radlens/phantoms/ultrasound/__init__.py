"""Simulated breast ultrasound with benign and malignant masses and their masks."""

from radlens.phantoms.batches import CLASSES, Batch
from radlens.phantoms.ultrasound.layers import LAYERS
from radlens.phantoms.ultrasound.masses import (
    MARGINS,
    ODDS,
    POSTERIOR,
    RIMS,
    SHAPES,
    TEXTURES,
    Mass,
    sample_mass,
)
from radlens.phantoms.ultrasound.sampling import batches, sample
from radlens.phantoms.ultrasound.simulation import FIELD_WIDTH_MM, UltrasoundImage, simulate
from radlens.phantoms.ultrasound.speckle import Scanner, sample_scanner

__all__ = [
    "CLASSES",
    "FIELD_WIDTH_MM",
    "LAYERS",
    "MARGINS",
    "ODDS",
    "POSTERIOR",
    "RIMS",
    "SHAPES",
    "TEXTURES",
    "Batch",
    "Mass",
    "Scanner",
    "UltrasoundImage",
    "batches",
    "sample",
    "sample_mass",
    "sample_scanner",
    "simulate",
]
