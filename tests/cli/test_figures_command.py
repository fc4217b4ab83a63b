"""``radlens figures`` and the experiments behind it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from tiny_bundle import make_bundle

from radlens.cli.studies import PATH_LENGTHS, Study, turned
from radlens.explainers import Sensitivity
from radlens.families.cdmam.manifest import save
from radlens.families.cdmam.model import open_bundle
from radlens.figures import Box, cutout
from radlens.images import read
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate
from radlens.studies.amanova_maps import MapParameters, upsampled
from radlens.studies.amanova_recipes import bundle_recipe


@pytest.fixture(scope="module")
def registered_bundle(tmp_path_factory):
    """A small untrained bundle that sees registered phantoms."""
    found = make_bundle(tmp_path_factory.mktemp("registered"), logarithmic=True)
    spec = replace(found.manifest.input, mean=0.0, std=1.0, registered=True, n_samples=2)
    return save(found.path, replace(found.manifest, input=spec))


@pytest.fixture
def study(phantom, bundle):
    """The cheapest study there is."""
    parameters = MapParameters(n_samples=1, n_steps=1, stride=125)
    return Study(read(phantom.read_bytes()), bundle, open_bundle(bundle, "torch"), parameters)


def test_writes_the_four_figures(run, noise, bundle, tmp_path, monkeypatch):
    """Each is a PNG of its own; an image without a phantom has maps of a model that needs none."""
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


@pytest.mark.parametrize(
    "command", [("figures", "{image}", "--bundle", "{bundle}"), ("reliability", "{bundle}", "--image", "{image}")]
)
def test_a_registered_model_draws_no_map_of_noise(run, noise, registered_bundle, tmp_path, command):
    """What it cannot judge has exit code 9, and nothing is written."""
    given = {"{image}": noise, "{bundle}": registered_bundle.path}
    result = run(*(given.get(part, part) for part in command), "-o", "out")
    assert result.exit_code == 9, result.output
    assert "error: image must show the whole grid" in result.stderr
    assert not (tmp_path / "out").exists()


def test_a_turned_box_holds_the_same_pixels():
    """The box of a turned image cuts out the turned part."""
    pixels, box = np.arange(70).reshape(7, 10), Box(1, 2, 3, 5)
    np.testing.assert_array_equal(cutout(np.rot90(pixels), turned(box, n_columns=10)), np.rot90(cutout(pixels, box)))


def test_before_and_after_are_the_curves_of_image_and_moved_image(study, monkeypatch):
    """Adding the map lowers the midpoint: with one step and a small c it is a step along the negative gradient."""
    drawn = {}

    def draw(*curves, title):
        drawn.update(curves=curves, title=title)

    monkeypatch.setattr("radlens.cli.studies.figure_before_after", draw)
    monkeypatch.setattr("radlens.cli.studies.save", lambda figure: b"")
    study.before_after()
    before, after = drawn["curves"]
    assert after.mean_um.mean() < before.mean_um.mean()
    assert drawn["title"] == "c = 10, L = 1, t = 3"


@pytest.mark.slow
def test_each_path_length_is_studied(study, monkeypatch):
    """One map and one pair of midpoints for each c; the first midpoint is the image's own."""
    drawn = []
    monkeypatch.setattr("radlens.cli.studies.figure_path_lengths", lambda studies, n_columns: drawn.extend(studies))
    monkeypatch.setattr("radlens.cli.studies.save", lambda figure: b"")
    study.path_lengths()
    assert [each.path_length for each in drawn] == list(PATH_LENGTHS)
    assert len({each.before_um for each in drawn}) == 1
    assert all("of the disk-free twin" in each.note for each in drawn)
    small, large = np.abs(drawn[0].shown.map).max(), np.abs(drawn[-1].shown.map).max()
    # One step: the map is -c R(x). The smallest is a difference of float32 pixels of about 1, good to 1e-3 of itself.
    assert large / small == pytest.approx(PATH_LENGTHS[-1] / PATH_LENGTHS[0], rel=2e-3)


class _Bright(FakeModel):
    """A model whose score rises with the sum of all pixels: each pixel that a sample holds gets -c / L."""

    batch_size = 8

    def gradient(self, images):
        """Ones everywhere."""
        return torch.ones_like(images)


@pytest.mark.slow
@pytest.mark.parametrize("n_turns", [0, 1])
def test_maps_of_a_registered_phantom_lie_on_the_image(registered_bundle, n_turns):
    """They are carried back: as large as the image and zero outside the phantom, also when the image is turned."""
    drawn = simulate(SCENARIOS["1"], Layout.with_margin(1, 0.4))
    pixels = np.ascontiguousarray(np.rot90(drawn.pixels, n_turns))
    recipe = replace(bundle_recipe("cdmam", registered_bundle), model=_Bright())
    view = recipe.view(pixels, 0.4)
    shown = view.on_image(upsampled(recipe, view, Sensitivity(), n_samples=4))
    assert shown.map.shape == shown.visits.shape == pixels.shape
    # The margin is 10 pixels wide; the registration is good to a pixel.
    assert not shown.visits[:8].any()
    assert not shown.visits[:, :8].any()
    # Pixels along a turned grid can be carried twice or not at all, so samples are counted to a percent.
    assert shown.visits.sum() == pytest.approx(4 * 250 * 250, rel=0.01)
    np.testing.assert_allclose(shown.map, -shown.visits / 4)
