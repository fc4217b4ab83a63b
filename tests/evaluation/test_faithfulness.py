"""Deletion, insertion, infidelity and sensitivity, against loops and against theorems for linear scores."""

import math
import sys

import numpy as np
import pytest
import torch
from captum import metrics
from scipy import ndimage

from radlens.errors import InvalidInput, InvalidParameter, MissingDependency
from radlens.evaluation import (
    BLUR_SIGMA,
    baseline_images,
    deletion,
    infidelity,
    insertion,
    max_sensitivity,
    sensitivity_n,
)

EXACT = {"rtol": 0, "atol": 1e-12}
"""float64 sums of some hundred values near 1."""


@pytest.fixture
def images():
    """Three small images of two channels, float64."""
    return torch.randn(3, 2, 7, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture
def weights():
    """A linear score."""
    return torch.randn(2, 7, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def linear(weights):
    """Score images by their product with the weights."""
    return lambda images: (images * weights).sum(dim=(1, 2, 3))


def curved(images):
    """Score that is far from linear."""
    return torch.tanh(images).square().mean(dim=(1, 2, 3)) + images.amax(dim=(1, 2, 3))


def slow_curve(score, start, end, maps, n_steps):
    """Change the pixels of one image one after the other, highest attribution first."""
    curves = []
    for first, last, single in zip(start, end, maps, strict=True):
        h, w = first.shape[1:]
        pixels = [(y, x) for y in range(h) for x in range(w)]
        pixels.sort(key=dict(zip(pixels, (-single.sum(dim=0)).flatten().tolist(), strict=True)).__getitem__)
        changed, done, scores = first.clone(), 0, []
        for k in range(n_steps + 1):
            while done < k * h * w // n_steps:
                y, x = pixels[done]
                changed[:, y, x] = last[:, y, x]
                done += 1
            scores.append(score(changed[None]).item())
        curves.append(scores)
    return torch.tensor(curves, dtype=torch.float64)


@pytest.mark.parametrize("n_steps", [1, 5, 42])
@pytest.mark.parametrize("n_channels", [1, 2])
def test_deletion_and_insertion_are_those_of_the_loops(images, n_steps, n_channels):
    """Pixel by pixel; maps of rounded values have ties, which go from the upper left to the lower right."""
    maps = (
        2 * torch.randn(3, n_channels, 7, 6, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    ).round()
    removed = deletion(curved, images, maps, n_steps=n_steps, batch_size=4)
    expected = slow_curve(curved, images, torch.zeros_like(images), maps, n_steps)
    torch.testing.assert_close(removed.scores, expected, **EXACT)
    inserted = insertion(curved, images, maps, baseline=0.5, n_steps=n_steps, batch_size=7)
    expected = slow_curve(curved, torch.full_like(images, 0.5), images, maps, n_steps)
    torch.testing.assert_close(inserted.scores, expected, **EXACT)
    counts = [k * 42 // n_steps for k in range(n_steps + 1)]
    assert removed.fractions.tolist() == [count / 42 for count in counts]
    for row, auc in zip(removed.scores.tolist(), removed.auc.tolist(), strict=True):
        area = sum((counts[k + 1] - counts[k]) / 42 * (row[k] + row[k + 1]) / 2 for k in range(n_steps))
        assert auc == pytest.approx(area, rel=1e-12)


def test_the_true_contributions_of_a_linear_score_cannot_be_beaten(images, linear, weights):
    """No other order lowers the deletion curve, or raises the insertion curve, at any point."""
    best = images * weights
    other = torch.randn(images.shape, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    # What rounding of 84 products leaves.
    low, high = deletion(linear, images, best, n_steps=42), deletion(linear, images, other, n_steps=42)
    assert (low.scores <= high.scores + 1e-12).all()
    assert (low.auc < high.auc).all()
    put, others = (insertion(linear, images, maps, baseline="zero", n_steps=42) for maps in (best, other))
    assert (put.scores >= others.scores - 1e-12).all()
    worst = deletion(linear, images, -best, n_steps=42)
    torch.testing.assert_close(worst.scores.flip(1), put.scores, **EXACT)


def test_curves_start_and_end_at_image_and_baseline(images):
    """Insertion ends at the image, deletion at the baseline."""
    curve = insertion(curved, images, images, n_steps=3)
    torch.testing.assert_close(curve.scores[:, 0], curved(baseline_images(images, "blur")), **EXACT)
    torch.testing.assert_close(curve.scores[:, -1], curved(images), **EXACT)
    curve = deletion(curved, images, images, baseline="mean", n_steps=3)
    torch.testing.assert_close(curve.scores[:, -1], curved(baseline_images(images, "mean")), **EXACT)


def test_all_zero_images_and_constant_maps_give_flat_curves():
    """Nothing is there to remove; the order of a constant map plays no part then."""
    zero = torch.zeros(1, 1, 8, 8)
    curve = deletion(curved, zero, torch.zeros_like(zero), n_steps=4)
    assert curve.scores.tolist() == [[0.0] * 5]
    assert curve.auc.tolist() == [0.0]


def test_baselines(images):
    """Zero, a number, the mean of each channel, and a Gaussian blur that repeats the border."""
    assert not baseline_images(images, "zero").any()
    assert (baseline_images(images, -1.5) == -1.5).all()
    means, blurred = baseline_images(images, "mean"), baseline_images(images, "blur")
    for i in range(3):
        for c in range(2):
            expected = sum(images[i, c].flatten().tolist()) / 42
            torch.testing.assert_close(means[i, c], torch.full((7, 6), expected, dtype=torch.float64), **EXACT)
            plane = ndimage.gaussian_filter(images[i, c].numpy(), BLUR_SIGMA, mode="nearest")
            torch.testing.assert_close(blurred[i, c], torch.from_numpy(plane), **EXACT)
    flat = torch.full((1, 1, 9, 9), 3.0)
    # float64 weights of a kernel that sum to 1, rounded to float32.
    torch.testing.assert_close(baseline_images(flat, "blur"), flat, rtol=1e-6, atol=0)


def slow_infidelity(score, image, single, kind, empty, max_side, n_samples, seed):
    """Remove squares one by one; the same generator draws them."""
    rng = np.random.default_rng(seed)
    h, w = image.shape[1:]
    errors = []
    for _ in range(n_samples):
        side = int(rng.integers(1, max_side + 1))
        top, left = int(rng.integers(0, h - side + 1)), int(rng.integers(0, w - side + 1))
        changed, said = image.clone(), 0.0
        for y in range(top, top + side):
            for x in range(left, left + side):
                for c in range(image.shape[0]):
                    part = single[c, y, x].item()
                    said += part if kind == "contribution" else part * (image - empty)[c, y, x].item()
                    changed[c, y, x] = empty[c, y, x]
        errors.append((said - (score(image[None]) - score(changed[None])).item()) ** 2)
    return sum(errors) / n_samples


@pytest.mark.parametrize("kind", ["contribution", "gradient"])
@pytest.mark.parametrize("baseline", ["mean", 0.25])
def test_infidelity_is_that_of_the_loops(images, kind, baseline):
    """Captum's number with our squares, whatever the batch size and the images beside."""
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    options = {"kind": kind, "baseline": baseline, "n_samples": 9, "max_side": 4, "seed": 5}
    found = infidelity(curved, images, maps, batch_size=4, **options)
    empty = baseline_images(images, baseline)
    for i in range(3):
        expected = slow_infidelity(curved, images[i], maps[i], kind, empty[i], 4, 9, 5)
        assert found[i].item() == pytest.approx(expected, rel=1e-10)
        alone = infidelity(curved, images[i : i + 1], maps[i : i + 1], batch_size=100, **options)
        assert alone.item() == pytest.approx(found[i].item(), rel=1e-10)


def test_exact_maps_of_a_linear_score_have_no_infidelity(images, linear, weights):
    """Contributions, their sum over channels, and gradients; a scale is forgiven when it is normalised."""
    contributions = images * weights
    gradients = weights.expand_as(images)
    for maps, kind in [
        (contributions, "contribution"),
        (contributions.sum(dim=1, keepdim=True), "contribution"),
        (gradients, "gradient"),
    ]:
        assert infidelity(linear, images, maps, kind=kind).max() < 1e-24
    assert infidelity(linear, images, 3 * contributions).min() > 1e-3
    assert infidelity(linear, images, 3 * contributions, normalize=True).abs().max() < 1e-12
    assert infidelity(linear, images, gradients, kind="gradient", baseline="blur", max_side=6).max() < 1e-24


def test_the_default_square_is_at_most_a_quarter_of_the_shorter_side(images):
    """And one pixel where the image is smaller than four."""
    maps = images.square()
    assert torch.equal(infidelity(curved, images, maps), infidelity(curved, images, maps, max_side=1))
    tiny = images[:, :, :2, :3]
    assert torch.equal(infidelity(curved, tiny, tiny), infidelity(curved, tiny, tiny, max_side=1))


def gradients(images):
    """Explain ``curved`` by autograd; needs gradients enabled."""
    images = images.clone().requires_grad_()
    return torch.autograd.grad(curved(images).sum(), images)[0]


def test_max_sensitivity_is_that_of_the_loops(images):
    """The largest relative change of the map, by the same noise, whatever the batch size and the images beside."""
    found = max_sensitivity(gradients, images, radius=0.1, n_samples=6, batch_size=4, seed=8)
    for i in range(3):
        rng = np.random.default_rng(8)
        before = gradients(images[i : i + 1])
        changes = []
        for _ in range(6):
            noise = torch.from_numpy(rng.uniform(-0.1, 0.1, (2, 7, 6)))
            changes.append(((gradients(images[i : i + 1] + noise) - before).norm() / before.norm()).item())
        assert found[i].item() == pytest.approx(max(changes), rel=1e-10)


def test_max_sensitivity_of_maps_that_do_not_change(images, weights):
    """The gradient of a linear score is the same everywhere; zero maps are no division by zero."""
    assert max_sensitivity(lambda x: weights.expand_as(x), images).tolist() == [0.0] * 3
    assert max_sensitivity(torch.zeros_like, images).tolist() == [0.0] * 3


def test_captum_is_what_is_called(images):
    """Captum's own call with the same noise gives the same number."""
    found = max_sensitivity(gradients, images[:1], radius=0.1, n_samples=5, batch_size=5, seed=3)
    rng = np.random.default_rng(3)

    def noisy(copies):
        return copies + torch.from_numpy(np.stack([rng.uniform(-0.1, 0.1, (2, 7, 6)) for _ in copies]))

    def explain(copies):
        with torch.enable_grad():
            return (gradients(copies[0]),) if isinstance(copies, tuple) else gradients(copies)

    expected = metrics.sensitivity_max(explain, images[:1], perturb_func=noisy, n_perturb_samples=5)
    assert torch.equal(found, expected)


def pearson(a, b):
    """Pearson's correlation, from its definition."""
    mean_a, mean_b = sum(a) / len(a), sum(b) / len(b)
    product = sum((p - mean_a) * (q - mean_b) for p, q in zip(a, b, strict=True))
    return product / math.sqrt(sum((p - mean_a) ** 2 for p in a) * sum((q - mean_b) ** 2 for q in b))


@pytest.mark.parametrize("kind", ["contribution", "gradient"])
def test_sensitivity_n_is_that_of_the_loops(images, kind):
    """Subsets removed pixel by pixel; the same generator draws them."""
    maps = torch.randn(images.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    found = sensitivity_n(
        curved, images, maps, n_pixels=(1, 20), kind=kind, baseline="mean", n_subsets=12, batch_size=5, seed=2
    )
    empty = baseline_images(images, "mean")
    for column, n in enumerate((1, 20)):
        rng = np.random.default_rng([2, n])
        subsets = [rng.choice(42, n, replace=False).tolist() for _ in range(12)]
        for i in range(3):
            said, measured = [], []
            for subset in subsets:
                changed, total = images[i].clone(), 0.0
                for at in subset:
                    y, x = divmod(at, 6)
                    part = maps[i, :, y, x] * ((images - empty)[i, :, y, x] if kind == "gradient" else 1)
                    total += sum(part.tolist())
                    changed[:, y, x] = empty[i, :, y, x]
                said.append(total)
                measured.append((curved(images[i : i + 1]) - curved(changed[None])).item())
            assert found[i, column].item() == pytest.approx(pearson(said, measured), rel=1e-9)


def test_exact_maps_of_a_linear_score_have_sensitivity_one(images, linear, weights):
    """Ancona et al., section 3.2: for every n; the negative map has minus one, a constant map none."""
    options = {"n_pixels": (1, 10, 41), "n_subsets": 20}
    contributions = (images * weights).sum(dim=1, keepdim=True)
    ones = torch.ones(3, 3, dtype=torch.float64)
    torch.testing.assert_close(sensitivity_n(linear, images, contributions, **options), ones, **EXACT)
    torch.testing.assert_close(sensitivity_n(linear, images, -contributions, **options), -ones, **EXACT)
    found = sensitivity_n(linear, images, weights.expand_as(images), kind="gradient", **options)
    torch.testing.assert_close(found, ones, **EXACT)
    assert sensitivity_n(linear, images, torch.full((3, 1, 7, 6), 0.1).double(), **options).isnan().all()
    assert sensitivity_n(lambda x: x[:, 0, 0, 0] * 0 + 0.3, images, contributions, **options).isnan().all()


def test_models_are_called_without_gradients_and_in_batches(images):
    """No more images at a time than asked for, and no graph is recorded."""
    seen = []

    def score(copies):
        seen.append((len(copies), torch.is_grad_enabled()))
        return copies.sum(dim=(1, 2, 3))

    deletion(score, images, images, n_steps=6, batch_size=5)
    assert seen == [(5, False)] * 4 + [(1, False)]
    seen.clear()
    infidelity(score, images, images, n_samples=7, batch_size=3)
    sensitivity_n(score, images, images, n_pixels=[3], n_subsets=4, batch_size=3)
    assert max(seen) == (3, False)


def call_all(score, images, maps):
    """Return each measure of a map as a call."""
    return [
        lambda: deletion(score, images, maps, n_steps=2),
        lambda: insertion(score, images, maps, n_steps=2),
        lambda: infidelity(score, images, maps, n_samples=2),
        lambda: sensitivity_n(score, images, maps, n_pixels=[1], n_subsets=2),
    ]


BAD = torch.tensor([[[[0.0, float("nan")], [1.0, 2.0]]]])


@pytest.mark.parametrize(
    ("images", "maps", "message"),
    [
        (torch.ones(1, 2, 4, 5), torch.ones(1, 2, 5, 4), r"\(1, 2, 4, 5\) or \(1, 1, 4, 5\), got \(1, 2, 5, 4\)"),
        (torch.ones(1, 2, 2, 2), BAD, "maps must be finite"),
        (BAD, torch.ones(1, 1, 2, 2), "images must be finite"),
        (torch.ones(2, 2), torch.ones(2, 2), r"images must have shape \(b, c, h, w\) .* got \(2, 2\)"),
        (torch.ones(0, 1, 2, 2), torch.ones(0, 1, 2, 2), "with at least one pixel"),
        (torch.ones(1, 1, 2, 2, dtype=torch.int64), torch.ones(1, 1, 2, 2), "floating point type, got torch.int64"),
    ],
)
def test_odd_images_and_maps_are_refused(images, maps, message):
    """By every measure of a map."""
    for call in call_all(curved, images, maps):
        with pytest.raises(InvalidInput, match=message):
            call()


@pytest.mark.parametrize(
    ("score", "message"),
    [
        (lambda x: x.sum(dim=(2, 3)), r"score must return shape \(\d+,\), got \(\d+, 1\)"),
        (lambda x: x.sum(dim=(1, 2, 3)) / 0, "score must be finite"),
    ],
)
def test_odd_scores_are_refused(score, message):
    """Another shape, or not finite."""
    for call in call_all(score, torch.ones(1, 1, 2, 2), torch.ones(1, 1, 2, 2)):
        with pytest.raises(InvalidInput, match=message):
            call()


@pytest.mark.parametrize(
    ("measure", "options", "message"),
    [
        (deletion, {"n_steps": 0}, "n_steps must be from 1 to 42, the number of pixels, got 0"),
        (insertion, {"n_steps": 43}, "n_steps must be from 1 to 42, the number of pixels, got 43"),
        (deletion, {"batch_size": 0}, "batch_size must be at least 1, got 0"),
        (deletion, {"baseline": "black"}, "baseline must be zero, mean, blur or a finite number, got 'black'"),
        (deletion, {"baseline": float("nan")}, "baseline must be zero, mean, blur or a finite number, got nan"),
        (infidelity, {"n_samples": 0}, "n_samples must be at least 1, got 0"),
        (infidelity, {"max_side": 7}, "max_side must be from 1 to 6, got 7"),
        (infidelity, {"kind": "saliency"}, "kind must be contribution or gradient, got 'saliency'"),
        (sensitivity_n, {"n_pixels": [1], "batch_size": 0}, "batch_size must be at least 1, got 0"),
        (sensitivity_n, {"n_pixels": [1], "n_subsets": 1}, "n_subsets must be at least 2, got 1"),
        (sensitivity_n, {"n_pixels": [1, 42]}, r"n_pixels must be sizes from 1 to 41, got \(1, 42\)"),
        (sensitivity_n, {"n_pixels": []}, r"n_pixels must be sizes from 1 to 41, got \(\)"),
    ],
)
def test_parameters_out_of_range_are_refused(images, measure, options, message):
    """Each names itself and its value."""
    with pytest.raises(InvalidParameter, match=message):
        measure(curved, images, images, **options)


def test_gradients_need_all_channels(images):
    """Their sum over channels cannot be multiplied by the image."""
    with pytest.raises(InvalidInput, match=r"gradients must have the images' shape \(3, 2, 7, 6\), got \(3, 1, 7, 6\)"):
        infidelity(curved, images, images[:, :1], kind="gradient")


@pytest.mark.parametrize(
    ("explain", "message"),
    [
        (lambda x: x[:1].repeat(9, 1, 1, 1), "explain must return one map per image, 1, got 9"),
        (lambda x: x * float("nan"), "maps must be finite, got NaN or infinity"),
    ],
)
def test_odd_explanations_are_refused(images, explain, message):
    """Another number of maps, or not finite."""
    with pytest.raises(InvalidInput, match=message):
        max_sensitivity(explain, images)


@pytest.mark.parametrize("radius", [0.0, -1.0, float("inf")])
def test_odd_radii_are_refused(images, radius):
    """Not positive or not finite."""
    with pytest.raises(InvalidParameter, match="radius must be finite and positive"):
        max_sensitivity(gradients, images, radius=radius)


def test_a_missing_package_is_named(monkeypatch, images):
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "captum", None)
    with pytest.raises(MissingDependency, match="infidelity needs the package captum"):
        infidelity(curved, images, images)
