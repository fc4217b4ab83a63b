"""Synthetic images that a phantom model must judge, and many kinds of images that it must refuse.

Every kind is a function of a `Source`, which draws an exposure of the training range. `WRONG` holds the kinds that must
be refused, `RIGHT` unusual kinds that must be accepted: another pixel scale, another orientation, no grid. Values are
rounded and clipped to 16 bits, as in a file.
"""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.ndimage import affine_transform, gaussian_filter, median_filter, uniform_filter1d, zoom
from scipy.signal import wiener

from radlens.evaluation import other_phantoms
from radlens.phantoms import cdmam, mammogram, ultrasound
from radlens.phantoms.cdmam.acquisition import MAX_VALUE

__all__ = ["RIGHT", "WRONG", "Made", "Source", "thresholds_um"]

Pixels = NDArray[Any]
Made = tuple[Pixels, tuple[float, float]]
"""Pixels (H, W), attenuation bright, and the stated pixel spacing, (row, column) in mm."""

S = TypeVar("S", bound=Callable[["Source"], Any])

WRONG: dict[str, Callable[[Source], Made]] = {}
"""Kinds of images that the model must refuse, by name."""

RIGHT: dict[str, Callable[[Source], Made]] = {}
"""Kinds of images that the model must judge, by name."""

_LARGEST = 65535


@dataclass(frozen=True, eq=False)
class Source:
    """An exposure of the training range, from which all kinds of images are made.

    Args:
        seed: seed of the images.
        spacing_mm: pixel spacing, mm.
    """

    seed: int
    spacing_mm: float = 0.07

    @cached_property
    def acquisition(self) -> cdmam.Acquisition:
        """The exposure."""
        return cdmam.sample_acquisition(self.rng("acquisition"))

    @cached_property
    def layout(self) -> cdmam.Layout:
        """Position of the phantom: margins of 4 to 20 mm, mirrors, shift and rotation; and the gold in the grid."""
        return cdmam.sample_layout(self.rng("layout"), (1, 2, 3, 4, 5), self.spacing_mm)

    @cached_property
    def pixels(self) -> Pixels:
        """The correct image."""
        return self.simulated()

    def rng(self, purpose: str) -> np.random.Generator:
        """Return a separate generator for each purpose, so that images do not depend on the order of the kinds."""
        return np.random.default_rng([self.seed, *purpose.encode()])  # hash() of a text differs between processes

    def simulated(
        self,
        *,
        acquisition: cdmam.Acquisition | None = None,
        layout: cdmam.Layout | None = None,
        changes: cdmam.Changes | None = None,
        number: int = 0,
    ) -> Pixels:
        """Return the image with another exposure, layout or changes; each ``number`` has different noise."""
        return cdmam.simulate(
            acquisition or self.acquisition,
            layout or self.layout,
            100 * self.seed + number,
            changes or cdmam.Changes(),
        ).pixels

    def with_disks(self, disks: other_phantoms.Disks, layout: cdmam.Layout | None = None) -> Pixels:
        """Return the phantom with other disks between its lines."""
        layout = layout or self.layout
        plain = self.simulated(layout=layout, changes=cdmam.Changes(disks=0))
        loss = other_phantoms.disk_loss(self.acquisition, layout, disks)
        return plain + cdmam.exposure_at(self.acquisition, layout, np.arange(plain.shape[1])) * loss

    def plate(self, loss: Pixels, layout: cdmam.Layout, purpose: str) -> Pixels:
        """Return the noisy image of a plate with a given relative loss of signal (H, W)."""
        return other_phantoms.exposed(self.acquisition, layout, loss, self.rng(purpose))


_SMALL_MM, _SMALLEST_MM = 0.26, 0.17


def _kind(registry: dict[str, Callable[[Source], Made]], name: str) -> Callable[[S], S]:
    if name in registry:
        raise ValueError(f"names of kinds must be unique, got {name!r} twice")

    def register(make: S) -> S:
        def stored(source: Source) -> Made:
            made = make(source)
            pixels, spacing = made if isinstance(made, tuple) else (made, (source.spacing_mm, source.spacing_mm))
            return np.rint(pixels).clip(0, _LARGEST).astype(np.float32), spacing

        registry[name] = stored
        return make

    return register


