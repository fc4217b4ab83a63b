"""The estimate of a map's reliability, held against synthetic maps whose reliability is known."""

import itertools
import math
import zlib
from dataclasses import replace

import numpy as np
import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers import Goal, Halves, merge, samples_for, spearman_brown, upsample

SHAPE = (400, 440)
RNG = np.random.default_rng(0)


def pixels_of(image_shape, share=1.0):
    """Return flat indices of a random part of an image."""
    n = image_shape[0] * image_shape[1]
    return RNG.permutation(n)[: int(share * n)]


def noisy_halves(n_samples, noise, scale_px=8, shape=SHAPE, seed=0):
    """Add samples of all pixels: a fixed signal per bin of variance 1, and white noise per pixel; return the signal."""
    rng = np.random.default_rng(seed)
    halves = Halves.empty(shape, scale_px)
    signal = np.kron(rng.normal(size=(shape[0] // scale_px, shape[1] // scale_px)), np.ones((scale_px, scale_px)))
    pixels = np.arange(signal.size)
    for number in range(n_samples):
        halves.add(number, pixels, signal.ravel() + noise * rng.normal(size=signal.size))
    return halves, signal


@pytest.mark.parametrize(("n_samples", "noise"), [(4, 2.0), (4, 10.0), (20, 10.0), (21, 30.0)])
def test_signal_and_white_noise_have_the_reliability_of_theory(n_samples, noise):
    """V / (V + noise**2 / visits of a bin) for a signal of variance V.

    With 2750 bins the standard error of a correlation is below 0.02; it is the only difference there is.
    """
    halves, signal = noisy_halves(n_samples, noise)
    expected = signal.var() / (signal.var() + noise**2 / (64 * n_samples))
    assert halves.reliability() == pytest.approx(expected, abs=0.04)


def test_the_estimate_is_unbiased():
    """Its mean over 40 runs is that of theory to within the standard error of that mean, 0.003."""
    found, expected = [], []
    for seed in range(40):
        halves, signal = noisy_halves(4, 12.0, seed=seed, shape=(320, 320))
        found.append(halves.reliability())
        expected.append(signal.var() / (signal.var() + 12.0**2 / 256))
    assert np.mean(found) == pytest.approx(np.mean(expected), abs=0.01)


def test_it_is_the_correlation_with_other_samples_and_the_square_of_that_with_the_truth():
    """What a reader may take it for; 2750 bins leave a standard error below 0.02."""
    first, signal = noisy_halves(10, 20.0)
    truth = signal[::8, ::8].ravel()
    second, rng = Halves.empty(SHAPE), np.random.default_rng(5)
    for number in range(10):
        second.add(number, np.arange(signal.size), signal.ravel() + 20.0 * rng.normal(size=signal.size))
    maps = [each.totals.sum(axis=0).ravel() for each in (first, second)]
    assert first.reliability() == pytest.approx(np.corrcoef(*maps)[0, 1], abs=0.05)
    assert first.reliability() == pytest.approx(np.corrcoef(maps[0], truth)[0, 1] ** 2, abs=0.05)


def test_pure_noise_is_not_reliable():
    """Two halves without a common signal correlate by chance alone; below zero the reliability is 0."""
    for seed in range(4):
        halves = Halves.empty(SHAPE)
        rng = np.random.default_rng(seed)
        for number in range(6):
            halves.add(number, np.arange(SHAPE[0] * SHAPE[1]), rng.normal(size=SHAPE[0] * SHAPE[1]))
        # Four standard errors of a correlation of 2750 bins, doubled by the correction.
        assert 0 <= halves.reliability() < 0.16


def test_opposite_halves_have_no_reliability():
    """A negative correlation is 0, whatever its size."""
    halves, pixels = Halves.empty(SHAPE), np.arange(SHAPE[0] * SHAPE[1])
    values = RNG.normal(size=pixels.size)
    halves.add(0, pixels, values)
    halves.add(1, pixels, -values)
    assert halves.correlation() == pytest.approx(-1)
    assert halves.reliability() == 0.0


def test_equal_samples_are_perfectly_reliable():
    """Nothing is left to chance."""
    halves, pixels = Halves.empty(SHAPE), np.arange(SHAPE[0] * SHAPE[1])
    values = RNG.normal(size=pixels.size)
    for number in range(3):
        halves.add(number, pixels, values)
    assert halves.reliability() == pytest.approx(1.0)


@pytest.mark.parametrize("value", [0.0, 0.1, -1e9])
def test_constant_maps_have_no_reliability(value):
    """Without variance there is no correlation, whatever sums are rounded to."""
    halves = Halves.empty(SHAPE)
    for number in range(7):
        pixels = pixels_of(SHAPE, 0.7)
        halves.add(number, pixels, np.full(pixels.size, value))
    assert math.isnan(halves.reliability())


def test_one_half_says_nothing():
    """No samples, one sample, or samples of one parity alone."""
    halves, pixels = Halves.empty(SHAPE), np.arange(SHAPE[0] * SHAPE[1])
    assert math.isnan(halves.reliability())
    for number in (0, 2):
        halves.add(number, pixels, RNG.normal(size=pixels.size))
        assert math.isnan(halves.reliability())


def test_a_map_that_is_mostly_unvisited_says_nothing():
    """With fewer than half of the bins in both halves the reliability is unknown, with more it is of those bins."""
    values = RNG.normal(size=SHAPE).ravel()
    halves = Halves.empty(SHAPE, scale_px=1)
    few, many = np.arange(values.size)[: values.size // 3], np.arange(values.size)[: values.size * 2 // 3]
    for pixels, is_known in ((few, False), (many, True)):
        for number in range(2):
            halves.add(number, pixels, values[pixels])
        assert math.isfinite(halves.reliability()) is is_known


@pytest.mark.parametrize("scale_px", [1, 3, 8, 200])
def test_bins_hold_what_their_pixels_got(scale_px):
    """Sums and visits of bins that cut the image evenly, against a loop over bins."""
    halves, pixels = Halves.empty((405, 431), scale_px), pixels_of((405, 431), 0.4)
    values = RNG.normal(size=pixels.size)
    halves.add(1, pixels, values)
    full, visits = np.zeros(405 * 431), np.zeros(405 * 431, dtype=int)
    full[pixels], visits[pixels] = values, 1
    edges = [np.linspace(0, n, round(n / scale_px) + 1).astype(int) for n in (405, 431)]
    for whole, found in ((full, halves.totals), (visits, halves.visits)):
        summed = np.add.reduceat(whole.reshape(405, 431), edges[0][:-1], axis=0)
        summed = np.add.reduceat(summed, edges[1][:-1], axis=1)
        # Sums of up to 40 000 values in another order.
        np.testing.assert_allclose(found[1], summed, rtol=0, atol=1e-10)
        assert not found[0].any()


def test_ranges_merge_into_the_whole():
    """Halves of ranges joined are the halves of all samples (float64, rounding only)."""
    whole, parts = Halves.empty(SHAPE), [Halves.empty(SHAPE) for _ in range(3)]
    for number in range(9):
        pixels = pixels_of(SHAPE, 0.2)
        values = RNG.normal(size=pixels.size)
        whole.add(number, pixels, values)
        parts[number // 4].add(number, pixels, values)
    joined = Halves.merged(parts)
    np.testing.assert_allclose(joined.totals, whole.totals, rtol=0, atol=1e-12)
    np.testing.assert_array_equal(joined.visits, whole.visits)


def test_a_copy_stays_as_it_is():
    """What is added later does not reach it."""
    halves = Halves.empty(SHAPE)
    before = halves.copy()
    halves.add(0, np.arange(9), np.ones(9))
    assert halves.visits.sum() == 9
    assert before.visits.sum() == 0


def test_bad_input_is_refused():
    """Each refusal says what was expected and what came."""
    with pytest.raises(InvalidParameter, match="scale_px must be from 1 to 200 for this image, got 201"):
        Halves.empty(SHAPE, 201)
    with pytest.raises(InvalidParameter, match="scale_px must be from 1 to 200 for this image, got 0"):
        Halves.empty(SHAPE, 0)
    with pytest.raises(InvalidInput, match="one image at one scale, got 2 different kinds"):
        Halves.merged([Halves.empty(SHAPE, 8), Halves.empty(SHAPE, 9)])
    with pytest.raises(InvalidInput, match="one image at one scale, got 0 different kinds"):
        Halves.merged([])


@pytest.mark.parametrize(
    ("correlation", "factor", "expected"), [(0.5, 2, 2 / 3), (1.0, 2, 1.0), (0.2, 10, 2 / 2.8), (0.0, 2, 0.0)]
)
def test_spearman_browns_formula(correlation, factor, expected):
    """For k times the length: k r / (1 + (k - 1) r)."""
    assert spearman_brown(correlation, factor) == pytest.approx(expected)


@pytest.mark.parametrize(("reliability", "n_samples", "wanted"), [(0.3, 40, 0.95), (0.99, 500, 0.9), (0.5, 7, 0.5)])
def test_samples_for_is_its_inverse(reliability, n_samples, wanted):
    """As many samples as it names have the reliability that was wanted."""
    needed = samples_for(wanted, reliability, n_samples)
    assert spearman_brown(reliability, needed / n_samples) == pytest.approx(wanted)


def test_what_is_unknown_stays_unknown():
    """No reliability needs infinitely many samples; NaN needs nobody knows how many."""
    assert samples_for(0.9, 0.0, 10) == math.inf
    assert math.isnan(samples_for(0.9, math.nan, 10))
    assert math.isnan(spearman_brown(math.nan))


def test_looks_grow_with_the_run():
    """Every 16 samples first, later at most a tenth apart, never after the end, from wherever one starts."""
    goal, looks = Goal(max_samples=5000), []
    while not looks or looks[-1] < 5000:
        looks.append(goal.next_look(looks[-1] if looks else 0))
    assert looks[:4] == [16, 32, 48, 64]
    assert all(look % 16 == 0 for look in looks[:-1])
    assert max(b / a for a, b in itertools.pairwise(looks[10:])) <= 1.1
    assert len(looks) < 60
    assert goal.next_look(looks[30] - 1) == looks[30]


def test_a_goal_is_reached_twice_in_a_row():
    """One look may be lucky, and a few samples prove nothing."""
    goal = Goal(0.9, min_samples=64)
    assert goal.is_reached([(48, 0.91), (64, 0.9)])
    assert not goal.is_reached([(48, 0.8), (64, 0.95)])
    assert not goal.is_reached([(32, 0.99), (48, 0.99)])
    assert not goal.is_reached([(64, 0.99)])
    assert not goal.is_reached([(64, 0.99), (80, math.nan)])
    assert not goal.is_reached([])


def test_the_end_is_extrapolated():
    """From the reliability so far, within the limits of the run; None as long as nothing is known."""
    goal = Goal(0.95, min_samples=64, max_samples=1000)
    assert goal.expected_samples(100, 0.8) == 475
    assert goal.expected_samples(100, 0.1) == 1000
    assert goal.expected_samples(16, 0.0) == 1000
    assert goal.expected_samples(16, 0.999) == 64
    assert goal.expected_samples(160, 0.96) == 176
    assert goal.expected_samples(16, math.nan) is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"reliability": 0.0}, r"reliability must be above 0 and below 1, got 0\.0"),
        ({"reliability": 1.0}, r"reliability must be above 0 and below 1, got 1\.0"),
        ({"reliability": math.nan}, "reliability must be above 0 and below 1, got nan"),
        ({"min_samples": 1}, "min_samples must be at least 2 .* got min_samples 1"),
        ({"min_samples": 9, "max_samples": 8}, "min_samples 9 and max_samples 8"),
    ],
)
def test_goals_that_cannot_be_are_refused(parameters, message):
    """Each refusal says what was expected and what came."""
    with pytest.raises(InvalidParameter, match=message):
        Goal(**parameters)


IMAGE = np.kron(np.random.default_rng(1).normal(size=(50, 60)), np.ones((8, 8))) + 1e-6 * RNG.normal(size=(400, 480))


def explain(noise):
    """Return an explainer whose maps are the image and white noise that depends on the sample alone."""

    def explained(images):
        seeds = [zlib.crc32(image.numpy().tobytes()) for image in images]
        drawn = [np.random.default_rng(seed).normal(size=(1, 250, 250)) for seed in seeds]
        return images + noise * torch.from_numpy(np.stack(drawn))

    return explained


def test_runs_of_a_fixed_length_know_their_reliability():
    """It is that of their halves; of one sample it is unknown."""
    found = upsample(IMAGE, explain(3.0), n_samples=20)
    assert found.reliability == found.halves.reliability()
    # Each bin of 64 pixels has about 20.8 visits a sample.
    expected = IMAGE.var() / (IMAGE.var() + 9 / (20 * 62500 / 3000))
    assert found.reliability == pytest.approx(expected, abs=0.02)
    assert math.isnan(upsample(IMAGE, explain(3.0), n_samples=1).reliability)
    assert (found.goal, found.is_reached) == (None, None)
    heard = []
    told = upsample(IMAGE, explain(3.0), n_samples=20, on_progress=lambda *args: heard.append(args[2].reliability))
    assert [math.isnan(each) for each in heard] == [True, False, False]
    assert heard[-1] == told.reliability


@pytest.mark.parametrize("batch_size", [5, 16, 40])
def test_automatic_runs_end_at_the_wanted_reliability(batch_size):
    """At a look that does not depend on the batches, with the map of a run of that length; not long after it was due.

    Theory: 0.8 takes 4 * 20**2 / 20.8 = 77 samples for a signal of variance 1; two looks in a row add 16, luck as much.
    """
    found = upsample(IMAGE, explain(20.0), n_samples="auto", reliability=0.8, batch_size=batch_size)
    assert found.is_reached
    assert found.reliability >= 0.8
    assert found.goal == Goal(0.8)
    assert found.n_samples in (80, 96, 112)
    fixed = upsample(IMAGE, explain(20.0), n_samples=found.n_samples)
    np.testing.assert_array_equal(found.map, fixed.map)
    assert found.reliability == fixed.reliability


@pytest.mark.parametrize(("sampler", "is_exact"), [("jitter", True), ("stratified", False)])
def test_stratified_samples_are_told_to_be_less_reliable_than_they_are(sampler, is_exact):
    """Maps that differ from pixel to pixel: halves of stratified samples hold different pixels, those of jitter any."""
    image = IMAGE + 8.0 * np.random.default_rng(2).normal(size=IMAGE.shape)
    first, second = (upsample(image, lambda x: x, n_samples=3, sampler=sampler, seed=seed) for seed in (0, 1))
    maps = [(m.halves.totals.sum(axis=0) / m.halves.visits.sum(axis=0)).ravel() for m in (first, second)]
    agreement = np.corrcoef(*maps)[0, 1]
    if is_exact:
        # The samples of two runs share pixels as those of two halves do; a standard error of 0.02 for 3000 bins.
        assert first.reliability == pytest.approx(agreement, abs=0.1)
    else:
        assert first.reliability < agreement - 0.1


def test_automatic_runs_end_at_their_limit():
    """They say that the reliability was not reached."""
    found = upsample(IMAGE, explain(200.0), n_samples="auto", max_samples=70, min_samples=20)
    assert (found.n_samples, found.is_reached) == (70, False)
    assert found.reliability < 0.95


def test_automatic_runs_take_as_many_samples_as_they_must():
    """However reliable the first ones are."""
    found = upsample(IMAGE, explain(0.0), n_samples="auto", min_samples=40)
    assert (found.n_samples, found.is_reached) == (48, True)


def test_progress_says_what_to_expect():
    """Nothing before the first look, then what the reliability lets expect; the last one is where it ended."""
    heard = []
    found = upsample(
        IMAGE,
        explain(20.0),
        n_samples="auto",
        reliability=0.8,
        on_progress=lambda done, total, partial: heard.append((done, total, partial.reliability)),
    )
    assert heard[0][:2] == (8, None)
    assert math.isnan(heard[0][2])
    at_16 = next(entry for entry in heard if entry[0] == 16)
    assert at_16[1] == Goal(0.8).expected_samples(16, at_16[2])
    assert heard[-1][0] == found.n_samples
    assert heard[-1][2] == found.reliability


def test_merged_ranges_have_the_reliability_of_the_whole():
    """Halves go by the numbers of samples, so where a run is cut does not matter; unknown parts make it unknown."""
    whole = upsample(IMAGE, explain(3.0), n_samples=9)
    parts = [upsample(IMAGE, explain(3.0), n_samples=n, start=s) for s, n in ((0, 3), (3, 5), (8, 1))]
    assert merge(parts).reliability == pytest.approx(whole.reliability, abs=1e-12)
    assert math.isnan(merge([parts[0], replace(parts[1], halves=None)]).reliability)


def test_words_that_are_no_number_are_refused():
    """``auto`` is the only one."""
    with pytest.raises(InvalidParameter, match="n_samples must be an integer or 'auto', got 'all'"):
        upsample(IMAGE, explain(0.0), n_samples="all")
