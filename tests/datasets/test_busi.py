"""BUSI."""

from pathlib import Path

import numpy as np
import pytest
from dataset_files import busi, picture, rectangle

from radlens.datasets import open_busi
from radlens.errors import DatasetError


def test_cases_come_with_every_mask(tmp_path: Path) -> None:
    """Classes are folders; a picture with two masses has two boxes, a normal one has none."""
    cases = open_busi(busi(tmp_path))
    assert [(case.image_id, case.label) for case in cases] == [
        ("benign (1)", "benign"),
        ("benign (2)", "benign"),
        ("malignant (1)", "malignant"),
        ("normal (1)", "normal"),
    ]
    samples = [case.load() for case in cases]
    assert [sample.boxes for sample in samples] == [
        ((10, 5, 20, 12),),
        ((10, 5, 20, 12), (40, 20, 50, 30)),
        ((10, 5, 20, 12),),
        (),
    ]
    assert samples[1].labels == ("benign", "benign")
    np.testing.assert_array_equal(samples[1].masks[1], rectangle((40, 20, 50, 30), (30, 50)) > 0)


def test_equal_channels_give_the_grey_values(tmp_path: Path) -> None:
    """Luma of three equal channels is that channel, whatever the file's mode."""
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    busi(tmp_path)
    for colour in (False, True):
        picture(tmp_path / "normal/normal (1).png", pixels, colour=colour)
        np.testing.assert_array_equal(open_busi(tmp_path)[3].load().pixels, pixels.astype(np.float32))


def test_pictures_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """Ten comes after two; the folder of the archive may be the root or in it."""
    busi(tmp_path / "Dataset_BUSI_with_GT")
    picture(tmp_path / "Dataset_BUSI_with_GT/benign/benign (10).png", rectangle((0, 0, 1, 1)))
    picture(tmp_path / "Dataset_BUSI_with_GT/benign/benign (10)_mask.png", rectangle((0, 0, 1, 1)))
    (tmp_path / "Dataset_BUSI_with_GT/benign/Thumbs.db").touch()
    assert [case.image_id for case in open_busi(tmp_path)[:3]] == ["benign (1)", "benign (2)", "benign (10)"]
    assert open_busi(tmp_path)[0].name == "Dataset_BUSI_with_GT/benign/benign (1).png"


@pytest.mark.parametrize(
    "name", ["benign/benign (1).png", "malignant/malignant (1)_mask.png", "benign/benign (2)_mask.png"]
)
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    """A picture without its mask, a mask without its picture, a second mask without the first."""
    (busi(tmp_path) / name).unlink()
    with pytest.raises(DatasetError) as caught:
        open_busi(tmp_path)
    assert str(caught.value) == f"missing file {name}"


def test_a_missing_or_empty_class_is_named(tmp_path: Path) -> None:
    """Two of three classes are no complete download."""
    busi(tmp_path)
    for path in (tmp_path / "normal").iterdir():
        path.unlink()
    with pytest.raises(DatasetError, match=r"^normal: expected pictures named 'normal \(1\)\.png', got none$"):
        open_busi(tmp_path)
    (tmp_path / "normal").rmdir()
    with pytest.raises(DatasetError, match=r"^missing folder normal$"):
        open_busi(tmp_path)


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (rectangle((1, 1, 5, 5), (31, 50)), "expected a mask of 30x50 pixels like its image, got 31x50"),
        (rectangle((0, 0, 0, 0), (30, 50)), "mask must have at least one pixel, got an empty mask"),
    ],
)
def test_masks_that_do_not_fit_are_named(tmp_path: Path, mask: np.ndarray, message: str) -> None:
    """A mask of another shape, and an empty one of a picture with a mass."""
    picture(busi(tmp_path) / "malignant/malignant (1)_mask.png", mask)
    with pytest.raises(DatasetError) as caught:
        open_busi(tmp_path)[2].load()
    assert str(caught.value) == f"malignant/malignant (1)_mask.png: {message}"


def test_a_truncated_picture_is_named(tmp_path: Path) -> None:
    """A partial download is found when the case loads."""
    path = busi(tmp_path) / "benign/benign (1).png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DatasetError, match=r"^benign/benign \(1\)\.png: expected a complete picture, got one that"):
        open_busi(tmp_path)[0].load()
