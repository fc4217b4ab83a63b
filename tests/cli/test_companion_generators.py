"""``radlens companion generators``: from a classifier and images to a companion."""

import json

import numpy as np
import pytest
from small_classifier import make_classifier, make_network
from small_generators import INPUT, SHAPE, cycle_bundle, pixels

from radlens.families.classifier.fingerprint import network_hash
from radlens.families.companions.generators import load_generators
from radlens.images import to_npy


@pytest.fixture
def images(tmp_path):
    """A folder with fifteen images in two subfolders."""
    for number in range(15):
        file = tmp_path / "images" / f"part-{number % 2}" / f"{number}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(to_npy(pixels(number)))
    return tmp_path / "images"


@pytest.mark.slow
def test_generators_are_trained_against_a_bundle(run, images, tmp_path):
    """The four losses, a table, the next command, and a run that loads; the same command again trains nothing."""
    asked = ("companion", "generators", cycle_bundle(), "pair", "--images", images, "--preset", "demo", "--steps", 2)
    result = run(*asked, "--engine", "torch", "--seed", 3)
    assert result.exit_code == 0, result.stderr
    said = " ".join((result.stdout + result.stderr).split())
    for words in ("cycle 0.", "similarity 0.", "adversarial 0.", "activation 0.", "discriminators right on"):
        assert words in said
    for words in ("benign to malignant: 3 images", "G-(x)", "G+(x)", "--companion generators=pair"):
        assert words in said
    _, record = load_generators(tmp_path / "pair")
    assert record["classifier"]["network_hash"] == network_hash([make_network(0, 2)])
    assert record["n_images"] == {"training": 12, "validation": 3}
    assert (record["recipe"]["seed"], record["recipe"]["steps"]) == (3, 2)
    written = (tmp_path / "pair" / "training.json").stat().st_mtime_ns
    assert run(*asked, "--engine", "torch", "--seed", 3).exit_code == 0
    assert (tmp_path / "pair" / "training.json").stat().st_mtime_ns == written


def test_the_images_of_a_run_are_used(run, tmp_path, monkeypatch):
    """Training and validation images of the classifier's own run, without labels."""
    from radlens.families.classifier import cycling

    seen = {}

    def train(folder, classify, training, validation, recipe, **given):
        seen.update(shapes=(training.shape, validation.shape), recipe=recipe, **given)
        raise KeyboardInterrupt

    folder = tmp_path / "classifier"
    (folder / "data").mkdir(parents=True)
    explained = cycling.ExplainedClassifier("net", "", ("a", "b"), INPUT, "0" * 64, lambda images: images, {})
    monkeypatch.setattr(cycling, "of_run", lambda path: explained)
    monkeypatch.setattr("radlens.families.companions.cycle_training.train_generators", train)
    result = run("companion", "generators", folder, "pair")
    assert result.exit_code != 0
    assert "--images must name a folder: the run classifier has no images any more" in " ".join(result.stderr.split())
    for part, n in (("training", 5), ("validation", 3)):
        np.save(folder / "data" / f"{part}-labels.npy", np.zeros(n, np.int64))
        np.zeros((n, 1, *SHAPE), np.float16).tofile(folder / "data" / f"{part}-images.float16")
    run("companion", "generators", folder, "pair", "--preset", "paper")
    assert seen["shapes"] == ((5, 1, *SHAPE), (3, 1, *SHAPE))
    assert (seen["recipe"].width, seen["preset"], seen["classes"]) == (48, "paper", (0, 1))


@pytest.mark.slow
def test_what_cannot_be_learned_is_said(run, images, tmp_path):
    """An unknown preset, no hash of the weights, wrong classes, too few images, a file that is no image."""
    bundle = cycle_bundle()
    old = make_classifier(tmp_path / "old", n_outputs=2).path
    three = make_classifier(tmp_path / "three", network_hash="0" * 64).path
    said = {
        (bundle, "a", "--preset", "quick"): "--preset must be one of paper, recommended, demo, got 'quick'",
        (old, "b", "--images", images): "does not state the hash of its weights; make the bundle again",
        (three, "c", "--images", images): "--classes must name two of normal, benign, malignant, got none",
        (three, "d", "--classes", "benign,benign"): "must name two of normal, benign, malignant, got benign,benign",
        (bundle, "e"): "--images must name a folder: images of nodules cannot be simulated",
    }
    for asked, message in said.items():
        result = run("companion", "generators", *asked)
        assert result.exit_code != 0
        assert message in " ".join(result.stderr.split())
    (images / "notes.npy").write_bytes(b"no image")
    result = run("companion", "generators", bundle, "f", "--images", images)
    assert "every file of --images must be an image, got notes.npy" in " ".join(result.stderr.split())
    for file in sorted(images.rglob("*.npy"))[9:]:
        file.unlink()
    result = run("companion", "generators", bundle, "g", "--images", images)
    assert "--images must hold at least 10 images, got 9" in " ".join(result.stderr.split())


def test_a_run_of_generators_is_no_classifier(run, tmp_path):
    """The message names the task."""
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "training.json").write_text(json.dumps({"task": "cycle activation"}))
    result = run("companion", "generators", tmp_path / "other", "pair")
    assert result.exit_code != 0
    assert "must be of task classification, got 'cycle activation'" in " ".join(result.stderr.split())
