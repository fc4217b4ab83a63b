"""``radlens evaluate --domain`` of a classifier."""

import json

import pytest
from small_classifier import make_classifier

from radlens.datasets import ModelInput
from radlens.families.classifier.domain import fit_domain
from radlens.families.classifier.training_data import native_images

SHAPE = (128, 128)


@pytest.fixture(scope="module")
def domain():
    """The domain of small ultrasound images."""
    classes = ("benign", "malignant")
    images = native_images("ultrasound", ModelInput(SHAPE), classes, 400, seed=7, n_workers=1)
    return fit_domain(images[:320], images[320:])


@pytest.mark.slow
def test_both_sides_are_printed_and_written(run, tmp_path, domain):
    """Unseen images, wrong images by kind, the share of each, and a file."""
    training = {"preset": {"task": "ultrasound", "p_calcifications": 0.3}}
    bundle = make_classifier(
        tmp_path / "bundle",
        n_outputs=2,
        shape=SHAPE,
        graphs=(),
        domain=domain,
        training=training,
        classes=("benign", "malignant"),
        explainers=(),
        refused={},
    )
    result = run("evaluate", bundle.path, "--domain", "--simulated", "30", "--per-group", "2", "-o", tmp_path / "out")
    assert result.exit_code == 0, result.output
    record = json.loads((tmp_path / "out" / "domain.json").read_text())
    assert record["model"] == bundle.bundle_hash
    assert record["trained"]["n"] == 30
    assert record["trained"]["refused"] <= 2
    assert "an ultrasound image" not in record["wrong"]
    judged = [name for name, kind in record["wrong"].items() if kind["refused"] < kind["n"]]
    assert not judged
    assert "a chest film" in result.stdout
    assert "unseen images of the training range are refused" in " ".join(result.stdout.split())


@pytest.mark.parametrize(
    ("known", "training", "message"),
    [
        (False, {"preset": {"task": "ultrasound"}}, "--domain needs a bundle that knows its training images"),
        (
            True,
            {},
            "--domain needs images that radlens simulates, of task ultrasound, mammograms, patches, nodules; got "
            "no task",
        ),
    ],
)
def test_what_cannot_be_measured_is_named(run, tmp_path, domain, known, training, message):
    """A bundle of other images, and one that knows none."""
    bundle = make_classifier(
        tmp_path / "bundle",
        n_outputs=2,
        shape=SHAPE,
        graphs=(),
        domain=domain if known else None,
        training=training,
        explainers=(),
        refused={},
    )
    result = run("evaluate", bundle.path, "--domain", "--simulated", "2")
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())