def _wrong(name: str) -> Callable[[S], S]:
    return _kind(WRONG, name)


def _right(name: str) -> Callable[[S], S]:
    return _kind(RIGHT, name)


def _columns(pixels: Pixels) -> NDArray[np.intp]:
    return np.arange(pixels.shape[1])


def _rows(pixels: Pixels) -> NDArray[np.intp]:
    return np.arange(pixels.shape[0])[:, None]


# Images without a phantom, or with very little of it.


@_wrong("blank plate")
def _blank(source: Source) -> Pixels:
    return np.full_like(source.pixels, 1000)


@_wrong("black")
def _black(source: Source) -> Pixels:
    return np.zeros_like(source.pixels)


@_wrong("noise without a phantom")
def _noise(source: Source) -> Pixels:
    return source.rng("noise").normal(1000, 50, source.pixels.shape)


@_wrong("strong noise without a phantom")
def _strong_noise(source: Source) -> Pixels:
    return source.rng("strong").normal(500, 200, source.pixels.shape)


@_wrong("bare plate with its noise")
def _bare(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(0, 0, 0))


@_wrong("salt and pepper")
def _salt(source: Source) -> Pixels:
    return _LARGEST * source.rng("salt").integers(0, 2, source.pixels.shape)


@_wrong("ramp")
def _ramp(source: Source) -> Pixels:
    return 500 + _columns(source.pixels) + 0.5 * _rows(source.pixels)


@_wrong("sinusoids")
def _sinusoids(source: Source) -> Pixels:
    period = 10 / source.spacing_mm
    waves = np.sin(2 * math.pi * _columns(source.pixels) / period) + np.sin(2 * math.pi * _rows(source.pixels) / period)
    return 1000 + 40 * waves + source.rng("waves").normal(0, 5, source.pixels.shape)


