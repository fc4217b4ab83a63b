"""Simulated mammograms and patches with masses and calcifications, and the boxes and masks of these lesions."""

from radlens.phantoms.batches import CLASSES, Batch
from radlens.phantoms.mammogram.anatomy import DENSITIES, LATERALITIES, VIEWS
from radlens.phantoms.mammogram.lesions import (
    CALCIFICATION_ODDS,
    CALCIFICATION_SHAPES,
    DISTRIBUTIONS,
    MARGINS,
    MASS_ODDS,
    MASS_SHAPES,
    USUAL_MASSES,
    Calcifications,
    Lesion,
    Mass,
    Masses,
    sample_lesion,
)
from radlens.phantoms.mammogram.sampling import CATEGORIES, batches, patch_batches, sample, sample_patch
from radlens.phantoms.mammogram.simulation import (
    FIELD_HEIGHT_MM,
    PATCH_SPACING_MM,
    Finding,
    Mammogram,
    Patch,
    simulate,
    simulate_patch,
)

__all__ = [
    "CALCIFICATION_ODDS",
    "CALCIFICATION_SHAPES",
    "CATEGORIES",
    "CLASSES",
    "DENSITIES",
    "DISTRIBUTIONS",
    "FIELD_HEIGHT_MM",
    "LATERALITIES",
    "MARGINS",
    "MASS_ODDS",
    "MASS_SHAPES",
    "PATCH_SPACING_MM",
    "USUAL_MASSES",
    "VIEWS",
    "Batch",
    "Calcifications",
    "Finding",
    "Lesion",
    "Mammogram",
    "Mass",
    "Masses",
    "Patch",
    "batches",
    "patch_batches",
    "sample",
    "sample_lesion",
    "sample_patch",
    "simulate",
    "simulate_patch",
]
