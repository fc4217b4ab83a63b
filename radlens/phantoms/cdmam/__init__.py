"""The CDMAM 3.4 contrast-detail phantom for mammography: simulated images and the automated read-out."""

from radlens.phantoms.cdmam.acquisition import SCENARIOS, Acquisition, sample_acquisition
from radlens.phantoms.cdmam.dicom import to_dicom
from radlens.phantoms.cdmam.geometry import (
    CDC_DIAMETERS_MM,
    CELL_EXISTS,
    CELL_MM,
    DIAMETERS_MM,
    MARGINS_MM,
    THICKNESSES_UM,
    TRUE_CORNER,
    Layout,
)
from radlens.phantoms.cdmam.hits import MIN_IMAGES, read_out
from radlens.phantoms.cdmam.observer import expected_hit_rates
from radlens.phantoms.cdmam.reading import HUMAN_FACTORS, THRESHOLD_RANGE_UM, ReadOut, expected_cdc, fit_thresholds
from radlens.phantoms.cdmam.registered import NoiseFindings, Registered, register
from radlens.phantoms.cdmam.registration import Found, find, locate
from radlens.phantoms.cdmam.signal import Changes, exposure_at, layers_at, signal_at
from radlens.phantoms.cdmam.simulation import PhantomImage, sample_layout, simulate, simulate_sampled

__all__ = [
    "CDC_DIAMETERS_MM",
    "CELL_EXISTS",
    "CELL_MM",
    "DIAMETERS_MM",
    "HUMAN_FACTORS",
    "MARGINS_MM",
    "MIN_IMAGES",
    "SCENARIOS",
    "THICKNESSES_UM",
    "THRESHOLD_RANGE_UM",
    "TRUE_CORNER",
    "Acquisition",
    "Changes",
    "Found",
    "Layout",
    "NoiseFindings",
    "PhantomImage",
    "ReadOut",
    "Registered",
    "expected_cdc",
    "expected_hit_rates",
    "exposure_at",
    "find",
    "fit_thresholds",
    "layers_at",
    "locate",
    "read_out",
    "register",
    "sample_acquisition",
    "sample_layout",
    "signal_at",
    "simulate",
    "simulate_sampled",
    "to_dicom",
]
