"""Disk ablation: its truth is known, since a disk that cannot be seen cannot matter."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from radlens.errors import InvalidParameter
from radlens.families.cdmam import PhantomReader
from radlens.families.cdmam.ablation import ablate
from radlens.families.cdmam.calibration import calibrate
from radlens.families.cdmam.cells import distance_from_line
from radlens.families.cdmam.replacement import replacement
from radlens.images.sampling import flat_indices
from radlens.networks.cdmam import CdcPrediction
from radlens.phantoms.cdmam import CELL_EXISTS, DIAMETERS_MM
from radlens.phantoms.cdmam.geometry import CORNER_OFFSETS, TRUE_CORNER, cell_to_phantom

N_SAMPLES = 6
STEP = 0.03
"""By how much the logarithm of the oracle's curve falls with each visible cell."""


def prediction(mean):
    """Curves (b, 12) without uncertainty."""
    return CdcPrediction(mean, torch.zeros_like(mean), torch.zeros_like(mean), torch.zeros_like(mean))


class Oracle:
    """A model that is right: matched filters over both disks of each cell tell whether it is visible."""

    def __init__(self, phantom, curve_um):
        on_disks = templates(phantom.grid)
        self._noise = phantom.noise.white
        self._pixels = on_disks.any(dim=0).nonzero()[:, 0]
        self._templates = on_disks[:, self._pixels]
        self._curve = torch.from_numpy(curve_um).float()
        self.n_evaluations = 0

    def visible(self, images):
        """Which cells (b, 205) are visible: their mean is 4 standard errors of noise above 0."""
        values = torch.sinh(images.reshape(len(images), -1)[:, self._pixels]).clamp(max=8)
        counts = self._templates.sum(dim=1)
        return (values @ self._templates.T / counts > 4 * self._noise / counts.sqrt()) & (counts > 0)

    def predict(self, images):
        """Lower the curve by one step for each visible cell."""
        self.n_evaluations += len(images)
        fall = STEP * self.visible(images).sum(dim=1, keepdim=True)
        return prediction(self._curve * torch.exp(1 - fall))


class Blind:
    """A model that looks at the corner of the image, where no disk is: its answer has nothing to do with disks."""

    def predict(self, images):
        """Scale a curve by the corner's strength."""
        strength = images[:, 0, :40, :40].mean(dim=(1, 2))
        return prediction(0.4 * torch.exp(strength)[:, None].expand(-1, 12))