@_wrong("checkerboard")
def _checkerboard(source: Source) -> Pixels:
    side = 10 / source.spacing_mm
    fields = (_columns(source.pixels) // side + _rows(source.pixels) // side) % 2
    return 1000 + 50 * fields + source.rng("board").normal(0, 5, source.pixels.shape)


@_wrong("page of text")
def _text(source: Source) -> Pixels:
    height, width = source.pixels.shape
    canvas = Image.new("L", (width, height))
    draw, font = ImageDraw.Draw(canvas), ImageFont.load_default(size=4 / source.spacing_mm)
    for i in range(40):
        draw.text((20, i * height / 40), "CDMAM 3.4 0.10 0.13 0.16 0.20 0.25 0.31 0.40 0.50 0.63", fill=60, font=font)
    return 1000 + np.asarray(canvas, np.float32) + source.rng("text").normal(0, 5, (height, width))


@_wrong("mammogram")
def _mammogram(source: Source) -> Pixels:
    return mammogram.simulate(source.pixels.shape, seed=source.seed).pixels


@_wrong("ultrasound image")
def _ultrasound(source: Source) -> Pixels:
    image = ultrasound.simulate(image_shape=(400, 300), seed=source.seed).pixels
    return zoom(16 * image, np.array(source.pixels.shape) / image.shape, order=1)


@_wrong("upright grid without disks")
def _upright_grid(source: Source) -> Pixels:
    layout = replace(source.layout, rotation_deg=45.0)
    return source.simulated(layout=layout, changes=cdmam.Changes(disks=0, writing=0))


@_wrong("writing alone")
def _writing_alone(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(disks=0, grid=0))


# Other phantoms.


@_wrong("no disks")
def _no_disks(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(disks=0))


@_wrong("lines alone")
def _lines_alone(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(disks=0, writing=0))


@_wrong("corners permuted")
def _permuted(source: Source) -> Pixels:
    """The second disk of every cell is in one of the three other corners."""
    turns = source.rng("corners").integers(1, 4, (16, 16))
    return source.with_disks(other_phantoms.true_disks((cdmam.TRUE_CORNER + turns) % 4))


@_wrong("corners drawn anew")
def _redrawn(source: Source) -> Pixels:
    return source.with_disks(other_phantoms.true_disks(source.rng("anew").integers(0, 4, (16, 16))))


@_wrong("second disks elsewhere in their cells")
def _elsewhere(source: Source) -> Pixels:
    return source.with_disks(other_phantoms.true_disks(offset=0.12))


@_wrong("matrix of disks transposed")
def _transposed_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(disks._replace(x=-disks.x))


@_wrong("holes instead of gold")
def _holes(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(disks._replace(thickness_um=-disks.thickness_um))


@_wrong("all disks of one diameter")
def _one_diameter(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(disks._replace(diameter_mm=np.full_like(disks.x, 0.5)))


@_wrong("all disks of one thickness")
def _one_thickness(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(disks._replace(thickness_um=np.full_like(disks.x, 0.4)))


@_wrong("lower half without disks")
def _lower_half_of_the_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(other_phantoms.Disks(*(each[disks.y < 0] for each in disks)))


@_wrong("without the disks that are best seen")  # the right half has the thick disks of large diameter
def _half_of_the_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(other_phantoms.Disks(*(each[disks.x < 0] for each in disks)))


@_wrong("no disks in the middle of the cells")
def _corners_alone(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(other_phantoms.Disks(*(each[len(each) // 2 :] for each in disks)))


@_wrong("no disks in the corners")
def _middles_alone(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(other_phantoms.Disks(*(each[: len(each) // 2] for each in disks)))


@_wrong("without the disks of 0.16 mm and less")
def _without_small_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(other_phantoms.Disks(*(each[disks.diameter_mm > _SMALLEST_MM] for each in disks)))


@_wrong("disks of 0.25 mm and less half as thick")
def _thin_small_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    factor = np.where(disks.diameter_mm < _SMALL_MM, 0.5, 1.0)
    return source.with_disks(disks._replace(thickness_um=factor * disks.thickness_um))


@_wrong("without the disks of 0.25 mm")
def _without_one_row(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    return source.with_disks(other_phantoms.Disks(*(each[disks.diameter_mm != 0.25] for each in disks)))


@_wrong("without the disks near the threshold")
def _without_threshold_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    over = disks.thickness_um / thresholds_um(source, disks)
    return source.with_disks(other_phantoms.Disks(*(each[(over < 0.5) | (over > 2.0)] for each in disks)))


@_wrong("disks below twice the threshold half as thick")
def _thin_faint_disks(source: Source) -> Pixels:
    disks = other_phantoms.true_disks()
    factor = np.where(disks.thickness_um < 2 * thresholds_um(source, disks), 0.5, 1.0)
    return source.with_disks(disks._replace(thickness_um=factor * disks.thickness_um))


def thresholds_um(source: Source, disks: other_phantoms.Disks) -> NDArray[np.float64]:
    """Return the expected threshold at the diameter of each disk, um; beyond the curve that of its end point."""
    curve = cdmam.expected_cdc([source.acquisition], source.spacing_mm)[0]
    log_diameters = np.log(np.array(cdmam.CDC_DIAMETERS_MM))[::-1]
    return np.asarray(np.exp(np.interp(np.log(disks.diameter_mm), log_diameters, np.log(curve)[::-1])))


@_wrong("CDMAM 4.0")
def _version_4(source: Source) -> Pixels:
    layout = cdmam.Layout.on_detector(source.pixels.shape, source.spacing_mm, rotation_deg=source.layout.rotation_deg)
    loss = other_phantoms.cdmam_4(source.acquisition, layout, source.rng("4.0"))
    return source.plate(loss, layout, "4.0 noise")


@_wrong("CDMAM 4.0 on its side")
def _version_4_sideways(source: Source) -> Pixels:
    return np.rot90(_version_4(source))


@_wrong("disks of CDMAM 4.0 between the lines of 3.4")
def _version_4_disks(source: Source) -> Pixels:
    """Each diameter has the thicknesses of CDMAM 4.0, and the corners differ."""
    corner = source.rng("4.0 corners").integers(0, 4, (16, 16))
    thickest = 0.105 * (2.0 / np.array(cdmam.DIAMETERS_MM)) ** 0.95
    r, c = np.nonzero(cdmam.CELL_EXISTS)
    thickness = thickest[r] * 8.75 ** ((c - 15) / 15)
    disks = other_phantoms.true_disks(corner)
    return source.with_disks(disks._replace(thickness_um=np.tile(thickness, 2)))


# Missing, covered or duplicated parts.


@_wrong("half of it")
def _half(source: Source) -> Pixels:
    return np.where(_columns(source.pixels) < source.pixels.shape[1] // 2, source.pixels, 1000)


@_wrong("lower half of it")
def _lower_half(source: Source) -> Pixels:
    return np.where(_rows(source.pixels) > source.pixels.shape[0] // 2, source.pixels, 1000)


@_wrong("half of it, noise in the other")
def _half_noise(source: Source) -> Pixels:
    plain = source.simulated(changes=cdmam.Changes(0, 0, 0), number=1)
    return np.where(_columns(source.pixels) < source.pixels.shape[1] // 2, source.pixels, plain)


@_wrong("a corner without lines and disks")
def _corner(source: Source) -> Pixels:
    plain = source.simulated(changes=cdmam.Changes(0, 0, 0), number=1)
    height, width = plain.shape
    covered = (_rows(plain) < 0.4 * height) & (_columns(plain) < width // 2)
    return np.where(covered, plain, source.pixels)


@_wrong("cropped")
def _cropped(source: Source) -> Pixels:
    return source.pixels[: int(0.8 * source.pixels.shape[0])]


@_wrong("a quarter of it")
def _quarter(source: Source) -> Pixels:
    height, width = source.pixels.shape
    return source.pixels[: height // 2, : width // 2]


@_wrong("partly outside")
def _partly_outside(source: Source) -> Pixels:
    layout = cdmam.Layout.with_margin(2, source.spacing_mm, shift_mm=(0.0, 30.0))
    return source.simulated(layout=layout)


@_wrong("two phantoms side by side")
def _side_by_side(source: Source) -> Pixels:
    other = replace(source.layout, mirror_vertical=not source.layout.mirror_vertical)
    return np.concatenate([source.pixels, source.simulated(layout=other, number=1)], axis=1)


@_wrong("tiled twice by twice")
def _tiled(source: Source) -> Pixels:
    return np.tile(source.pixels, (2, 2))


@_wrong("pasted over itself")
def _pasted(source: Source) -> Pixels:
    pasted, step = source.pixels.copy(), round(40 / source.spacing_mm)
    pasted[step:] = source.pixels[:-step]
    return pasted


@_wrong("double exposure")
def _double(source: Source) -> Pixels:
    return _both(source, (3.0, 2.0))


@_wrong("double exposure, moved by a cell")
def _double_cell(source: Source) -> Pixels:
    """The lines of both exposures coincide."""
    step = cdmam.CELL_MM / math.sqrt(2)
    return _both(source, (step, step))


def _both(source: Source, shift_mm: tuple[float, float]) -> Pixels:
    first = cdmam.Layout.with_margin(3, source.spacing_mm)
    second = cdmam.Layout.with_margin(3, source.spacing_mm, shift_mm=shift_mm)
    return source.simulated(layout=first) + source.simulated(layout=second, number=1)


@_wrong("stitched halves that do not meet")
def _stitched(source: Source) -> Pixels:
    step = round(2 / source.spacing_mm)
    half = source.pixels.shape[0] // 2
    return np.concatenate([source.pixels[:half], np.roll(source.pixels[half:], step, axis=1)])


@_wrong("stitched halves of two doses")
def _two_doses(source: Source) -> Pixels:
    noisier = replace(source.acquisition, noise_level=1.6 * source.acquisition.noise_level)
    other = source.simulated(acquisition=noisier, number=1)
    return np.where(_rows(other) < other.shape[0] // 2, source.pixels, other)


@_wrong("rows twice")
def _rows_twice(source: Source) -> Pixels:
    """A detector lost every second row and repeated the row above."""
    return np.repeat(source.pixels[::2], 2, axis=0)


@_wrong("under a breast")
def _under_a_breast(source: Source) -> Pixels:
    tissue = mammogram.simulate(source.pixels.shape, seed=source.seed).pixels
    return source.pixels + 0.5 * tissue


@_wrong("coin")
def _coin(source: Source) -> Pixels:
    rows, cols = _place(source, 12.0, 35.0)
    return np.where(np.hypot(rows, cols) < 9, 3000, source.pixels)


@_wrong("strip of metal")
def _strip(source: Source) -> Pixels:
    rows, _ = _place(source, -20.0, 0.0)
    return np.where(np.abs(rows) < 3, 3500, source.pixels)


@_wrong("dust")
def _dust(source: Source) -> Pixels:
    rng, dusty = source.rng("dust"), source.pixels.copy()
    size = max(1, round(0.2 / source.spacing_mm))
    for row, col in rng.integers(0, np.array(dusty.shape) - size, (1500, 2)):
        dusty[row : row + size, col : col + size] += 60
    return dusty


@_wrong("dead pixels")
def _dead_pixels(source: Source) -> Pixels:
    drawn = source.rng("dead").random(source.pixels.shape)
    return np.where(drawn < 0.005, 0, np.where(drawn > 0.995, MAX_VALUE, source.pixels))


@_wrong("dead columns")
def _dead_columns(source: Source) -> Pixels:
    dead, middle = source.pixels.copy(), source.pixels.shape[1] // 2
    dead[:, middle - 200 : middle + 200 : 40] = 0
    return dead


@_wrong("stripes of the read-out")
def _stripes(source: Source) -> Pixels:
    height, deviation = source.pixels.shape[0], 2 * source.acquisition.filtered_noise_sd
    steps = source.rng("stripes").normal(0, deviation, height // 16 + 1)
    return source.pixels + np.repeat(steps, 16)[:height, None]


def _place(source: Source, right_mm: float, down_mm: float) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return the distances (down, right) of all pixels from a point of the phantom, mm."""
    row, col = source.layout.to_pixels(right_mm, down_mm)
    return (_rows(source.pixels) - row) * source.spacing_mm, (_columns(source.pixels) - col) * source.spacing_mm


# Wrong pixel values.


@_wrong("inverted")
def _inverted(source: Source) -> Pixels:
    return MAX_VALUE - source.pixels


@_wrong("saturated")
def _saturated(source: Source) -> Pixels:
    return np.clip(source.pixels, None, np.quantile(source.pixels, 0.6))


@_wrong("lines saturated")
def _lines_saturated(source: Source) -> Pixels:
    return np.clip(source.pixels, None, np.quantile(source.pixels, 0.99))


@_wrong("clipped at the bottom")
def _clipped(source: Source) -> Pixels:
    return np.clip(source.pixels, np.quantile(source.pixels, 0.1), None)


@_wrong("window of a display")
def _window(source: Source) -> Pixels:
    return _eight_bits(source.pixels)


@_wrong("8 bits")
def _coarse(source: Source) -> Pixels:
    return source.pixels // 16


@_wrong("cubed")
def _cubed(source: Source) -> Pixels:
    """The gain grows with the signal, which enhances the lines."""
    return 4000 * _stretched(source.pixels) ** 3


@_wrong("logarithm of the contrast")
def _logarithm(source: Source) -> Pixels:
    return 4000 * np.log1p(200 * _stretched(source.pixels)) / math.log(201)


@_wrong("histogram equalised")
def _equalised(source: Source) -> Pixels:
    _, index, counts = np.unique(source.pixels, return_inverse=True, return_counts=True)
    return 4000 * (np.cumsum(counts) / source.pixels.size)[index].reshape(source.pixels.shape)


def _stretched(pixels: Pixels) -> Pixels:
    return (pixels - pixels.min()) / (pixels.max() - pixels.min())


def _eight_bits(pixels: Pixels) -> Pixels:
    low, high = np.percentile(pixels[::4, ::4], (0.5, 98.0))
    return np.rint(255 * (pixels - low) / (high - low)).clip(0, 255)


# Processing that changes the result of a read-out.


@_wrong("median filter")
def _median(source: Source) -> Pixels:
    return median_filter(source.pixels, 5)


@_wrong("smoothed")
def _smoothed(source: Source) -> Pixels:
    return gaussian_filter(4 * source.pixels, 1.0)


@_wrong("noise reduction")
def _reduced(source: Source) -> Pixels:
    return wiener(4 * source.pixels, 5, noise=(4 * source.acquisition.filtered_noise_sd) ** 2)


@_wrong("unsharp mask")
def _sharpened(source: Source) -> Pixels:
    return source.pixels + 1.5 * (source.pixels - gaussian_filter(source.pixels, 2.0))


@_wrong("mild unsharp mask")
def _mildly_sharpened(source: Source) -> Pixels:
    return source.pixels + 0.3 * (source.pixels - gaussian_filter(source.pixels, 1.5))


@_wrong("mild band filter")
def _band(source: Source) -> Pixels:
    return source.pixels + 0.3 * (gaussian_filter(source.pixels, 1.0) - gaussian_filter(source.pixels, 3.0))


@_wrong("mild noise reduction that spares edges")
def _edge_sparing(source: Source) -> Pixels:
    """A bilateral filter: each pixel is averaged with the neighbours whose values are near its own."""
    pixels, spread = 4 * source.pixels, 6 * source.acquisition.filtered_noise_sd
    total, weights = np.zeros_like(pixels), np.zeros_like(pixels)
    for down, right in ((0, 0), (0, 1), (0, -1), (1, 0), (-1, 0)):
        moved = np.roll(pixels, (down, right), axis=(0, 1))
        weight = (0.3 if down or right else 1.0) * np.exp(-(((moved - pixels) / spread) ** 2) / 2)
        total, weights = total + weight * moved, weights + weight
    return total / weights


@_wrong("enlarged by 3 %, with the pixel spacing adapted")
def _resampled(source: Source) -> tuple[Pixels, tuple[float, float]]:
    larger = zoom(4 * source.pixels, 1.03, order=1, mode="nearest", grid_mode=True)
    row, col = (source.spacing_mm * n / m for n, m in zip(source.pixels.shape, larger.shape, strict=True))
    return larger, (row, col)


@_wrong("edges alone")
def _edges(source: Source) -> Pixels:
    return 1000 + 5 * (gaussian_filter(source.pixels, 1.0) - gaussian_filter(source.pixels, 2.0))


@_wrong("large structures equalised")
def _equalised_structures(source: Source) -> Pixels:
    """Multi-scale processing for display suppresses structures larger than a millimetre."""
    return 1000 + source.pixels - 0.8 * gaussian_filter(source.pixels, 0.7 / source.spacing_mm)


@_wrong("motion")
def _motion(source: Source) -> Pixels:
    return uniform_filter1d(4 * source.pixels, max(3, round(0.5 / source.spacing_mm)), axis=0)


@_wrong("unsharp exposure")
def _unsharp(source: Source) -> Pixels:
    return source.simulated(acquisition=replace(source.acquisition, blur_mm=0.3))


@_wrong("JPEG")
def _jpeg(source: Source) -> Pixels:
    buffer = io.BytesIO()
    Image.fromarray(_eight_bits(source.pixels).astype(np.uint8)).save(buffer, "JPEG", quality=30)
    return np.asarray(Image.open(buffer), np.float32)


@_wrong("enlarged from half the resolution")
def _enlarged(source: Source) -> Pixels:
    height, width = (size // 2 * 2 for size in source.pixels.shape)
    small = source.pixels[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return zoom(4 * small, 2, order=1)


# Wrong geometry.


@_wrong("spacing 3 % too large")
def _too_large(source: Source) -> tuple[Pixels, tuple[float, float]]:
    return source.pixels, (1.03 * source.spacing_mm, 1.03 * source.spacing_mm)


@_wrong("spacing 3 % too small")
def _too_small(source: Source) -> tuple[Pixels, tuple[float, float]]:
    return source.pixels, (source.spacing_mm / 1.03, source.spacing_mm / 1.03)


@_wrong("spacing 1 % too large")
def _slightly_large(source: Source) -> tuple[Pixels, tuple[float, float]]:
    return source.pixels, (1.01 * source.spacing_mm, 1.01 * source.spacing_mm)


@_wrong("spacing of a detector that joins two by two pixels")
def _twice(source: Source) -> tuple[Pixels, tuple[float, float]]:
    """The file states the spacing before binning."""
    height, width = (size // 2 * 2 for size in source.pixels.shape)
    joined = source.pixels[:height, :width].reshape(height // 2, 2, width // 2, 2).mean(axis=(1, 3))
    return 4 * joined, (source.spacing_mm, source.spacing_mm)


@_wrong("spacing a fifth too large")
def _a_fifth(source: Source) -> tuple[Pixels, tuple[float, float]]:
    return source.pixels, (1.2 * source.spacing_mm, 1.2 * source.spacing_mm)


@_wrong("stretched")
def _stretched_rows(source: Source) -> tuple[Pixels, tuple[float, float]]:
    """Rows are 3 % closer than the file states."""
    layout = cdmam.Layout.with_margin(3, (source.spacing_mm / 1.03, source.spacing_mm))
    return source.simulated(layout=layout), (source.spacing_mm, source.spacing_mm)


@_wrong("sheared")
def _sheared(source: Source) -> Pixels:
    shear = np.array([[1.0, 0.0], [0.04, 1.0]])
    return affine_transform(4 * source.pixels, shear, offset=(0, -0.02 * source.pixels.shape[0]), order=1, cval=4000)


@_wrong("turned by 8 degrees")
def _turned_8(source: Source) -> Pixels:
    return source.simulated(layout=cdmam.Layout.with_margin(5, source.spacing_mm, rotation_deg=8.0))


@_wrong("turned by 45 degrees")
def _turned_45(source: Source) -> Pixels:
    size = round(270 / source.spacing_mm)
    layout = cdmam.Layout.on_detector((size, size), source.spacing_mm, rotation_deg=45.0)
    return source.simulated(layout=layout)


# Noise outside the training range.


@_wrong("no noise")
def _no_noise(source: Source) -> Pixels:
    return source.simulated(acquisition=replace(source.acquisition, noise_level=0.0))


@_wrong("hardly any noise")
def _little_noise(source: Source) -> Pixels:
    return source.simulated(acquisition=replace(source.acquisition, noise_level=1.0))


@_wrong("noise six times that of scenario 3")
def _much_noise(source: Source) -> Pixels:
    exposure = cdmam.SCENARIOS["3"]
    return source.simulated(acquisition=replace(exposure, noise_level=6 * exposure.noise_level))


@_wrong("mean of eight images of scenario 1")
def _averaged(source: Source) -> Pixels:
    exposure = cdmam.SCENARIOS["1"]
    return 4 * np.mean([source.simulated(acquisition=exposure, number=k) for k in range(8)], axis=0)


@_wrong("noise that is not Gaussian")
def _spiky(source: Source) -> Pixels:
    plain = source.simulated(acquisition=replace(source.acquisition, noise_level=0.0))
    drawn = source.rng("spiky").laplace(0, 1, plain.shape)
    return plain + source.acquisition.noise_level * gaussian_filter(drawn, 2.0)


@_wrong("noise that grows to one side")
def _uneven(source: Source) -> Pixels:
    plain = source.simulated(acquisition=replace(source.acquisition, noise_level=0.0))
    return plain + (source.pixels - plain) * np.linspace(0.6, 1.6, plain.shape[0])[:, None]


# Images that must be accepted.


@_right("as trained")
def _as_trained(source: Source) -> Pixels:
    return source.pixels


def _scaled(name: str, gain: float, offset: float) -> None:
    _right(name)(lambda source: gain * source.pixels + offset)


for _name, _gain, _offset in (
    ("gain 0.5", 0.5, 0.0),
    ("gain 2", 2.0, 0.0),
    ("gain 4", 4.0, 0.0),
    ("offset 50", 1.0, 50.0),
    ("offset 300", 1.0, 300.0),
    ("offset 1000, gain 3.3", 3.3, 1000.0),
):
    _scaled(_name, _gain, _offset)


@_right("raw twin, read back")
def _raw(source: Source) -> Pixels:
    """The image was stored as X-ray intensity and inverted on reading."""
    return MAX_VALUE - (MAX_VALUE - source.pixels)


@_right("a quarter turn")
def _quarter_turn(source: Source) -> Pixels:
    return np.rot90(source.pixels)


@_right("transposed")
def _transposed(source: Source) -> Pixels:
    return source.pixels.T


@_right("upside down")
def _half_turn(source: Source) -> Pixels:
    return np.rot90(source.pixels, 2)


@_right("mirrored")
def _mirrored(source: Source) -> Pixels:
    return source.pixels[:, ::-1]


@_right("shifted by 5 mm")
def _shifted(source: Source) -> Pixels:
    layout = cdmam.Layout.with_margin(2, source.spacing_mm, shift_mm=(5.0, -5.0))
    return source.simulated(layout=layout)


@_right("hardly any margin")
def _margin(source: Source) -> Pixels:
    layout = cdmam.Layout.with_margin(0, source.spacing_mm, shift_mm=(-2.0, 1.5), rotation_deg=0.5)
    return source.simulated(layout=layout)


@_right("turned by 2 degrees")
def _turned(source: Source) -> Pixels:
    return source.simulated(layout=cdmam.Layout.with_margin(3, source.spacing_mm, rotation_deg=2.0))


@_right("without grid")
def _no_grid(source: Source) -> Pixels:
    layout = cdmam.Layout.with_margin(3, source.spacing_mm, rotation_deg=-0.4, mirror_horizontal=True)
    return source.simulated(layout=layout, changes=cdmam.Changes(grid=0))


@_right("faint grid")
def _faint_grid(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(grid=0.3))


@_right("without writing")
def _no_writing(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(writing=0))


@_right("other writing")
def _other_writing(source: Source) -> Pixels:
    return source.simulated(changes=cdmam.Changes(other_writing=True))


@_right("on a whole detector")
def _whole_detector(source: Source) -> Pixels:
    shape = (round(286.72 / source.spacing_mm), round(232.96 / source.spacing_mm))
    layout = cdmam.Layout.on_detector(shape, source.spacing_mm, shift_mm=(12.0, -20.0), rotation_deg=0.3)
    return source.simulated(layout=layout)


@_right("air beside the plate")
def _air(source: Source) -> Pixels:
    """Air absorbs nothing: the detector is saturated there, which is the value 0."""
    return _framed(source, {"above": 0.0, "below": 0.0, "left": 0.0, "right": 0.0})


@_right("air and collimator beside the plate")
def _collimated(source: Source) -> Pixels:
    return _framed(source, {"left": 0.0, "right": MAX_VALUE, "above": MAX_VALUE})


_FRAME_MM = 15.0


def _framed(source: Source, values: Mapping[str, float]) -> Pixels:
    """Return the image with strips of given values on some sides."""
    width = round(_FRAME_MM / source.spacing_mm)
    shown = source.pixels
    for side, value in values.items():
        axis, comes_first = int(side in ("left", "right")), side in ("left", "above")
        shape = (width, shown.shape[1]) if axis == 0 else (shown.shape[0], width)
        parts = (np.full(shape, value, shown.dtype), shown)
        shown = np.concatenate(parts if comes_first else parts[::-1], axis=axis)
    return shown


@_right("lead letters and a border beside the phantom")
def _lettered(source: Source) -> Pixels:
    shown = source.simulated(layout=cdmam.Layout.with_margin(4, source.spacing_mm)).copy()
    letter, border = round(6.0 / source.spacing_mm), max(1, round(0.5 / source.spacing_mm))
    shown[letter : 2 * letter, : 3 * letter] = MAX_VALUE
    shown[:, -border:] = 0.0
    return shown


@_right("spacing stated 0.2 % too large")
def _hardly_large(source: Source) -> tuple[Pixels, tuple[float, float]]:
    return source.pixels, (1.002 * source.spacing_mm, 1.002 * source.spacing_mm)


@_right("oblong pixels")
def _oblong(source: Source) -> tuple[Pixels, tuple[float, float]]:
    spacing = (source.spacing_mm, 1.2 * source.spacing_mm if source.spacing_mm < 0.08 else 0.8 * source.spacing_mm)
    return source.simulated(layout=cdmam.Layout.with_margin(2, spacing)), spacing


def _at(spacing_mm: float) -> None:
    @_right(f"pixels of {spacing_mm:g} mm")
    def _spaced(source: Source) -> tuple[Pixels, tuple[float, float]]:
        layout = cdmam.sample_layout(source.rng("spaced"), (1, 2, 3, 4, 5), spacing_mm)
        return source.simulated(layout=layout), (spacing_mm, spacing_mm)


def _scenario(name: str) -> None:
    @_right(f"scenario {name}")
    def _exposed(source: Source) -> Pixels:
        return source.simulated(acquisition=cdmam.SCENARIOS[name])


for _name in "1234":
    _scenario(_name)
for _spacing in (0.05, 0.085, 0.1):
    _at(_spacing)
