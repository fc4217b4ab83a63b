"""``radlens figures`` and the experiments behind it."""

import numpy as np
import pytest

from radlens.cli.studies import PATH_LENGTHS, Study, turned
from radlens.engines import open_bundle
from radlens.figures import Box, cutout
from radlens.images import read


@pytest.fixture
def study(phantom, bundle):
    """The cheapest study there is."""
    return Study(
        read(phantom.read_bytes()), bundle, open_bundle(bundle, "torch"), n_steps=1, n_samples=1, stride=125, seed=0
    )


def test_writes_the_four_figures(run, noise, bundle, tmp_path, monkeypatch):
    """Each is a PNG of its own."""
    monkeypatch.setattr("radlens.cli.studies.PATH_LENGTHS", (1.0, 2.0))
    small = ("--upsample", "1", "--n-steps", "1", "--stride", "125")
    result = run("figures", noise, "-o", "figures", "--bundle", bundle.path, *small)
    assert result.exit_code == 0, result.stderr
    files = sorted((tmp_path / "figures").iterdir())
    assert [file.name for file in files] == ["before-after.png", "methods.png", "path-lengths.png", "rotation.png"]
    assert all(file.read_bytes().startswith(b"\x89PNG") for file in files)


def test_an_image_that_is_too_small_is_refused(run, bundle, tmp_path):
    """As by the service."""
    np.save(tmp_path / "small.npy", np.ones((10, 10), dtype=np.float32))
    result = run("figures", "small.npy", "-o", "figures", "--bundle", bundle.path)
    assert result.exit_code == 2
    assert "image must have at least 250x250 pixels, got 10x10" in result.stderr


def test_a_turned_box_holds_the_same_pixels():
    """The box of a turned image cuts out the turned part."""
    pixels, box = np.arange(70).reshape(7, 10), Box(1, 2, 3, 5)
    np.testing.assert_array_equal(cutout(np.rot90(pixels), turned(box, n_columns=10)), np.rot90(cutout(pixels, box)))


def test_before_and_after_are_the_curves_of_image_and_moved_image(study, monkeypatch):
    """Adding the map lowers the midpoint: with one step and a small c it is a step along the negative gradient."""
    drawn = {}
    monkeypatch.setattr("radlens.cli.studies.figure_before_after", lambda *curves: drawn.update(curves=curves))
    monkeypatch.setattr("radlens.cli.studies.save", lambda figure: b"")
    study.before_after()
    before, after = drawn["curves"]
    assert after.mean_um.mean() < before.mean_um.mean()


def test_each_path_length_is_studied(study, monkeypatch):
    """One map and one pair of midpoints for each c; the first midpoint is the image's own."""
    drawn = []
    monkeypatch.setattr("radlens.cli.studies.figure_path_lengths", lambda studies, n_columns: drawn.extend(studies))
    monkeypatch.setattr("radlens.cli.studies.save", lambda figure: b"")
    study.path_lengths()
    assert [each.path_length for each in drawn] == list(PATH_LENGTHS)
    assert len({each.before_um for each in drawn}) == 1
    small, large = np.abs(drawn[0].shown.map).max(), np.abs(drawn[-1].shown.map).max()
    # One step: the map is -c R(x). The smallest is a difference of float32 pixels of about 1, good to 1e-3 of itself.
    assert large / small == pytest.approx(PATH_LENGTHS[-1] / PATH_LENGTHS[0], rel=2e-3)