def templates(grid):
    """Which pixels of a sample lie on the disks of each cell, (205, 62500): the middle of their block does."""
    edges = [np.arange(251) * size // 250 for size in grid.image_shape]
    rows, cols = ((each[1:] + each[:-1] - 1) / 2 for each in edges)
    x, y = grid.to_phantom(rows[:, None], cols[None, :])
    found = []
    for r, c in np.argwhere(CELL_EXISTS):
        offset = CORNER_OFFSETS[TRUE_CORNER[r, c]]
        on_disk = np.zeros(x.shape, bool)
        for a, b in ((r + 0.5, c + 0.5), (r + 0.5 + offset[0], c + 0.5 + offset[1])):
            centre = cell_to_phantom(a, b)
            on_disk |= np.hypot(x - centre[0], y - centre[1]) < DIAMETERS_MM[r] / 2
        found.append(on_disk.reshape(-1))
    return torch.from_numpy(np.array(found)).float()


@pytest.fixture(scope="module")
def oracle(phantom, true_um):
    """An oracle whose curve is about the true one."""
    model = Oracle(phantom, true_um)
    sample = phantom.values.reshape(-1)[flat_indices(phantom.values.shape, seed=0, index=0)]
    visible = model.visible(torch.from_numpy(sample)[None, None])
    return Oracle(phantom, true_um * np.exp(STEP * int(visible.sum()) - 1))


@pytest.fixture(scope="module")
def found(oracle, phantom):
    """The ablation of an oracle."""
    return ablate(PhantomReader(oracle), phantom, n_samples=N_SAMPLES)


def test_disks_above_the_line_matter_and_disks_below_do_not(found):
    """The oracle loses exactly one step with each thick disk that its samples hold, and nothing with thin ones."""
    distance = distance_from_line(found.curve.mean)
    large = np.array(DIAMETERS_MM)[:, None] >= 1.25
    thick, thin = large & (distance > np.log(2.5)), large & (distance < -np.log(2))
    # Single precision of the oracle's curve.
    np.testing.assert_allclose(found.effect[thick], STEP, rtol=1e-4)
    assert found.significant[thick].all()
    # Noise beyond 4 standard deviations makes a thin disk visible now and then.
    assert np.abs(found.effect[thin]).max() < STEP / 4
    assert not found.significant[thin].any()
    assert found.above.t > 10
    assert found.contrast.t > 10
    assert abs(found.below.effect) < STEP / 20
    assert "Disks above the line carried this prediction, disks below it did not." in found.statement()


def test_the_effect_grows_with_the_distance_from_the_line(found):
    """Far below it is 0, far above it is larger."""
    groups = [group for _, _, group in found.by_distance((-np.inf, -1.0, 1.0, np.inf))]
    assert sum(group.n_cells for group in groups) == 205
    assert abs(groups[0].effect) < STEP / 20
    assert groups[2].effect > groups[1].effect > groups[0].effect


def test_diameters_that_samples_miss_are_told(found):
    """The oracle has hardly a pixel on disks of 0.2 mm: the statement names the diameters that count, and not these."""
    groups = dict(found.by_diameter())
    assert groups[2.0].t > 10
    assert groups[0.2].n_cells > 0
    assert groups[0.2].effect == 0
    named = found.statement().split("at these diameters: ")[1]
    assert "2.00" in named
    assert "0.20" not in named


def test_a_model_that_ignores_disks_has_no_effect_at_all(phantom):
    """All 205 effects are exactly 0, none is significant, and the statement says so."""
    found = ablate(PhantomReader(Blind()), phantom, n_samples=3)
    np.testing.assert_array_equal(found.effect[CELL_EXISTS], 0)
    np.testing.assert_array_equal(found.noise[CELL_EXISTS], 0)
    np.testing.assert_array_equal(found.point_effect[3:15][CELL_EXISTS[3:15]], 0)
    assert not found.significant.any()
    assert found.above.t == 0
    assert "The disks that should be visible did not carry this prediction." in found.statement()


def test_a_phantom_without_disks_has_no_effects(oracle, empty_phantom):
    """What the oracle sees there is noise: no cell is significant."""
    found = ablate(PhantomReader(oracle), empty_phantom, n_samples=N_SAMPLES)
    assert not found.significant.any()
    assert abs(found.above.effect) < STEP / 20


def test_effects_are_those_of_single_ablations(oracle, phantom, found):
    """Batches change nothing: one cell, replaced by hand in the whole image and read again, has the same effect."""
    reader = PhantomReader(oracle, n_samples=N_SAMPLES)
    cell = (1, 10)
    rises = []
    for turn in (0, 1):
        every = replacement(phantom.grid, turn)
        own = every.cells == 16 * cell[0] + cell[1]
        values = phantom.values.reshape(-1).copy()
        values[every.pixels[own]] = values[every.donors[own]]
        without = reader.read_values(values.reshape(phantom.values.shape))
        rises.append(np.log(without.midpoint / found.curve.midpoint))
    assert found.effect[cell] == pytest.approx(np.mean(rises), rel=1e-6)
    assert found.noise[cell] == pytest.approx(rises[0] - rises[1], abs=1e-9)
    assert found.curve.midpoint == pytest.approx(reader.read(phantom).midpoint)


def test_the_point_of_a_diameter_is_told_apart(phantom):
    """A model that moves one point alone has a point effect there, and a twelfth of it in the midpoint."""

    class OnePoint(Oracle):
        def predict(self, images):
            curve = self._curve.repeat(len(images), 1)
            curve[:, 0] *= torch.exp(-STEP * self.visible(images)[:, 50:60].sum(dim=1))
            return prediction(curve)

    found = ablate(PhantomReader(OnePoint(phantom, np.ones(12))), phantom, n_samples=3)
    moved = np.nonzero(np.nan_to_num(found.point_effect))
    assert set(moved[0]) <= {3}
    assert np.isnan(found.point_effect[[0, 1, 2, 15]]).all()
    share = found.effect[moved] / found.point_effect[moved]
    assert np.all(share < 1 / 12)


def test_noise_that_samples_share_widens_the_errors(phantom):
    """Where two noises differ more than samples tell, the standard errors grow."""
    on_disks = templates(phantom.grid).any(dim=0)

    class Summing:
        def predict(self, images):
            total = images.reshape(len(images), -1)[:, on_disks].clamp(-3, 3).sum(dim=1)
            return prediction(0.4 * torch.exp(-1e-3 * total)[:, None].expand(-1, 12))

    few, many = (ablate(PhantomReader(Summing()), phantom, n_samples=n) for n in (3, 12))
    assert few.widening >= 1
    assert many.widening > 1.2
    # The noise of this image at 0.15 mm is correlated over some 3 pixels and 12 samples take every second pixel.
    spread = many.samples.std(axis=0, ddof=1)
    hit = spread > 0
    np.testing.assert_allclose(many.error[hit], many.widening * spread[hit] / np.sqrt(12))


def test_progress_ends_at_the_number_of_evaluations(phantom, true_um):
    """Evaluations of the model are counted, those of the unchanged samples as well."""
    model, seen = Oracle(phantom, true_um), []
    ablate(PhantomReader(model), phantom, n_samples=3, on_progress=lambda done, total: seen.append((done, total)))
    assert seen == sorted(seen)
    assert seen[-1] == (model.n_evaluations, model.n_evaluations) == (3 * 411, 3 * 411)


def test_calibrated_offsets_are_taken_off(phantom):
    """Effects are those of the curve that the reader states: a point that is corrected upwards weighs more."""

    class OnePoint(Oracle):
        def predict(self, images):
            curve = self._curve.repeat(len(images), 1)
            curve[:, 0] *= torch.exp(-STEP * self.visible(images).sum(dim=1))
            return prediction(curve)

    model = OnePoint(phantom, np.ones(12))
    rng = np.random.default_rng(0)
    true = rng.uniform(0.9, 1.1, (8, 1)) * np.ones(12)
    predicted = true[:, None] * np.exp(rng.normal(0, 1e-3, (8, 2, 12)))
    predicted[..., 0] /= 4
    blur = np.full((*predicted.shape[:2], 2), [0.1, 0.002])
    calibration = calibrate(predicted, np.full(predicted.shape, 0.01), true, blur, n_samples=3)
    plain, calibrated = (ablate(PhantomReader(model, each), phantom, n_samples=3) for each in (None, calibration))
    moved = plain.effect > STEP / 100
    assert calibrated.curve.mean[0] == pytest.approx(4 * plain.curve.mean[0], rel=0.05)
    assert np.all(calibrated.effect[moved] > 2 * plain.effect[moved])
    np.testing.assert_allclose(calibrated.point_effect, plain.point_effect, atol=1e-9)


def test_cells_that_the_image_does_not_show_are_not_known(oracle, phantom):
    """Their effect is nan, they belong to no group, and JSON has null."""
    source = phantom.source.copy()
    source[:, : source.shape[1] // 2] = -1
    part = ablate(PhantomReader(oracle), replace(phantom, source=source), n_samples=3)
    known = np.isfinite(part.effect)
    assert 60 < np.count_nonzero(known) < 140
    assert sum(group.n_cells for _, group in part.by_diameter()) < 100
    listed = part.as_json()
    r, c = np.argwhere(CELL_EXISTS & ~known)[0]
    assert listed["effect"][r][c] is None
    assert listed["significant"][r][c] is False


def test_json_has_no_nan(found):
    """Every number is finite or null, and the groups are those of the object."""
    listed = json.loads(json.dumps(found.as_json(), allow_nan=False))
    assert listed["above"]["n_cells"] == found.above.n_cells
    assert listed["n_samples"] == N_SAMPLES
    assert np.shape(listed["effect"]) == (16, 16)


def test_a_standard_error_needs_three_samples(oracle, phantom):
    """Fewer are refused."""
    with pytest.raises(InvalidParameter, match="n_samples must be at least 3, got 2"):
        ablate(PhantomReader(oracle), phantom, n_samples=2)
