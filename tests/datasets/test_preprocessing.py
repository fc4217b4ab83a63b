"""The breast's frame, and boxes and masks that move with it."""

import numpy as np
import pytest
from dataset_files import breast, rectangle
from hypothesis import given, settings
from hypothesis import strategies as st

from radlens.datasets import Frame, Sample, breast_frame, in_frame, mask_box, resized
from radlens.datasets.preprocessing import (
    breast_region,
    chest_side,
    chest_side_of,
    clip_box,
    resize,
    resize_box,
    resize_mask,
)
from radlens.errors import InvalidInput

whole_numbers = st.integers(-5000, 5000)
boxes = st.tuples(whole_numbers, whole_numbers, whole_numbers, whole_numbers)


def slow_region(bright: np.ndarray) -> np.ndarray:
    """Return the largest region that connects over edges and corners, by flooding from every pixel."""
    best: set[tuple[int, int]] = set()
    left = set(zip(*(axis.tolist() for axis in np.nonzero(bright)), strict=True))
    while left:
        region, front = set(), {min(left)}
        while front:
            region |= front
            front = {(r + i, c + j) for r, c in front for i in (-1, 0, 1) for j in (-1, 0, 1)} & left - region
        left -= region
        best = max(best, region, key=len)
    mask = np.zeros(bright.shape, dtype=bool)
    for pixel in best:
        mask[pixel] = True
    return mask


@pytest.mark.parametrize("seed", range(5))
def test_the_largest_region_is_that_of_a_slow_search(seed: int) -> None:
    """Random pixels above a threshold; the region is unique in these seeds."""
    pixels = np.random.default_rng(seed).uniform(size=(20, 30)).astype(np.float32)
    threshold = pixels.min() + 0.7 * (pixels.max() - pixels.min())
    np.testing.assert_array_equal(breast_region(pixels, fraction=0.7), slow_region(pixels > threshold))


@pytest.mark.parametrize("side", ["left", "right"])
def test_the_frame_holds_the_breast_alone(side: str) -> None:
    """A bright label is no part of it; the chest wall comes to the left; rows are not turned."""
    pixels = breast(side=side).astype(np.float32)
    frame = breast_frame(pixels)
    region = np.zeros(pixels.shape, dtype=bool)
    region[(pixels > 0) & (pixels < 4095)] = True
    assert frame == Frame(mask_box(region), flipped=side == "right")
    np.testing.assert_array_equal(frame.crop(pixels), breast_frame(breast()).crop(breast().astype(np.float32)))


def test_right_and_left_breasts_look_alike() -> None:
    """Framing a mirrored image gives the same pixels, boxes and masks."""
    mask = rectangle((2, 25, 12, 37)) > 0
    left = Sample(breast().astype(np.float32), (mask_box(mask),), (mask,), ("malignant",), (0.07, 0.07))
    mirrored = np.ascontiguousarray(mask[:, ::-1])
    right = Sample(
        breast(side="right").astype(np.float32), (mask_box(mirrored),), (mirrored,), ("malignant",), (0.07, 0.07)
    )
    one, other = (in_frame(sample, breast_frame(sample.pixels)) for sample in (left, right))
    np.testing.assert_array_equal(one.pixels, other.pixels)
    np.testing.assert_array_equal(one.masks[0], other.masks[0])
    assert one.boxes == other.boxes == (mask_box(one.masks[0]),)
    assert one.spacing_mm == (0.07, 0.07)


def test_the_side_may_be_given() -> None:
    """By the breast in the usual hanging, against what the pixels say."""
    pixels = breast(side="left")
    assert not breast_frame(pixels, side=chest_side_of("L")).flipped
    assert breast_frame(pixels, side=chest_side_of("R")).flipped


def test_equal_halves_count_as_left() -> None:
    """The middle column of an odd width belongs to neither half."""
    region = np.array([[True, True, False], [False, True, True]])
    assert chest_side(region) == "left"
    assert chest_side(region[1:]) == "right"


@settings(deadline=None)
@given(boxes, boxes, st.booleans())
def test_boxes_move_there_and_back_without_error(
    box: tuple[int, int, int, int], frame: tuple[int, int, int, int], flipped: bool
) -> None:
    """The two maps are inverses of each other, inside the frame and outside it."""
    there = Frame(frame, flipped)
    assert there.to_image(there.to_frame(box)) == box
    assert there.to_frame(there.to_image(box)) == box


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1))
def test_a_moved_box_is_the_box_of_the_moved_mask(seed: int) -> None:
    """For boxes inside the frame, flipped or not, touching its border or not."""
    rng = np.random.default_rng(seed)
    x, y = (np.sort(rng.choice(31, 4, replace=False)) for _ in range(2))
    frame = Frame((int(x[0]), int(y[0]), int(x[3]), int(y[3])), flipped=bool(rng.integers(2)))
    box = (int(x[rng.integers(2)]), int(y[rng.integers(2)]), int(x[2 + rng.integers(2)]), int(y[2 + rng.integers(2)]))
    assert frame.to_frame(box) == mask_box(frame.crop(rectangle(box, (30, 30)) > 0))
    assert frame.shape == frame.crop(np.zeros((30, 30))).shape


