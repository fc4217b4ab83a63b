"""Lesion patches and patches of normal tissue."""

import numpy as np
import pytest
from dataset_files import breast

from radlens.datasets import Sample, draw_patches
from radlens.datasets.patches import cut, lesion_window, normal_window
from radlens.datasets.preprocessing import breast_region, resize
from radlens.errors import InvalidInput

SHAPE = (120, 90)


def sample(*boxes: tuple[int, int, int, int]) -> Sample:
    """A breast with malignant lesions."""
    return Sample(breast(SHAPE).astype(np.float32), boxes, labels=("malignant",) * len(boxes))


def test_each_lesion_gives_a_lesion_patch_and_a_normal_one() -> None:
    """As in the patch set of the thesis; the normal patch is as large as that of the lesion."""
    found = draw_patches(sample((10, 40, 20, 50), (5, 60, 25, 75)), size=16)
    assert [(patch.kind, patch.label) for patch in found] == [
        ("lesion", "malignant"),
        ("lesion", "malignant"),
        ("normal", "normal"),
        ("normal", "normal"),
    ]
    assert [patch.window[2] - patch.window[0] for patch in found] == [16, 20, 16, 20]
    assert {(patch.pixels.shape, patch.pixels.dtype) for patch in found} == {((16, 16), np.dtype(np.float32))}


def test_patches_are_what_lies_in_their_window() -> None:
    """Pixels as they are where the window has the patch's size, resized where it is larger."""
    image = sample((10, 40, 20, 50), (5, 60, 25, 75))
    for patch in draw_patches(image, size=16):
        x0, y0, x1, y1 = patch.window
        inside = image.pixels[y0:y1, x0:x1]
        expected = inside if inside.shape == (16, 16) else resize(inside, (16, 16))
        np.testing.assert_array_equal(patch.pixels, expected)


def test_an_image_without_a_lesion_gives_one_normal_patch() -> None:
    """The same seed draws the same, another one another."""
    windows = [draw_patches(sample(), size=16, seed=seed)[0].window for seed in (0, 0, 1, 2, 3)]
    assert windows[0] == windows[1]
    assert len(set(windows)) > 1


@pytest.mark.parametrize(
    ("box", "window"),
    [
        ((40, 50, 50, 60), (35, 45, 55, 65)),  # in the middle
        ((40, 50, 51, 61), (36, 46, 56, 66)),  # odd sides: half a pixel of the exact middle
        ((0, 0, 4, 4), (0, 0, 20, 20)),  # in a corner
        ((80, 110, 90, 120), (70, 100, 90, 120)),  # in the other
        ((-6, 50, 2, 60), (0, 45, 20, 65)),  # over the edge
        ((10, 20, 40, 30), (10, 10, 40, 40)),  # larger than the patch
        ((0, 0, 90, 120), (-15, 0, 105, 120)),  # larger than the image is wide
        ((10.2, 20.0, 40.1, 30.0), (10, 10, 40, 40)),  # not on the grid
    ],
)
def test_lesions_lie_in_the_middle_or_at_the_edge(
    box: tuple[float, float, float, float], window: tuple[int, int, int, int]
) -> None:
    """The window is centred, moved inwards at the edge, and as large as the lesion."""
    assert lesion_window(box, SHAPE, size=20) == window


def test_outside_the_image_is_background() -> None:
    """A window larger than the image is filled with its smallest value."""
    pixels = np.arange(6, 18, dtype=np.float32).reshape(3, 4)
    patch = cut(pixels, (-1, -2, 5, 4), 6)
    assert patch[2:5, 1:5].tolist() == pixels.tolist()
    patch[2:5, 1:5] = 6
    assert (patch == 6).all()


def test_normal_windows_lie_in_tissue_and_touch_no_lesion() -> None:
    """Every drawn window fulfils what the slow count says, and every possible window is drawn."""
    region = breast_region(breast((20, 16)), fraction=0.05)
    boxes, side = ((2.5, 8.0, 4.0, 9.5), (-4, 14, 1, 40)), 4
    touched = np.zeros((40, 40), dtype=bool)
    touched[8:10, 2:4] = touched[14:40, 0:1] = True
    possible = {
        (x, y, x + side, y + side)
        for y in range(20 - side + 1)
        for x in range(16 - side + 1)
        if region[y : y + side, x : x + side].mean() >= 0.9 and not touched[y : y + side, x : x + side].any()
    }
    generator = np.random.default_rng(0)
    # One of at most 50 places is missed in 1000 draws with a probability below 1e-7; the seed is fixed.
    drawn = {normal_window(region, boxes, side, generator) for _ in range(1000)}
    assert drawn == possible
    assert 10 < len(possible) <= 50


@pytest.mark.parametrize(
    ("image", "size", "message"),
    [
        (sample((0, 0, 90, 120)), 16, "^an image of 120x90 pixels has no patch of 120x120$"),
        (sample((0, 20, 60, 100)), 60, "^the breast has no room for a patch of 80x80 pixels beside its lesions$"),
        (sample(), 80, "^the breast has no room for a patch of 80x80 pixels"),
        (sample(), 0, "^size must be at least 1, got 0$"),
        (Sample(np.zeros(SHAPE, dtype=np.float32)), 16, "got pixels of one value: no region$"),
    ],
)
def test_images_without_room_are_refused(image: Sample, size: int, message: str) -> None:
    """A lesion as large as the breast, a breast smaller than a patch, no breast."""
    with pytest.raises(InvalidInput, match=message):
        draw_patches(image, size=size)
