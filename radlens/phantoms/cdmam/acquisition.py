"""Exposure of a phantom: tube voltage, dose, scatter, blur and noise; scenarios of Amanova et al. 2022, Table 1."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from radlens.phantoms.fields import check_range

__all__ = ["BACKGROUND", "MAX_VALUE", "SCENARIOS", "Acquisition", "sample_acquisition"]

MAX_VALUE = 4095
"""Largest pixel value of a 12-bit image."""

BACKGROUND = 1000.0
"""Pixel value of the bare plate in the middle of the image (chosen)."""

GAIN = 2.9
"""Pixel values per mAs at 28 kV behind the bare plate.

Chosen so that the contrast-detail curve of scenario 1 lies a little below the achievable values of the European
Guidelines and that of scenario 4 above the acceptable ones at small diameters.
"""

VOLTAGE_EXPONENT = 2.0
"""Exponent of the tube voltage: the output of a tube grows with the square of its voltage."""

_NOISE_FILTER_REACH = 4.0


@dataclass(frozen=True)
class Acquisition:
    """Parameters of an exposure that do not depend on the phantom or its position.

    Args:
        voltage_kvp: tube voltage, 20..40 kV.
        exposure_mas: current-time product, 1..1000 mAs.
        noise_level: standard deviation of the white noise before its Gaussian filter (Table 1), 0..1000 pixel values.
        noise_sigma_px: standard deviation of that filter, 0..10 pixels; 0 leaves the noise white.
        blur_mm: standard deviation of the Gaussian point spread function of source and detector, the pixel excluded,
            0..0.3 mm.
        scatter_to_primary: scatter-to-primary ratio SPR, 0..5; it reduces contrasts by 1 / (1 + SPR).
        heel_per_100mm: relative change of the exposure along 100 mm to the right (linear heel effect), -0.2..0.2.

    Raises:
        InvalidParameter: a value is out of range.
    """

    voltage_kvp: float = 28.0
    exposure_mas: float = 115.0
    noise_level: float = 9.55
    noise_sigma_px: float = 0.85
    blur_mm: float = 0.1
    scatter_to_primary: float = 0.2
    heel_per_100mm: float = 0.02

    def __post_init__(self) -> None:
        check_range("voltage_kvp", self.voltage_kvp, 20.0, 40.0)
        check_range("exposure_mas", self.exposure_mas, 1.0, 1000.0)
        check_range("noise_level", self.noise_level, 0.0, 1000.0)
        check_range("noise_sigma_px", self.noise_sigma_px, 0.0, 10.0)
        check_range("blur_mm", self.blur_mm, 0.0, 0.3)
        check_range("scatter_to_primary", self.scatter_to_primary, 0.0, 5.0)
        check_range("heel_per_100mm", self.heel_per_100mm, -0.2, 0.2)

    @property
    def exposure_signal(self) -> float:
        """Detector signal behind the bare plate, scatter included, in pixel values: ``GAIN * mAs * (kVp / 28)**2``."""
        return GAIN * self.exposure_mas * (self.voltage_kvp / 28.0) ** VOLTAGE_EXPONENT

    @property
    def gold_per_um(self) -> float:
        """Linear attenuation coefficient of gold per um: 0.152 at 20 keV, falling with the third power of energy.

        The effective energy is assumed to rise linearly from 18 keV at 22 kV to 20 keV at 34 kV, which gives
        0.209 ... 0.152 per um over that range.
        """
        energy_kev = 18.0 + (self.voltage_kvp - 22.0) / 6.0
        return 0.152 * (20.0 / energy_kev) ** 3

    @property
    def filtered_noise_sd(self) -> float:
        """Standard deviation of the noise of one pixel after the filter, in pixel values."""
        return self.noise_level * float(np.sum(noise_kernel(self.noise_sigma_px) ** 2))

    def contrast(self, thickness_um: np.ndarray) -> np.ndarray:
        """Return the relative loss of signal behind gold of a thickness, scatter included; any shape."""
        return -np.expm1(-self.gold_per_um * np.asarray(thickness_um)) / (1.0 + self.scatter_to_primary)


def noise_kernel(sigma_px: float) -> np.ndarray:
    """Return the weights of the noise filter along one axis, truncated at four standard deviations; they sum to 1."""
    if sigma_px == 0:
        return np.ones(1)
    radius = math.floor(_NOISE_FILTER_REACH * sigma_px + 0.5)
    weights = np.exp(-0.5 * (np.arange(-radius, radius + 1) / sigma_px) ** 2)
    return weights / weights.sum()


SCENARIOS: dict[str, Acquisition] = {
    "1": Acquisition(voltage_kvp=28, exposure_mas=115, noise_level=9.55),
    "2": Acquisition(voltage_kvp=25, exposure_mas=110, noise_level=13.06),
    "3": Acquisition(voltage_kvp=25, exposure_mas=110, noise_level=18.91),
    "4": Acquisition(voltage_kvp=25, exposure_mas=110, noise_level=22.91),
    "ood": Acquisition(voltage_kvp=23, exposure_mas=105, noise_level=6.04),
}
"""The five scenarios of Table 1; parameters that the table does not give have their defaults."""


def sample_acquisition(rng: np.random.Generator) -> Acquisition:
    """Draw an acquisition for training; every parameter is drawn independently of the others.

    Otherwise a network could read the curve off the noise and ignore the disks. The ranges include scenarios 1 to 4 of
    Table 1; the fifth has a lower voltage and less noise than any acquisition drawn here. Neither noise alone nor
    contrast alone explains much of the resulting curves.
    """
    return Acquisition(
        voltage_kvp=rng.uniform(24.0, 31.0),
        exposure_mas=rng.uniform(90.0, 160.0),
        noise_level=math.exp(rng.uniform(math.log(8.5), math.log(24.0))),
        noise_sigma_px=rng.uniform(0.8, 0.9),
        blur_mm=rng.uniform(0.085, 0.115),
        scatter_to_primary=rng.uniform(0.05, 0.4),
        heel_per_100mm=rng.uniform(-0.04, 0.04),
    )