def test_a_lesion_at_the_border_keeps_its_box() -> None:
    """A box that reaches over the crop is moved whole, so it can be moved back, and can be clipped."""
    pixels = breast().astype(np.float32)
    frame = breast_frame(pixels)
    sample = in_frame(Sample(pixels, ((-3, 20, 60, 30),), labels=("benign",)), frame)
    assert frame.to_image(sample.boxes[0]) == (-3, 20, 60, 30)
    assert clip_box(sample.boxes[0], frame.shape) == (0, 20 - frame.box[1], frame.shape[1], 30 - frame.box[1])


def test_a_lesion_outside_the_breast_is_refused() -> None:
    """It would be lost without a word."""
    pixels = breast().astype(np.float32)
    sample = Sample(pixels, ((35, 1, 39, 4),), labels=("benign",))
    with pytest.raises(InvalidInput, match=r"^box 0 must overlap the image of"):
        in_frame(sample, breast_frame(pixels))
    with pytest.raises(InvalidInput, match=r"^box must overlap the image of 5x5 pixels$"):
        clip_box((5, 0, 6, 1), (5, 5))


@pytest.mark.parametrize(
    ("pixels", "fraction", "message"),
    [
        (np.zeros((9, 9)), 0.05, "^expected a breast on a darker background, got pixels of one value: no region$"),
        (np.ones((9, 9)), 0.05, "got pixels of one value"),
        (np.array([[0, np.nan]]), 0.05, "^pixels must be finite, got NaN or infinity$"),
        (np.array([[0, np.inf]]), 0.05, "^pixels must be finite"),
        (np.ones(9), 0.05, r"^pixels must be \(h, w\) with at least one pixel, got shape \(9,\)$"),
        (np.ones((0, 9)), 0.05, r"got shape \(0, 9\)$"),
        (np.eye(9), 1.0, "^fraction must be at least 0 and below 1, got 1.0$"),
        (np.eye(9), -0.1, "^fraction must be at least 0"),
    ],
)
def test_images_without_a_breast_are_refused(pixels: np.ndarray, fraction: float, message: str) -> None:
    """An all-zero or constant image, values that are not finite, other shapes, wrong fractions."""
    with pytest.raises(InvalidInput, match=message):
        breast_frame(pixels, fraction=fraction)


def test_one_bright_pixel_is_a_region() -> None:
    """The smallest frame has one pixel."""
    pixels = np.zeros((4, 6))
    pixels[2, 3] = 1
    assert breast_frame(pixels) == Frame((3, 2, 4, 3), flipped=True)


def test_a_resized_sample_keeps_its_places() -> None:
    """Boxes, masks and spacing go with the size, and may change the aspect ratio."""
    mask = rectangle((4, 10, 12, 20), (40, 20)) > 0
    sample = Sample(mask.astype(np.float32), (mask_box(mask),), (mask,), ("benign",), (0.1, 0.2))
    small = resized(sample, (20, 5))
    assert small.pixels.shape == (20, 5)
    assert small.boxes == (mask_box(small.masks[0]),) == ((1, 5, 3, 10),)
    assert small.spacing_mm == (0.2, 0.8)
    assert resized(Sample(sample.pixels), (20, 5)).spacing_mm is None


def test_resizing_keeps_constants_and_the_mean() -> None:
    """Bilinear weights sum to one; halving by a symmetric filter keeps a smooth image's mean."""
    np.testing.assert_allclose(resize(np.full((9, 7), 3.5, dtype=np.float32), (4, 20)), 3.5, rtol=1e-6)
    ramp = np.add.outer(np.arange(40.0), np.arange(30.0)).astype(np.float32)
    # A ramp is reproduced inside; only the one-sided filter at the border is off, by less than a pixel's step.
    np.testing.assert_allclose(resize(ramp, (20, 15)).mean(), ramp.mean(), rtol=1e-3)
    np.testing.assert_array_equal(resize(ramp, ramp.shape), ramp)


def test_masks_take_the_nearest_pixel() -> None:
    """Doubling repeats each pixel; the same size changes nothing."""
    mask = np.random.default_rng(0).uniform(size=(7, 5)) > 0.5
    np.testing.assert_array_equal(resize_mask(mask, (14, 10)), mask.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(resize_mask(mask, (7, 5)), mask)


def test_boxes_resize_there_and_back() -> None:
    """By a power of two without error."""
    assert resize_box(resize_box((1, 2, 3, 4), (64, 32), (16, 64)), (16, 64), (64, 32)) == (1, 2, 3, 4)


@pytest.mark.parametrize("change", [resize, resize_mask])
def test_no_image_has_no_rows(change: object) -> None:
    """A size of zero is refused."""
    with pytest.raises(InvalidInput, match=r"^shape must have at least one row and one column, got \(0, 5\)$"):
        change(np.ones((3, 3), dtype=np.float32), (0, 5))  # type: ignore[operator]
