"""Training of generators against a classifier: what they learn, resuming, alarms, the record."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, InvalidParameter, TrainingError
from radlens.families.companions import load_companions, trained_for
from radlens.families.companions.cycle_recipes import CYCLE_PRESETS, CycleRecipe
from radlens.families.companions.cycle_training import LOSSES, evaluate_generators, train_generators
from radlens.families.companions.generators import load_generators
from radlens.networks import GeneratorPair

SHAPE = (16, 24)
INPUT = ModelInput(SHAPE, scaling="fixed", mean=(0.0,), std=(1.0,))
ORIGIN = {
    "classifier": {"name": "spots", "version": "1.0", "network_hash": "a" * 64, "classes": ["plain", "spot"]},
    "model_input": INPUT.to_json(),
}
RECIPE = replace(
    CYCLE_PRESETS["demo"], width=2, steps=150, batch_size=4, roll=3, jitter=1, half=False, grace=50, learning_rate=3e-3
)


def classify(images):
    """Return logits that grow with the brightest square of 3x3 pixels."""
    odds = 12 * (nn.functional.avg_pool2d(images, 3, 1).amax((2, 3)) - 0.5)
    return torch.cat([-odds, odds], 1) / 2


def draw(n, seed):
    """Return dark images with a spot of varying brightness."""
    rng = np.random.default_rng(seed)
    images = rng.normal(0.2, 0.03, (n, 1, *SHAPE))
    for image in images:
        row, column = rng.integers(2, SHAPE[0] - 6), rng.integers(2, SHAPE[1] - 6)
        image[0, row : row + 4, column : column + 4] += rng.uniform(0.1, 0.5)
    return images.astype(np.float16)


def train(folder, recipe=RECIPE, **options):
    """Train on such images."""
    return train_generators(folder, classify, draw(60, 0), draw(20, 1), recipe, origin=ORIGIN, **options)


@pytest.fixture
def often(monkeypatch):
    """Checkpoints after ten steps."""
    monkeypatch.setattr("radlens.families.companions.cycle_training._EVERY", 10)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A finished run."""
    folder = tmp_path_factory.mktemp("generators")
    train(folder, preset="demo")
    return folder


@pytest.mark.slow
def test_generators_move_the_score_both_ways_and_follow_the_image(run):
    """On images that they have not seen, with small changes; no mark at a fixed place."""
    pair, record = load_generators(run)
    found = record["evaluation"]
    assert found["score_minus"] < found["score_image"] < found["score_plus"]
    assert found["t_plus"] > 4
    assert found["t_minus"] < -4
    assert max(found["change_plus"], found["change_minus"]) < 0.1
    assert found["follows_shift"] > 0.5
    assert record["note"] == ""
    assert record["preset"] == "demo"
    assert record["classifier"] == ORIGIN["classifier"]
    assert not pair.training
    again = evaluate_generators(pair, classify, draw(20, 1))
    assert again == pytest.approx(found)


def test_the_losses_of_every_checkpoint_are_told_and_kept(tmp_path, often):
    """Four losses, accuracy, scores and changes; a record of JSON values."""
    told = []
    record = train(tmp_path, replace(RECIPE, steps=14), on_measured=told.append)
    assert [entry["step"] for entry in told] == [10, 14]
    assert record["history"] == told
    assert {*LOSSES, "accuracy", "gradient", "score_plus", "change_minus", "outside"} <= set(told[0])
    stored = json.loads((tmp_path / "training.json").read_text("utf-8"))
    assert stored["recipe"]["steps"] == 14
    assert stored["n_images"] == {"training": 60, "validation": 20}
    assert not (tmp_path / "checkpoint.pt").exists()


def test_a_run_continues_where_it_was_interrupted(tmp_path, often):
    """The networks are those of an uninterrupted run; a finished run is only read."""
    recipe = replace(RECIPE, steps=14)
    train(tmp_path / "whole", recipe)

    class Stop(Exception):
        """Somebody stopped the run."""

    def stop(stage, done, total):
        if done == 12:
            raise Stop

    with pytest.raises(Stop):
        train(tmp_path / "parts", recipe, on_progress=stop)
    seen = []
    train(tmp_path / "parts", recipe, on_progress=lambda *told: seen.append(told))
    assert seen[0] == ("training", 11, 14)
    expected, found = (load_generators(tmp_path / each)[0].state_dict() for each in ("whole", "parts"))
    assert all(torch.equal(expected[name], found[name]) for name in expected)
    written = (tmp_path / "whole" / "training.json").stat().st_mtime_ns
    train(tmp_path / "whole", recipe)
    assert (tmp_path / "whole" / "training.json").stat().st_mtime_ns == written


