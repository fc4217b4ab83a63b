"""OASBUD."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import echoes, lesion, oasbud
from scipy.io import savemat

from radlens.datasets import b_mode, open_oasbud, split_patients
from radlens.errors import DatasetError, InvalidInput


def test_a_lesion_has_two_scans(tmp_path: Path) -> None:
    """Each scan is a case; lesions of one woman share her identifier; BI-RADS and class are those of the file."""
    cases = open_oasbud(oasbud(tmp_path, [lesion("7", 1), lesion("9", 0), lesion("9", 1)]))
    assert [(case.patient_id, case.image_id, case.label, case.birads, case.view) for case in cases[:3]] == [
        ("7", "lesion-1-scan-1", "malignant", "4a", "scan 1"),
        ("7", "lesion-1-scan-2", "malignant", "4a", "scan 2"),
        ("9", "lesion-2-scan-1", "benign", "3", "scan 1"),
    ]
    assert len(cases) == 6
    assert {len(part) for part in split_patients(cases, validation=0.5)} == {2, 4}


def test_a_scan_loads_as_b_mode_with_its_outline(tmp_path: Path) -> None:
    """Pixels are the B-mode image of its own echoes; spacing is 1540 m/s / (2 * 40 MHz) by 38 mm / lines."""
    cases = open_oasbud(oasbud(tmp_path, [lesion("7", 1)]))
    for case, seed in zip(cases, (1, 2), strict=True):
        sample = case.load()
        np.testing.assert_array_equal(sample.pixels, b_mode(echoes(seed=seed)))
        assert (sample.boxes, sample.labels) == (((4, 50, 9, 100),), ("malignant",))
        assert sample.masks[0].sum() == 50 * 5
        # Two roundings of float64 on the way.
        assert sample.spacing_mm == case.spacing_mm == pytest.approx((0.01925, 2.375), rel=1e-15)


def test_b_mode_recovers_a_known_envelope() -> None:
    """A carrier of a tenth of the sampling rate under two slow envelopes: 0, -20 and -40 dB give 255, 153 and 51."""
    samples = np.arange(2000)
    carrier = np.cos(2 * np.pi * 0.1 * samples)
    image = b_mode(np.stack([carrier, carrier / 10, carrier / 100, carrier / 1000], axis=1) * 1e4)
    # Whole periods fit, so the analytic signal of the sampled cosine is exact; float32 rounds at 1e-5 of 255.
    np.testing.assert_allclose(image[500], [255, 153, 51, 0], atol=1e-3)
    assert image.dtype == np.float32


def test_b_mode_runs_along_the_scan_lines() -> None:
    """Each line has an envelope of its own: other lines change it only by the common maximum."""
    lines = echoes((128, 8)).astype(float)
    alone = b_mode(lines[:, [3, 5]])
    joint = b_mode(np.concatenate([lines[:, [3, 5]], np.zeros((128, 3))], axis=1))
    # The same operations on the same columns; float32 rounds once.
    np.testing.assert_allclose(joint[:, :2], alone, rtol=1e-6)
    assert not joint[:, 2:].any()


@pytest.mark.parametrize(
    ("values", "dynamic_range_db", "message"),
    [
        (np.zeros((4, 4)), 50, "^expected echoes, got zeros only$"),
        (np.full((4, 4), np.nan), 50, "^echoes must be finite, got NaN or infinity$"),
        (np.ones(4), 50, r"^echoes must be \(samples, lines\), got shape \(4,\)$"),
        (np.ones((0, 4)), 50, r"^echoes must be \(samples, lines\), got shape \(0, 4\)$"),
        (np.ones((4, 4)), 0, "^dynamic_range_db must be above 0, got 0$"),
    ],
)
def test_b_mode_refuses_what_has_no_image(values: np.ndarray, dynamic_range_db: float, message: str) -> None:
    """Zeros, values that are not finite, other shapes."""
    with pytest.raises(InvalidInput, match=message):
        b_mode(values, dynamic_range_db=dynamic_range_db)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"rf1": np.zeros((200, 16), dtype=np.int16)},
            r"^OASBUD\.mat lesion 1 scan 1: expected echoes, got zeros",
        ),
        (
            {"roi1": np.ones((199, 16))},
            r"expected roi1 of shape \(200, 16\) like rf1, got \(199, 16\)$",
        ),
        ({"roi1": np.zeros((200, 16))}, r"lesion 1 scan 1: mask must have at least one pixel, got an empty mask$"),
        ({"rf1": np.zeros(0)}, r"lesion 1 scan 1: echoes must be \(samples, lines\), got shape \(0, 0\)$"),
    ],
)
def test_scans_that_cannot_be_shown_are_named(tmp_path: Path, fields: dict[str, Any], message: str) -> None:
    """The lesion and the scan are named, not the woman; the other scan still loads."""
    cases = open_oasbud(oasbud(tmp_path, [lesion("Doe^Jane", 1, **fields)]))
    with pytest.raises(DatasetError, match=message):
        cases[0].load()
    assert cases[1].load().boxes


def test_damaged_files_are_named(tmp_path: Path) -> None:
    """A missing, truncated or empty file, other variables, missing fields and unknown classes."""
    (tmp_path / "readme.txt").touch()
    with pytest.raises(DatasetError, match=r"^missing file OASBUD\.mat$"):
        open_oasbud(tmp_path)
    path = oasbud(tmp_path, [lesion("1", 0)]) / "OASBUD.mat"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(DatasetError, match=r"^OASBUD\.mat: expected a complete MATLAB file of version 5"):
        open_oasbud(tmp_path)
    with pytest.raises(DatasetError, match=r"^OASBUD\.mat: missing variable 'data'$"):
        open_oasbud(oasbud(tmp_path, [lesion("1", 0)], variable="dane"))
    incomplete = lesion("1", 0)
    del incomplete["roi2"], incomplete["birads"]
    with pytest.raises(DatasetError, match=r"^OASBUD\.mat: missing field 'roi2', 'birads' of 'data'$"):
        open_oasbud(oasbud(tmp_path, [incomplete]))
    with pytest.raises(DatasetError, match=r"^OASBUD\.mat lesion 2: class must be 0 or 1$"):
        open_oasbud(oasbud(tmp_path, [lesion("1", 0), lesion("2", 2)]))
    savemat(path, {"data": np.zeros((1, 0), dtype=[(field, object) for field in lesion("1", 0)])})
    with pytest.raises(DatasetError, match=r"^OASBUD\.mat: expected at least one lesion, got none$"):
        open_oasbud(tmp_path)


def test_field_names_may_be_capital(tmp_path: Path) -> None:
    """Descriptions of the file spell ``Class`` and ``class``."""
    content = {
        key.capitalize() if key in ("id", "birads", "class") else key: value for key, value in lesion("1", 1).items()
    }
    assert open_oasbud(oasbud(tmp_path, [content]))[0].label == "malignant"
