"""Training of the inpainter: phases, the record, interruptions, other recipes."""

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch
from small_inpainter import tiny_recipe

from radlens.errors import InvalidInput, InvalidParameter, TrainingError
from radlens.families.inpainter import training
from radlens.families.inpainter.holes import random_mask
from radlens.families.inpainter.recipes import Phase
from radlens.families.inpainter.training import load_inpainter_run, train_inpainter
from radlens.families.inpainter.training_data import build_parts
from radlens.networks import PartialConvInpainter

PRESET = tiny_recipe()


@pytest.fixture(autouse=True, scope="module")
def _one_thread():
    """Sums are the same each time."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def told():
    """What the training reported."""
    return []


@pytest.fixture(scope="module")
def run(tmp_path_factory, told):
    """The folder of a finished run."""
    folder = tmp_path_factory.mktemp("runs") / "tiny"
    train_inpainter(
        folder, PRESET, model="tiny", variant="demo", device="cpu", n_workers=1, on_progress=lambda *s: told.append(s)
    )
    return folder


def test_a_run_leaves_the_network_and_a_record(run, told):
    """Recipe, images, perceptual network, each epoch, the errors in holes; no checkpoint is left."""
    found = load_inpainter_run(run)
    record = found.record
    assert found.model_input == PRESET.input
    assert not found.network.training
    assert (record["task"], record["model"], record["variant"]) == ("inpainting", "tiny", "demo")
    assert record["preset"] == json.loads(json.dumps(PRESET.to_json()))
    assert record["images"] == {
        "source": "simulated by radlens.phantoms", "training": {"n": 4}, "validation": {"n": 2},
    }  # fmt: skip
    assert 0 <= record["perceptual_network"]["accuracy"] <= 1
    assert (record["data"], record["vgg"]) == (None, None)
    assert [entry["phase"] for entry in record["epochs"]] == [1, 1, 2, 2]
    for entry in record["epochs"]:
        terms = {name: entry[name] for name in ("valid", "hole", "perceptual", "style", "variation")}
        assert all(math.isfinite(value) and value > 0 for value in terms.values())
        weights = {"valid": 1, "hole": 6, "perceptual": 0.05, "style": 120, "variation": 0.1}
        assert entry["loss"] == pytest.approx(sum(weights[name] * value for name, value in terms.items()), rel=1e-5)
    assert record["seconds"] == pytest.approx(sum(entry["seconds"] for entry in record["epochs"]))
    assert record["evaluation"]["inpainter"] == record["epochs"][-1]["validation_hole"]
    assert set(record["versions"]) == {"radlens", "torch", "numpy"}
    assert record["machine"].count(",") == 2
    assert not list(run.glob("checkpoint*"))
    assert told[-1] == ("phase 2 of 2", 8, 8)
    assert {("training images", 4, 4), ("training the perceptual network", 2, 2), ("phase 1 of 2", 1, 8)} <= set(told)


def test_the_errors_are_those_of_loops(run):
    """Mean absolute differences in holes of the validation images, of the network and of the mean of known tissue."""
    found = load_inpainter_run(run)
    part = build_parts(run / "data", PRESET, on_progress=lambda *stage: None)["validation"]
    rng = np.random.default_rng(training._VALIDATION_SEED)
    errors = {"inpainter": [], "mean": []}
    for image, region in zip(part.images, part.regions, strict=True):
        image = image.astype(np.float32)
        mask = random_mask(rng, region, PRESET.holes)
        with torch.no_grad():
            drawn = found.network(torch.from_numpy(image)[None], torch.from_numpy(mask)[None, None])[0].numpy()
        tissue = image[0][region & (mask == 1)]
        for i, j in np.argwhere(mask == 0):
            errors["inpainter"].append(abs(drawn[0, i, j] - image[0, i, j]))
            errors["mean"].append(abs(tissue.mean(dtype=np.float64) - image[0, i, j]))
    expected = {name: np.mean(values) for name, values in errors.items()}
    assert found.record["evaluation"] == pytest.approx(expected, rel=1e-5)


def test_a_finished_run_is_not_trained_again(run, monkeypatch):
    """It is read; another recipe in its folder is refused, and so are other data and other weights."""
    monkeypatch.setattr(training, "build_parts", None)
    assert train_inpainter(run, PRESET, model="tiny", variant="demo").record == load_inpainter_run(run).record
    message = "the folder holds a run of another recipe; choose an empty one or delete it"
    for changed in ({"preset": replace(PRESET, batch_size=1)}, {"variant": "paper"}, {"data": "omi-db", "root": run}):
        with pytest.raises(TrainingError, match=message):
            train_inpainter(run, **{"preset": PRESET, "model": "tiny", "variant": "demo"} | changed)


class Stopped(Exception):
    """Raised where a run is interrupted."""


@pytest.mark.parametrize(
    "stage",
    [
        ("validation images", 1, 2),
        ("training the perceptual network", 1, 2),
        ("phase 1 of 2", 1, 8),
        ("phase 1 of 2", 4, 8),
        ("phase 2 of 2", 5, 8),
        ("phase 2 of 2", 8, 8),
    ],
)
def test_an_interrupted_run_ends_where_an_uninterrupted_one_does(run, tmp_path, stage):
    """Stopped anywhere and resumed, the network is the same to the bit on one thread."""

    def stop(*told):
        if told == stage:
            raise Stopped

    if stage[0].startswith("phase"):
        shutil.copytree(run / "data", tmp_path / "data")
        shutil.copy(run / "perceptual.pt", tmp_path)
    with pytest.raises(Stopped):
        train_inpainter(tmp_path, PRESET, device="cpu", n_workers=1, on_progress=stop)
    with pytest.raises(TrainingError, match=r"a finished training run must hold training\.json, which is missing"):
        load_inpainter_run(tmp_path)
    resumed = train_inpainter(tmp_path, PRESET, device="cpu", n_workers=1)
    straight = load_inpainter_run(run)
    others = straight.network.state_dict()
    assert all(torch.equal(value, others[name]) for name, value in resumed.network.state_dict().items())
    timed = ("seconds",)
    epochs = [[{k: v for k, v in e.items() if k not in timed} for e in r.record["epochs"]] for r in (resumed, straight)]
    assert epochs[0] == epochs[1]


def test_the_second_phase_leaves_the_norms_of_the_encoder(run, tmp_path):
    """Their statistics, weights and biases; those of the decoder, and all convolutions, go on learning."""
    states = []
    for phases in (PRESET.phases[:1], PRESET.phases):
        # The first phase ends after its two epochs; the recipe with one phase ends there.
        folder = tmp_path / str(len(phases))
        shutil.copytree(run / "data", folder / "data")
        shutil.copy(run / "perceptual.pt", folder)
        trained = train_inpainter(folder, replace(PRESET, phases=phases), device="cpu", n_workers=1)
        states.append(trained.network.state_dict())
    fresh = PartialConvInpainter(1, PRESET.width).state_dict()
    same = {name for name in states[0] if torch.equal(states[0][name], states[1][name])}
    of_encoder = {name for name in states[0] if name.startswith("encoder") and ".norm." in name}
    assert len(of_encoder) == 7 * 5
    assert of_encoder <= same
    assert not [name for name in same - of_encoder if name.endswith("weight") or "running_mean" in name]
    # In the first phase they learned.
    assert not any(torch.equal(states[0][name], fresh[name]) for name in of_encoder if "running" in name)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"data": "busi", "root": "."}, InvalidParameter, "must be one of omi-db, rsna-2022, got busi"),
        ({"data": "cbis-ddsm", "root": "."}, InvalidParameter, "must be one of omi-db, rsna-2022, got cbis-ddsm"),
        ({"data": "omi-db"}, InvalidParameter, "with root, the folder where it is, got data without root"),
        ({"root": "."}, InvalidParameter, "got root without data"),
    ],
)
def test_wrong_data_are_refused_before_anything_is_written(tmp_path, given, error, message):
    """Nothing lies in the folder afterwards."""
    with pytest.raises(error, match=message):
        train_inpainter(tmp_path / "run", PRESET, **given)
    assert not (tmp_path / "run").exists()


def test_weights_of_another_kind_are_refused(run, tmp_path):
    """The message names the file and no more of its path."""
    shutil.copytree(run / "data", tmp_path / "data")
    (tmp_path / "vgg.pth").write_bytes(b"tea leaves")
    with pytest.raises(InvalidInput, match=r"weights of VGG-16 must be a file of torch with .*, got vgg.pth"):
        train_inpainter(tmp_path, PRESET, vgg=tmp_path / "vgg.pth", device="cpu", n_workers=1)


def test_a_loss_that_is_not_finite_ends_the_training(run, tmp_path):
    """With advice."""
    shutil.copytree(run / "data", tmp_path / "data")
    shutil.copy(run / "perceptual.pt", tmp_path)
    wild = replace(PRESET, phases=(Phase(9, 1e30, has_norm=True),))
    with pytest.raises(TrainingError, match=r"the loss must be finite, got (nan|inf); a lower learning rate may help"):
        train_inpainter(tmp_path, wild, device="cpu", n_workers=1)


def test_images_of_one_and_three_channels(run, tmp_path):
    """With the batch of one of the paper, and a network for RGB."""
    spec = replace(PRESET.input, n_channels=3)
    preset = replace(PRESET, input=spec, batch_size=1, n_training=2, n_validation=1, phases=PRESET.phases[1:])
    found = train_inpainter(tmp_path, preset, device="cpu", n_workers=1)
    assert found.network.n_channels == 3
    assert len(found.record["epochs"]) == 2


def test_runs_of_other_models_are_refused(tmp_path):
    """By their task."""
    (tmp_path / "training.json").write_text(json.dumps({"task": "classification"}))
    with pytest.raises(TrainingError, match="the run must be of task inpainting, got 'classification'"):
        load_inpainter_run(tmp_path)
