"""Simulated axial CT patches of lung with benign and malignant nodules, their masks and four readers' ratings."""

from radlens.phantoms.nodule.lung import FIELD_MM
from radlens.phantoms.nodule.nodules import (
    CATEGORIES,
    CHANGED_HU,
    MARGINS,
    ODDS,
    REFERENCE,
    SHAPES,
    SIZES,
    TEXTURES,
    Nodule,
    sample_nodule,
)
from radlens.phantoms.nodule.readers import N_READERS, category_of, sample_readings
from radlens.phantoms.nodule.simulation import NodulePatch, sample, simulate

__all__ = [
    "CATEGORIES",
    "CHANGED_HU",
    "FIELD_MM",
    "MARGINS",
    "N_READERS",
    "ODDS",
    "REFERENCE",
    "SHAPES",
    "SIZES",
    "TEXTURES",
    "Nodule",
    "NodulePatch",
    "category_of",
    "sample",
    "sample_nodule",
    "sample_readings",
    "simulate",
]
