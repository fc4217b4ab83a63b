"""``radlens simulate``."""

from dataclasses import replace

import numpy as np
import pytest

from radlens.images import read
from radlens.phantoms.cdmam import SCENARIOS, Layout, expected_cdc, simulate

SMALL = ("--spacing", "0.8")


@pytest.mark.parametrize("suffix", [".dcm", ".png", ".tif", ".tiff", ".npy"])
def test_every_format_holds_the_same_pixels(run, tmp_path, suffix):
    """What is written reads back as what was simulated."""
    result = run("simulate", f"phantom{suffix}", *SMALL, "--seed", "5", "--margin", "2")
    assert result.exit_code == 0, result.stderr
    image = read((tmp_path / f"phantom{suffix}").read_bytes())
    expected = simulate(SCENARIOS["1"], Layout.with_margin(2, 0.8), seed=5)
    np.testing.assert_array_equal(image.pixels, expected.pixels)
    assert (image.spacing_mm == (0.8, 0.8)) == (suffix == ".dcm")


def test_prints_the_expected_curve(run):
    """The table holds the 12 thresholds of the scenario."""
    result = run("simulate", "phantom.npy", *SMALL, "--scenario", "4")
    for threshold in expected_cdc([SCENARIOS["4"]], 0.8)[0]:
        assert f"{threshold:.3f}" in result.stdout


def test_options_override_the_scenario(run, tmp_path):
    """Voltage, dose, noise, blur and scatter reach the image; the rest is the scenario's."""
    exposure = ("--voltage", "31", "--mas", "150", "--noise", "20", "--blur", "0.09", "--scatter", "0.1")
    assert run("simulate", "changed.npy", *SMALL, "--scenario", "3", *exposure).exit_code == 0
    acquisition = replace(
        SCENARIOS["3"], voltage_kvp=31, exposure_mas=150, noise_level=20, blur_mm=0.09, scatter_to_primary=0.1
    )
    expected = simulate(acquisition, Layout.with_margin(1, 0.8)).pixels
    np.testing.assert_array_equal(np.load(tmp_path / "changed.npy"), expected)


def test_shape_places_the_phantom_on_a_detector(run, tmp_path):
    """``--shape`` sets rows and columns."""
    assert run("simulate", "phantom.png", "--shape", "330x260", "--spacing", "1").exit_code == 0
    assert read((tmp_path / "phantom.png").read_bytes()).pixels.shape == (330, 260)


def test_count_writes_images_that_differ_in_their_noise(run, tmp_path):
    """Names and seeds count up."""
    assert run("simulate", "set/phantom.npy", *SMALL, "--count", "2", "--seed", "3").exit_code == 0
    first, second = (np.load(tmp_path / "set" / f"phantom-00{i}.npy") for i in (1, 2))
    expected = simulate(SCENARIOS["1"], Layout.with_margin(1, 0.8), seed=4).pixels
    np.testing.assert_array_equal(second, expected)
    assert not np.array_equal(first, second)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["phantom.jpg"], "OUT must be one of .dcm, .png, .tif, .tiff, .npy, got '.jpg'"),
        (["phantom.dcm", "--scenario", "5"], "--scenario must be one of 1, 2, 3, 4, ood, got '5'"),
        (["phantom.dcm", "--shape", "big"], "--shape must be HxW such as 4096x3328, got 'big'"),
        (["phantom.dcm", "--shape", "9x9", "--margin", "1"], "--shape and --margin exclude each other, got both"),
        (["phantom.dcm", "--margin", "6"], "margin must be between 0 and 5, got 6"),
        (["phantom.dcm", "--voltage", "90"], "voltage_kvp must be between 20 and 40, got 90.0"),
    ],
)
def test_refuses_what_it_cannot_simulate(run, tmp_path, arguments, message):
    """A bad option ends with 2, one line, and no file."""
    result = run("simulate", *arguments)
    assert result.exit_code == 2
    assert result.stderr == f"error: {message}\n"
    assert not list(tmp_path.iterdir())
