import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy.ndimage import map_coordinates
from tiny_classifier import small_network, tiny

from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, InvalidParameter, TrainingError
from radlens.families.classifier import training as classifier
from radlens.families.classifier import training_data as classifier_data
from radlens.families.classifier import training_loop as classifier_loop
from radlens.families.classifier.recipes import WarmUp
from radlens.families.classifier.training import load_classifier_run, train_classifier

PRESET = tiny(
    input=ModelInput((64, 64)), n_members=2, warm_up=WarmUp(1, (32, 32)), flips=(1,), rotation=10.0, schedule="plateau"
)


@pytest.fixture(autouse=True, scope="module")
def _quick():
    """Small networks, few resamples, and one thread, so that sums are the same each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "_N_BOOTSTRAP", 20)
        for module in (classifier, classifier_loop):
            patch.setattr(module, "create_classifier", small_network)
        yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The folder of a finished run of two members."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    stages = []
    train_classifier(
        folder, PRESET, model="tiny", device="cpu", n_workers=1, on_progress=lambda *state: stages.append(state)
    )
    assert stages[-1] == ("evaluating", 2, 2)
    assert {("warm-up of member 1 of 2", 2, 2), ("training of member 2 of 2", 4, 4)} <= set(stages)
    return folder


def test_a_run_leaves_members_and_a_record(folder):
    """Networks in evaluation mode, what they take, and the measures on the test images; no checkpoint is left."""
    run = load_classifier_run(folder)
    assert (run.network, run.classes, run.n_outputs) == ("resnet18", ("benign", "malignant"), 1)
    assert run.model_input == PRESET.input
    assert len(run.members) == 2
    assert not any(member.training for member in run.members)
    record = run.record
    assert {part: record["images"][part]["n"] for part in classifier_data.PARTS} == {
        "training": 6,
        "validation": 4,
        "test": 4,
    }
    for history in record["epochs"]:
        assert [entry["phase"] for entry in history] == ["warm-up", "training", "training"]
        assert all(math.isfinite(entry["training_loss"]) for entry in history)
        assert all(0 <= entry["validation_auc"] <= 1 for entry in history[1:])
    assert {"auc", "accuracy", "sensitivity", "specificity"} <= set(record["evaluation"])
    assert bool(record["note"]) == (record["evaluation"]["auc"]["value"] < 0.9)
    assert not list(folder.glob("*.checkpoint.pt"))


def test_the_evaluation_is_that_of_the_loaded_members(folder):
    """The AUC counts pairs of a positive and a negative test image that the mean probability orders rightly."""
    run = load_classifier_run(folder)
    test = classifier_data.open_set(folder / "data", "test", run.model_input.image_shape)
    with torch.no_grad():
        images = torch.from_numpy(test.images.astype(np.float32))
        scores = torch.stack([member(images)[:, 0].sigmoid() for member in run.members]).mean(0).double().numpy()
    pairs = [(p > n) + (p == n) / 2 for p in scores[test.labels == 1] for n in scores[test.labels == 0]]
    assert run.record["evaluation"]["auc"]["value"] == pytest.approx(np.mean(pairs))


def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(folder, tmp_path, monkeypatch):
    """Stopped after the warm-up and after an epoch, and resumed, a member is the same to the bit on one thread."""
    shutil.copytree(folder / "data", tmp_path / "data")
    begun, epoch = [], classifier_loop._Run.epoch

    def epoch_or_stop(run):
        begun.append(len(run.history))
        if len(begun) in (2, 4):
            raise KeyboardInterrupt
        epoch(run)

    monkeypatch.setattr(classifier_loop._Run, "epoch", epoch_or_stop)
    preset = replace(PRESET, n_members=1)
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt):
            train_classifier(tmp_path, preset, device="cpu", n_workers=1)
        with pytest.raises(TrainingError, match=r"must hold training\.json, which is missing"):
            load_classifier_run(tmp_path)
    resumed = train_classifier(tmp_path, preset, device="cpu", n_workers=1)
    assert begun == [0, 1, 1, 2, 2]
    straight = load_classifier_run(folder)
    for (name, value), other in zip(
        resumed.members[0].state_dict().items(), straight.members[0].state_dict().values(), strict=True
    ):
        assert torch.equal(value, other), name
    losses = [[entry["training_loss"] for entry in run.record["epochs"][0]] for run in (resumed, straight)]
    assert losses[0] == losses[1]


def test_finished_runs_are_not_trained_again(folder):
    """Training a finished run returns it untouched."""
    before = {file: file.stat().st_mtime_ns for file in folder.iterdir()}
    assert train_classifier(folder, PRESET, model="tiny", device="cpu").record == load_classifier_run(folder).record
    assert {file: file.stat().st_mtime_ns for file in folder.iterdir()} == before


def test_the_best_epoch_is_kept_and_patience_ends_a_run(folder, tmp_path, monkeypatch):
    """Training stops when the loss has not fallen for that many epochs; the weights of the lowest loss come out."""
    losses, seen = iter([0.5, 0.3, 0.6, 0.7, 0.1]), []

    def validate(run):
        loss = next(losses)
        seen.append(run.network.head.bias.clone())
        best = min((entry["validation_loss"] for entry in run.history), default=math.inf)
        if loss < best:
            run.best = {name: value.clone() for name, value in run.network.state_dict().items()}
        return {"validation_loss": loss, "validation_auc": 0.5}

    monkeypatch.setattr(classifier_loop._Run, "_validate", validate)
    sets = {name: classifier_data.open_set(folder / "data", name, (1, 64, 64)) for name in classifier_data.PARTS}
    preset = replace(PRESET, epochs=5, stop_after=2, warm_up=None)
    trained = classifier_loop.train_member(tmp_path / "checkpoint", 0, preset, sets)
    assert [entry["validation_loss"] for entry in trained.history] == [0.5, 0.3, 0.6, 0.7]
    assert torch.equal(trained.network.head.bias, seen[1])


def test_schedules_are_those_of_the_recipes(folder):
    """A plateau divides by ten; restarts come back to the highest rate; one cycle ends near nothing."""
    sets = {name: classifier_data.open_set(folder / "data", name, (1, 64, 64)) for name in classifier_data.PARTS}

    def rates(n, losses=(), **changes):
        preset = replace(PRESET, warm_up=None, learning_rate=1e-2, epochs=4, **changes)
        run = classifier_loop._Run(torch.nn.Linear(1, 1), 0, preset, sets, "cpu", lambda *state: None)
        found = []
        for i in range(n):
            found.append(run._rate())
            run.optimizer.step()
            run.schedule.step(*([losses[i]] if losses else []))
        return found, run.optimizer

    flat, adam = rates(4, [1.0, 1.0, 1.0, 1.0], schedule="plateau", patience=1)
    assert flat == pytest.approx([1e-2, 1e-2, 1e-2, 1e-3])
    assert isinstance(adam, torch.optim.Adam)
    waves, sgd = rates(9, schedule="warm-restarts", period=2, optimizer="sgd")
    assert waves == pytest.approx([1e-2 * (1 + math.cos(math.pi * (i % 4) / 4)) / 2 for i in range(9)])
    assert sgd.param_groups[0]["momentum"] == 0.9
    cycle, _ = rates(9, schedule="one-cycle")
    assert max(cycle) == pytest.approx(1e-2, rel=0.05)
    assert cycle[-1] < cycle[0] < max(cycle)


def test_batch_statistics_are_those_of_the_training_images(folder):
    """After calibration, batch normalisation in evaluation mode does what it does to a batch of all of them."""
    sets = {name: classifier_data.open_set(folder / "data", name, (1, 64, 64)) for name in classifier_data.PARTS}
    torch.manual_seed(0)
    network = small_network("", n_outputs=1)
    run = classifier_loop._Run(network, 0, replace(PRESET, warm_up=None), sets, "cpu", lambda *state: None)
    run._calibrate()
    images = torch.from_numpy(sets["training"].images.astype(np.float32))
    convolution, norm = network.features[:2]
    with torch.no_grad():
        found = convolution(images)
        torch.testing.assert_close(norm.running_mean, found.mean((0, 2, 3)), rtol=1e-4, atol=1e-6)
        torch.testing.assert_close(norm.running_var, found.var((0, 2, 3)), rtol=1e-4, atol=1e-6)
    assert norm.momentum == 0.1


@pytest.mark.parametrize("n_outputs", [1, 2])
@pytest.mark.parametrize("loss", ["cross-entropy", "focal"])
def test_losses_are_their_formulas(loss, n_outputs):
    """-log p or -(1 - p)^2 log p of the true class, positive images weighed by 3 (Lin et al. 2017, eq. 4)."""
    generator = torch.Generator().manual_seed(0)
    logits, labels = torch.randn(7, n_outputs, generator=generator), torch.tensor([0, 1, 1, 0, 1, 0, 0])
    total, weights = 0.0, 0.0
    for row, label in zip(logits.double(), labels.tolist(), strict=True):
        p = row.softmax(0)[1].item() if n_outputs == 2 else 1 / (1 + math.exp(-row.item()))
        p = p if label else 1 - p
        factor = (1 - p) ** 2 if loss == "focal" else 1.0
        total -= (3 if label else 1) * factor * math.log(p)
        weights += 3 if label else 1
    found = classifier_loop.classification_loss(logits, labels, loss=loss, class_weight=3.0)
    assert found.item() == pytest.approx(total / weights, rel=1e-5)


class _Fixed:
    """Draws what it is told to."""

    def __init__(self, chance, angle):
        self.chance, self.angle = chance, angle

    def random(self, n):
        return np.full(n, self.chance)

    def uniform(self, low, high, n):
        assert low <= self.angle <= high
        return np.full(n, self.angle)


def test_mirroring_and_turning_move_pixels_as_they_say():
    """Mirrors are exact; a turn is bilinear interpolation at the turned coordinates, edges mirrored."""
    images = torch.rand(2, 1, 9, 15, generator=torch.Generator().manual_seed(0))
    mirrored = classifier_loop.varied(images, _Fixed(0.4, 0), flips=(0, 1), rotation=0)
    assert torch.equal(mirrored, images.flip(2, 3))
    assert torch.equal(classifier_loop.varied(images, _Fixed(0.6, 0), flips=(0, 1), rotation=0), images)
    turned = classifier_loop.varied(images, _Fixed(0.6, 20), flips=(), rotation=30)
    y, x = np.mgrid[:9, :15] - np.array([4, 7])[:, None, None]
    cos, sin = math.cos(math.radians(20)), math.sin(math.radians(20))
    places = [sin * x + cos * y + 4, cos * x - sin * y + 7]
    for image, found in zip(images[:, 0].numpy(), turned[:, 0].numpy(), strict=True):
        np.testing.assert_allclose(found, map_coordinates(image, places, order=1, mode="reflect"), atol=1e-5)


def test_without_a_class_weight_both_classes_weigh_the_same():
    """The loss of all training images is the mean of the mean losses of the two classes."""
    labels = torch.tensor([0, 0, 0, 0, 0, 1, 1])
    logits = torch.randn(7, 2, generator=torch.Generator().manual_seed(0))
    sets = {"training": classifier_data.ImageSet(np.zeros((7, 1, 8, 8), np.float16), labels.numpy())}
    weight = classifier_loop._class_weight(tiny("nodule-resnet18"), sets)
    found = classifier_loop.classification_loss(logits, labels, loss="cross-entropy", class_weight=weight)
    means = [F.cross_entropy(logits[labels == k], labels[labels == k]) for k in (0, 1)]
    torch.testing.assert_close(found, (means[0] + means[1]) / 2)


@pytest.mark.parametrize("size", [0.8, 1.25])
def test_zooming_enlarges_about_the_centre(size):
    """Bilinear interpolation at the coordinates of the smaller or larger image; what lies beyond is mirrored."""
    images = torch.rand(2, 1, 9, 15, generator=torch.Generator().manual_seed(0))
    found = classifier_loop.varied(images, _Sized(size), flips=(), rotation=0, zoom=0.3)
    y, x = np.mgrid[:9, :15] - np.array([4, 7])[:, None, None]
    for image, zoomed in zip(images[:, 0].numpy(), found[:, 0].numpy(), strict=True):
        expected = map_coordinates(image, [y / size + 4, x / size + 7], order=1, mode="reflect")
        np.testing.assert_allclose(zoomed, expected, atol=1e-5)


class _Sized:
    """Draws no mirror, no turn and one size."""

    def __init__(self, size):
        self.size = size

    def random(self, n):
        return np.ones(n)

    def uniform(self, low, high, n):
        assert (low, high) in ((0, 0), (0.7, 1.3))
        return np.full(n, self.size if high else 0.0)


def test_variation_differs_from_image_to_image():
    """Each image has mirrors and an angle of its own; the same draws give the same images."""
    images = torch.rand(1, 1, 8, 8).expand(6, -1, -1, -1)
    first, again = (
        classifier_loop.varied(images, np.random.default_rng(0), flips=(0, 1), rotation=30) for _ in range(2)
    )
    assert torch.equal(first, again)
    assert len({tuple(image.flatten().tolist()) for image in first}) == 6


def test_a_low_auc_is_explained():
    """Overfitting, and stopping too early, each in a sentence; nothing for a good one."""

    def note(auc, training_loss, validation_loss, task="patches"):
        losses = {"phase": "training", "training_loss": training_loss, "validation_loss": validation_loss}
        evaluation, images = {"auc": {"value": auc}}, {"training": {"n": 40}}
        recipe = {"preset": {"task": task}, "data": None}
        return classifier._note({"evaluation": evaluation, "epochs": [[losses] * 3], "images": images, **recipe})

    assert note(0.9, 0.1, 1.0) == ""
    assert "is 0.850, below 0.9: " in note(0.85, 0.1, 1.0)
    assert "it knows its 40 images by heart" in note(0.85, 0.1, 1.0)
    assert "after 3 epochs of 40 images" in note(0.85, 0.6, 0.65)
    assert "overlap" not in note(0.85, 0.6, 0.65)
    assert "all true features reaches 0.90" in note(0.85, 0.6, 0.65, task="ultrasound")


def test_networks_start_from_imagenet_weights(folder, tmp_path):
    """They are loaded before the first step and named in the record; what does not fit is refused before anything."""
    torch.manual_seed(5)
    weights = small_network("", n_outputs=1, n_channels=3).features.state_dict(prefix="features.")
    torch.save(weights, tmp_path / "weights.pth")
    preset = replace(PRESET, n_members=1, epochs=1, warm_up=None, learning_rate=1e-12)
    shutil.copytree(folder / "data", tmp_path / "run" / "data")
    run = train_classifier(tmp_path / "run", preset, imagenet=tmp_path / "weights.pth", device="cpu", n_workers=1)
    assert run.record["imagenet"]["file"] == "weights.pth"
    expected = weights["features.0.weight"].sum(1, keepdim=True)
    torch.testing.assert_close(run.members[0].features[0].weight.detach(), expected, rtol=0, atol=1e-9)
    torch.save({"features.0.weight": weights["features.0.weight"]}, tmp_path / "weights.pth")
    with pytest.raises(InvalidInput, match="ImageNet weights must have the"):
        train_classifier(tmp_path / "other", preset, imagenet=tmp_path / "weights.pth")
    assert not (tmp_path / "other").exists()


def test_bad_runs_are_refused(folder, tmp_path):
    """Another recipe, a run of another kind, missing members and data of another task are named."""
    with pytest.raises(TrainingError, match="a run of another recipe"):
        train_classifier(folder, replace(PRESET, epochs=5), model="tiny")
    with pytest.raises(InvalidParameter, match="must be one of busi, oasbud, got rsna-2022"):
        train_classifier(tmp_path / "new", PRESET, data="rsna-2022", root=tmp_path)
    assert not (tmp_path / "new").exists()
    record = json.loads((folder / "training.json").read_text())
    (tmp_path / "training.json").write_text(json.dumps(record))
    with pytest.raises(TrainingError, match="must have 2 trained members, got 0"):
        load_classifier_run(tmp_path)
    (tmp_path / "training.json").write_text(json.dumps({"preset": {}}))
    with pytest.raises(TrainingError, match="must be of task classification, got None"):
        load_classifier_run(tmp_path)