@pytest.mark.parametrize("is_faster", [True, False])
def test_half_precision_is_for_machines_on_which_it_is_faster(is_faster, tmp_path, monkeypatch):
    """The record tells; a run that is continued elsewhere keeps its precision."""
    monkeypatch.setattr("radlens.families.companions.cycle_training.half_is_faster", lambda: is_faster)
    monkeypatch.setattr("radlens.families.companions.cycle_training._EVERY", 1)
    recipe = replace(RECIPE, steps=2, batch_size=2, half=True)
    types = set()

    def seen(images):
        types.add(nn.functional.conv2d(images, torch.ones(1, 1, 3, 3)).dtype)
        return classify(images)

    def stop(stage, done, total):
        if done == 2:
            raise KeyboardInterrupt

    images = (draw(4, 0), draw(2, 1), recipe)
    with pytest.raises(KeyboardInterrupt):
        train_generators(tmp_path, seen, *images, origin=ORIGIN, on_progress=stop)
    monkeypatch.setattr("radlens.families.companions.cycle_training.half_is_faster", lambda: not is_faster)
    record = train_generators(tmp_path, seen, *images, origin=ORIGIN)
    assert record["precision"] == ("bfloat16" if is_faster else "float32")
    # Scores of checkpoints are always those of float32.
    assert types == ({torch.bfloat16, torch.float32} if is_faster else {torch.float32})


def test_a_step_is_the_gradient_of_the_sum_of_the_losses(tmp_path):
    """Without random changes: every loss is that of `cycle_losses` on what the generators draw."""
    from radlens.families.companions import cycle_losses
    from radlens.families.companions.cycle_training import _Training

    plain = replace(RECIPE, turns=False, roll=0, jitter=0, jitter_turns=False, noise=0.0, similarity_l1=3.0)
    training = _Training(classify, draw(60, 0), draw(20, 1), plain, (0, 1), lambda *told: None)
    pair, judges = training.pair, training.judges
    random = torch.Generator().manual_seed(5)
    x, others = (torch.from_numpy(draw(4, seed).astype(np.float32)) for seed in (2, 3))
    plus, minus = pair(x)
    found = training._terms(x, others, [plus, minus], (0, 0), random)
    unit = training._unit
    c = (plain.c1, plain.c2)
    random = torch.Generator().manual_seed(5)
    expected = {
        "cycle": cycle_losses.cycle_loss(unit(x), unit(pair.minus(plus)), *c).mean()
        + cycle_losses.cycle_loss(unit(x), unit(pair.plus(minus)), *c).mean(),
        "similarity": cycle_losses.similarity_loss(unit(x), unit(plus), *c, l1=3).mean()
        + cycle_losses.similarity_loss(unit(x), unit(minus), *c, l1=3).mean(),
        "adversarial": sum(
            cycle_losses.adversarial_loss(judge(unit(others), unit(each), random=random)).mean()
            for judge, each in zip(judges, (plus, minus), strict=True)
        ),
        "activation": nn.functional.cross_entropy(classify(plus), torch.ones(4, dtype=torch.long))
        + nn.functional.cross_entropy(classify(minus), torch.zeros(4, dtype=torch.long)),
    }
    for name, value in expected.items():
        # Random shifts of 0 are drawn as well, so the swapped patches of the second discriminator differ.
        tolerance = 0.05 if name == "adversarial" else 1e-5
        torch.testing.assert_close(found[name], value, rtol=tolerance, atol=0)
    (gradient,) = torch.autograd.grad(found["activation"], pair.plus.last.bias, retain_graph=True)
    assert gradient.abs().sum() > 0
    before = [value.clone() for value in judges.parameters()]
    training.judges.requires_grad_(False)
    sum(found.values()).backward()
    assert all(torch.equal(a, b) for a, b in zip(before, judges.parameters(), strict=True))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # Without similarity the score alone decides.
        ({"weight_similarity": 0.0, "weight_cycle": 0.0, "weight_adversarial": 0.0}, "collapse: the generators change"),
        ({"learning_rate": 1e30, "clip": None}, "divergence: the losses must be finite"),
        ({"weight_cycle": 0.0, "weight_similarity": 0.0, "weight_adversarial": 0.0, "weight_activation": 0.0}, "no gr"),
    ],
)
def test_collapse_and_divergence_stop_the_training(changes, message, tmp_path, often):
    """The message names what happened; the same command says it again."""
    recipe = replace(RECIPE, **{"steps": 400, "learning_rate": 2e-2, "grace": 0, **changes})
    for _ in range(2):
        with pytest.raises(TrainingError, match=rf"stopped at step \d+: .*{message}"):
            train(tmp_path, recipe)


