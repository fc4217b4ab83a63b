import numpy as np
import pytest
import torch

from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers import merge, upsample
from radlens.images.sampling import SAMPLERS, sample_indices

IMAGE = np.random.default_rng(0).normal(size=(401, 530))


def explain(images):
    """A map that depends on the whole image, in the dtype of the image."""
    return images**2 - images.mean(dim=(1, 2, 3), keepdim=True)


def slow_upsample(image, n_samples, sampler, seed, *, by_visits):
    """Algorithm 2 in float64, one sample and one pixel at a time where it matters."""
    total, visits = np.zeros(image.shape), np.zeros(image.shape)
    for n in range(n_samples):
        rows, cols = sample_indices(image.shape, sampler, seed=seed, index=n)
        x = image[rows, cols]
        values = x**2 - x.mean()
        delta = np.zeros(image.shape)
        delta[rows, cols] = values
        total += delta if by_visits else delta / n_samples
        visits[rows, cols] += 1
    return np.divide(total, visits, out=np.zeros_like(total), where=visits > 0) if by_visits else total


@pytest.mark.parametrize("sampler", SAMPLERS)
@pytest.mark.parametrize("normalize", ["paper", "visits"])
def test_equals_algorithm_2_written_out(sampler, normalize):
    """Both normalisations of every sampler equal the slow algorithm (float64, rounding only)."""
    found = upsample(IMAGE, explain, n_samples=5, sampler=sampler, seed=4, batch_size=2, normalize=normalize)
    expected = slow_upsample(IMAGE, 5, sampler, 4, by_visits=normalize == "visits")
    np.testing.assert_allclose(found.map, expected, rtol=0, atol=1e-13)
    assert found.visits.sum() == 5 * 250 * 250
    assert found.n_samples == 5


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batch_size_changes_nothing(batch_size):
    """Sample n depends on the seed and n alone, and sums are taken in their order: the map is the same to the bit."""
    reference = upsample(IMAGE, lambda x: x, n_samples=7, batch_size=2)
    found = upsample(IMAGE, lambda x: x, n_samples=7, batch_size=batch_size)
    np.testing.assert_array_equal(found.map, reference.map)
    np.testing.assert_array_equal(found.visits, reference.visits)


@pytest.mark.parametrize("normalize", ["paper", "visits"])
def test_ranges_merge_into_the_whole(normalize):
    """Samples 0..3 and 4..8 computed apart give the map of 0..8 (float64, rounding only)."""
    whole = upsample(IMAGE, explain, n_samples=9, normalize=normalize)
    parts = [upsample(IMAGE, explain, n_samples=n, start=s, normalize=normalize) for s, n in ((0, 4), (4, 5))]
    joined = merge(parts)
    np.testing.assert_allclose(joined.map, whole.map, rtol=0, atol=1e-13)
    np.testing.assert_array_equal(joined.visits, whole.visits)
    assert joined.n_samples == 9


@pytest.mark.parametrize("normalize", ["paper", "visits"])
def test_members_are_told_apart(normalize):
    """The map of each is that of a run of its own, to float32; parts merge; the map is their mean."""
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64).view(1, 3, 1, 1)
    settings = {"n_samples": 5, "normalize": normalize, "batch_size": 2}
    found = upsample(IMAGE, lambda x: explain(x) * factors, **settings, n_members=3)
    alone = upsample(IMAGE, explain, **settings).map
    expected = alone * factors.numpy()[0]
    np.testing.assert_allclose(found.members, expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.map, expected.mean(axis=0), rtol=0, atol=1e-13)
    np.testing.assert_allclose(found.disagreement(), expected.std(axis=0), rtol=1e-4, atol=1e-6)
    parts = [
        upsample(IMAGE, lambda x: explain(x) * factors, **settings | {"n_samples": n}, start=s, n_members=3)
        for s, n in ((0, 2), (2, 3))
    ]
    np.testing.assert_allclose(merge(parts).members, found.members, rtol=1e-5, atol=1e-6)
    with pytest.raises(InvalidInput, match="members must be kept"):
        upsample(IMAGE, explain, n_samples=1).disagreement()


def test_progress_counts_up_and_offers_the_map_so_far():
    """After each batch the callback hears how far it is; the partial map equals a run of that many samples."""
    heard = []
    upsample(
        IMAGE,
        explain,
        n_samples=5,
        batch_size=2,
        on_progress=lambda done, total, partial: heard.append((done, total, partial())),
    )
    assert [(done, total) for done, total, _ in heard] == [(2, 5), (4, 5), (5, 5)]
    np.testing.assert_allclose(heard[0][2].map, upsample(IMAGE, explain, n_samples=2).map, rtol=0, atol=1e-15)


def test_tensors_work_like_arrays():
    """A float32 tensor is explained in float32 and summed in float64."""
    seen = []
    image = torch.from_numpy(IMAGE.astype(np.float32))
    found = upsample(image, lambda x: seen.append(x.dtype) or x, n_samples=2)
    assert seen == [torch.float32]
    assert found.map.dtype == np.float64


def test_bad_input_is_refused():
    """Each refusal says what was expected and what came."""
    with pytest.raises(InvalidInput, match=r"\(H, W\) floating point, got shape \(300, 300\) of torch.int64"):
        upsample(np.zeros((300, 300), dtype=int), explain, n_samples=1)
    with pytest.raises(InvalidInput, match=r"floating point, got shape \(1, 300, 300\)"):
        upsample(np.zeros((1, 300, 300)), explain, n_samples=1)
    with pytest.raises(InvalidParameter, match="at least 1, got n_samples 0"):
        upsample(IMAGE, explain, n_samples=0)
    with pytest.raises(InvalidParameter, match="one of paper, visits, got 'none'"):
        upsample(IMAGE, explain, n_samples=1, normalize="none")
    with pytest.raises(InvalidInput, match=r"must return shape \(1, 1, 250, 250\), got \(1, 250, 250\)"):
        upsample(IMAGE, lambda x: x[0], n_samples=1)
    with pytest.raises(InvalidInput, match="one normalisation, got 2 different kinds"):
        merge([upsample(IMAGE, explain, n_samples=1, normalize=kind) for kind in ("paper", "visits")])
    with pytest.raises(InvalidInput, match="got 0 different kinds"):
        merge([])
