"""The disk statistic of maps, and what it says of them."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_model import FakeModel

from radlens.explainers import upsample
from radlens.explainers.omig import omig
from radlens.families.cdmam.cells import distance_from_line
from radlens.families.cdmam.disk_statistics import (
    DiskContrast,
    DiskStatistic,
    counter_test,
    disk_statistic,
    map_statement,
)
from radlens.families.cdmam.replacement import disk_free_twin, replacement
from radlens.phantoms import cdmam

RNG = np.random.default_rng(0)


def disk_layer(grid):
    """Disks of scenario 1 on a grid, (h, w), 0..1."""
    height, width = grid.image_shape
    layers = cdmam.layers_at(cdmam.SCENARIOS["1"], grid, np.arange(height)[:, None], np.arange(width)[None, :])
    return layers.disks


def noise(grid):
    """White noise on a grid."""
    return RNG.standard_normal(grid.image_shape)


class Templates(FakeModel):
    """A model whose gradient is negative on places of large disks: where they are bright, or always."""

    def __init__(self, grid, *, reads):
        found = replacement(grid)
        mask = np.zeros(grid.image_shape[0] * grid.image_shape[1], bool)
        mask[found.pixels[found.cells < 64]] = True
        edges = [np.arange(251) * size // 250 for size in grid.image_shape]
        rows, cols = ((each[1:] + each[:-1]) // 2 for each in edges)
        self._mask = torch.from_numpy(mask.reshape(grid.image_shape)[rows[:, None], cols])
        self._reads = reads

    def gradient(self, images):
        """Minus what stands out of the noise on disks, or minus 1 in their places; and noise of other pixels."""
        found = 2 * (images - 0.5).clamp(min=0) if self._reads else torch.ones_like(images)
        return 1.5 * images.roll((97, 53), dims=(2, 3)).clamp(-1, 1) - found * self._mask


def test_a_map_of_the_disks_marks_them(phantom, true_um):
    """Disks are redder than their rings, thick ones of all sizes; empty corners are not."""
    visits = np.ones(phantom.grid.image_shape, np.int32)
    found = disk_statistic(disk_layer(phantom.grid) + 0.02 * noise(phantom.grid), visits, phantom.grid, true_um)
    assert found.large.redder == found.large.red == found.middle.redder == 1
    assert found.large.t > 8
    assert found.large.disk > 5 * abs(found.large.ring)
    assert abs(found.empty.t) < 4
    assert found.empty.redder == pytest.approx(0.5, abs=0.2)


def test_a_map_of_noise_marks_nothing(phantom, true_um):
    """Its t is that of chance, its disks are as often redder as not."""
    visits = np.ones(phantom.grid.image_shape, np.int32)
    found = disk_statistic(noise(phantom.grid), visits, phantom.grid, true_um)
    for group in (found.large, found.middle, found.small, found.empty):
        # 4 standard deviations of a t value, and of a share of 40 or more disks.
        assert abs(group.t) < 4
        assert group.redder == pytest.approx(0.5, abs=4 * 0.5 / math.sqrt(group.n))


def test_a_slow_gradient_is_no_disk(phantom, true_um):
    """What disk and ring have in common cancels."""
    rows = np.arange(phantom.grid.image_shape[0])[:, None] + np.zeros(phantom.grid.image_shape[1])
    visits = np.ones(phantom.grid.image_shape, np.int32)
    found = disk_statistic(10 + rows + noise(phantom.grid), visits, phantom.grid, true_um)
    assert found.large.red == 1
    assert abs(found.large.t) < 4


def test_groups_are_those_of_the_line(phantom, true_um):
    """Two disks of each cell of at least twice the threshold, and three empty corners of the large ones."""
    visits = np.ones(phantom.grid.image_shape, np.int32)
    found = disk_statistic(noise(phantom.grid), visits, phantom.grid, true_um)
    diameters = np.array(cdmam.DIAMETERS_MM)[:, None]
    thick = distance_from_line(true_um) >= math.log(2)
    assert found.large.n == 2 * np.count_nonzero(thick & (diameters >= 1))
    assert found.middle.n == 2 * np.count_nonzero(thick & (diameters < 1) & (diameters > 0.4))
    assert found.empty.n == 3 * np.count_nonzero(thick & (diameters >= 1))
    higher = disk_statistic(noise(phantom.grid), visits, phantom.grid, 3 * true_um)
    assert higher.large.n < found.large.n


def test_visits_weigh_values(phantom, true_um):
    """The value of a place is its sum over the number of its visits; a place without visits is left out."""
    visits = RNG.integers(0, 3, phantom.grid.image_shape)
    found = disk_statistic(2.5 * visits, visits, phantom.grid, true_um)
    assert found.large.disk == pytest.approx(2.5)
    assert found.large.ring == pytest.approx(2.5)
    none = disk_statistic(0.0 * visits, 0 * visits, phantom.grid, true_um)
    assert none.large.n == 0
    assert math.isnan(none.large.t)
    assert json.loads(json.dumps(none.as_json(), allow_nan=False))["large"]["t"] is None


def statistic(t):
    """A statistic whose large disks have this t."""
    group = DiskContrast(n=52, disk=1.0, ring=0.1, t=t, redder=0.98, red=1.0)
    return DiskStatistic(group, group, group, group)


@pytest.mark.parametrize(
    ("own", "twin", "reliability", "finding", "words"),
    [
        (12.0, 3.0, 0.9, "marks disks", "98% of the large thick ones are red against their surroundings"),
        (12.0, 5.0, 0.9, "marks disks in part", "with the disks removed 5.0"),
        (12.0, 9.0, 0.9, "empty", "it shows where the model would look, with or without disks"),
        (7.9, 0.0, 0.9, "empty", "does not mark the disks of this image"),
        (math.nan, math.nan, 0.9, "empty", "does not mark the disks of this image"),
        (12.0, 3.0, 0.4, "not reliable", "its reliability is 0.40, it must be at least 0.5"),
        (12.0, 3.0, math.nan, "not reliable", "its reliability is not known"),
    ],
)
def test_a_map_is_called_what_it_is(own, twin, reliability, finding, words):
    """The numbers decide, and the sentence states them; only a map that marks disks is shown."""
    found = map_statement(statistic(own), statistic(twin), reliability)
    assert found.finding == finding
    assert words in found.sentence
    assert found.marks_disks == finding.startswith("marks")


@pytest.fixture(scope="module")
def read(phantom, true_um):
    """The counter-test of a model that reads disks."""
    model = Templates(phantom.grid, reads=True)
    return counter_test(model, phantom, true_um, n_samples=16, n_steps=2)


def test_the_map_of_a_model_that_reads_disks_passes(read):
    """Its t falls below a third without disks."""
    assert read.statistic.large.t > 8
    assert abs(read.twin_statistic.large.t) < read.statistic.large.t / 3
    assert read.statement.finding == "marks disks"


def test_the_map_of_a_model_that_only_looks_there_is_empty(phantom, true_um):
    """It is as red without disks, so the picture is replaced by a sentence."""
    found = counter_test(Templates(phantom.grid, reads=False), phantom, true_um, n_samples=16, n_steps=2)
    assert found.statistic.large.t > 8
    assert found.statement.finding == "empty"
    assert "with or without disks" in found.statement.sentence


def test_the_map_of_a_phantom_without_disks_is_empty(empty_phantom, true_um):
    """A model that reads disks has nothing to mark there."""
    found = counter_test(Templates(empty_phantom.grid, reads=True), empty_phantom, true_um, n_samples=16, n_steps=2)
    assert found.statement.finding == "empty"


def test_both_maps_are_upsampled_omig(read, phantom):
    """The same samples of the image and of its twin."""
    model = Templates(phantom.grid, reads=True)
    with torch.no_grad():
        for values, found in ((phantom.values, read.map), (disk_free_twin(phantom).values, read.twin)):
            expected = upsample(values, lambda x: omig(model.gradient, x, n_steps=2), n_samples=16)
            np.testing.assert_array_equal(found.map, expected.map)
            np.testing.assert_array_equal(found.visits, expected.visits)


def test_progress_covers_both_maps(phantom, true_um):
    """It counts the samples of both, up to their number."""
    seen = []
    model = Templates(phantom.grid, reads=True)
    report = lambda done, total: seen.append((done, total))  # noqa: E731
    counter_test(model, phantom, true_um, n_samples=8, n_steps=1, batch_size=4, on_progress=report)
    assert seen == [(4, 16), (8, 16), (12, 16), (16, 16)]


def test_json_states_both_statistics(read):
    """With the finding and its sentence."""
    listed = json.loads(json.dumps(read.as_json(), allow_nan=False))
    assert listed["disks"]["large"]["t"] == pytest.approx(read.statistic.large.t)
    assert listed["twin"]["large"]["t"] == pytest.approx(read.twin_statistic.large.t)
    assert listed["finding"] == "marks disks"
    assert listed["marks_disks"] is True
    assert listed["reliability"] == pytest.approx(read.map.reliability)
    unknown = replace(read, map=replace(read.map, halves=None)).as_json()
    assert unknown["reliability"] is None
    assert unknown["marks_disks"] is False