def test_every_alarm_has_a_name():
    """Numbers out of their ranges, one at a time."""
    from radlens.families.companions.cycle_training import _alarm

    healthy = {
        **dict.fromkeys(LOSSES, 0.3),
        **{"accuracy": 0.62, "gradient": 1.0, "change_plus": 0.02, "change_minus": 0.01, "outside": 0.0, "step": 50},
    }
    assert _alarm(healthy) is None
    for change, words in (
        ({"change_minus": 0.11}, "collapse: the generators change images by 0.11"),
        ({"gradient": 0.0}, "collapse: the generators get no gradient"),
        ({"accuracy": 0.81}, "discriminators too strong: they recognise 81%"),
        ({"outside": 0.03}, "values out of range: 3% of the generated pixels"),
        ({"score_plus": float("nan")}, "divergence"),
    ):
        assert words in _alarm(healthy | change)


def test_a_mark_at_a_fixed_place_is_noted():
    """It moves the score, stays close, and does not follow the image."""

    class Stamp(nn.Module):
        def __init__(self, by):
            super().__init__()
            self.by, self.span = by, torch.tensor(1.0)

        def forward(self, images):
            changed = images.clone()
            changed[:, :, 1:5, 1:5] = images[:, :, 1:5, 1:5] + self.by
            return changed

    from radlens.families.companions.cycle_training import _note

    pair = GeneratorPair(1, 1)
    pair.plus, pair.minus = Stamp(0.6), Stamp(-0.6)
    found = evaluate_generators(pair, classify, draw(20, 1))
    assert found["t_plus"] > 4
    assert found["change_plus"] < 0.05
    assert found["follows_shift"] < 0.1
    assert "may have learnt a mark at a fixed place" in _note(found)
    assert "G- does not move the score as it should" in _note(found)


def test_runs_that_cannot_be_are_named(run, tmp_path):
    """Another recipe, too few images, constant images, values out of range, and a folder without a run."""
    with pytest.raises(TrainingError, match="run of another recipe"):
        train(run, replace(RECIPE, steps=10), preset="demo")
    with pytest.raises(InvalidInput, match="at least 2 validation images, got 1"):
        train_generators(tmp_path / "a", classify, draw(9, 0), draw(1, 0), RECIPE, origin=ORIGIN)
    even = np.full((4, 1, *SHAPE), 0.5, np.float16)
    with pytest.raises(InvalidInput, match="more than one pixel value, got constant ones"):
        train_generators(tmp_path / "b", classify, even, even, RECIPE, origin=ORIGIN)
    for given, message in (
        ({"steps": 0}, "steps must be at least 1, got 0"),
        ({"form": "other"}, "form must be one of paper, recommended"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0"),
        ({"weight_cycle": -1.0}, "weight_cycle must be at least 0"),
        ({"clip": 0.0}, "clip must be above 0"),
    ):
        with pytest.raises(InvalidParameter, match=message):
            CycleRecipe(**given)
    with pytest.raises(TrainingError, match="finished run of radlens companion generators must hold"):
        load_generators(tmp_path)
    (tmp_path / "training.json").write_text('{"task": "classification"}')
    (tmp_path / "generators.npz").write_bytes(b"")
    with pytest.raises(TrainingError, match="task 'cycle activation', got 'classification'"):
        load_generators(tmp_path)


def test_a_run_is_a_companion_of_its_classifier_alone(run):
    """Origin and hash; other images are refused."""
    found = load_companions({"generators": run}, INPUT)
    assert found["generators"].origin["name"] == "generators of spots"
    assert trained_for(found) == {"generators": "a" * 64}
    with pytest.raises(InvalidParameter, match=r"the generators must take the images that the classifier takes: shape"):
        load_companions({"generators": run}, replace(INPUT, shape=(24, 24)))


def test_the_preset_paper_has_the_printed_losses():
    """All weights 1, constants as printed, the paper's kernels; demo shortens recommended."""
    paper, recommended, demo = (CYCLE_PRESETS[name] for name in ("paper", "recommended", "demo"))
    weights = [getattr(paper, f"weight_{name}") for name in LOSSES]
    assert (weights, paper.c1, paper.c2, paper.similarity_l1) == ([1.0] * 4, 0.01, 0.03, 0.0)
    assert (paper.width, paper.n_convolutions, paper.form) == (48, 3, "paper")
    assert replace(recommended, width=demo.width, steps=demo.steps) == demo
    assert demo.width < recommended.width
