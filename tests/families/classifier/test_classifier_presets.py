from dataclasses import replace

import pytest

from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, WarmUp

PATCHES, MAMMOGRAMS, ULTRASOUND = (
    CLASSIFIER_PRESETS[model]["paper"] for model in ("patch-resnet50", "mammogram-efficientnet-b0", "ultrasound-resnet")
)


def test_patch_presets_hold_the_numbers_of_the_paper():
    """Sam Millan 2023, 3.2.2: Adam 1e-3, plateau of 5 epochs, cross entropy, flips, 30 degrees, 224x224."""
    assert (PATCHES.network, PATCHES.input.shape) == ("resnet50", (224, 224))
    assert (PATCHES.optimizer, PATCHES.learning_rate, PATCHES.schedule, PATCHES.patience) == (
        "adam",
        1e-3,
        "plateau",
        5,
    )
    assert (PATCHES.loss, PATCHES.flips, PATCHES.rotation) == ("cross-entropy", (0, 1), 30.0)
    assert PATCHES.n_training + PATCHES.n_validation == 6090
    assert PATCHES.n_test == 1526
    assert CLASSIFIER_PRESETS["patch-mobilenet-v2"]["paper"] == replace(PATCHES, network="mobilenet_v2")


def test_the_mammogram_preset_holds_the_numbers_of_the_paper():
    """Sam Millan 2023, 3.2.3: 1024x512 of the breast, SGD with 1e-2, cosine warm restarts."""
    assert MAMMOGRAMS.network == "efficientnet_b0"
    assert MAMMOGRAMS.input == ModelInput((1024, 512), framing="breast")
    assert (MAMMOGRAMS.optimizer, MAMMOGRAMS.learning_rate, MAMMOGRAMS.schedule) == ("sgd", 1e-2, "warm-restarts")
    assert (MAMMOGRAMS.n_training + MAMMOGRAMS.n_validation, MAMMOGRAMS.n_test) == (5788, 1441)


def test_the_ultrasound_preset_holds_the_numbers_of_the_paper():
    """Byra et al. 2022: one output, Adam 1e-3, batches of 12, 224x224, stops after 8 epochs, 272 masses twice."""
    assert (ULTRASOUND.n_outputs, ULTRASOUND.classes) == (1, ("benign", "malignant"))
    assert (ULTRASOUND.optimizer, ULTRASOUND.learning_rate, ULTRASOUND.batch_size) == ("adam", 1e-3, 12)
    assert (ULTRASOUND.input.shape, ULTRASOUND.stop_after) == ((224, 224), 8)
    assert (ULTRASOUND.n_training + ULTRASOUND.n_validation, ULTRASOUND.n_test) == (408, 136)


def test_demo_recipes_classify_what_the_papers_do():
    """Task, network, classes and outputs are those of the paper; only mammograms are smaller."""
    for model, presets in CLASSIFIER_PRESETS.items():
        demo, paper = presets["demo"], presets["paper"]
        for name in ("task", "network", "classes", "n_outputs", "loss"):
            assert getattr(demo, name) == getattr(paper, name)
        assert (demo.input == paper.input) == (model != "mammogram-efficientnet-b0")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "lungs"}, "task must be one of patches, mammograms, ultrasound, got 'lungs'"),
        ({"network": "alexnet"}, "network must be one of resnet50, .* got 'alexnet'"),
        ({"loss": "hinge"}, "loss must be one of cross-entropy, focal, got 'hinge'"),
        ({"schedule": "none"}, "schedule must be one of plateau, warm-restarts, one-cycle, got 'none'"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, sgd, got 'lion'"),
        ({"n_outputs": 3}, "n_outputs must be 1 or 2, got 3"),
        ({"n_test": 1}, "n_test must be at least 2, got 1"),
        ({"n_members": 0}, "n_members must be at least 1, got 0"),
        ({"class_weight": 0.0}, r"class_weight must be above 0, got 0\.0"),
        ({"learning_rate": float("nan")}, "learning_rate must be above 0, got nan"),
    ],
)
def test_values_out_of_range_are_refused(changes, message):
    """What was expected is told."""
    with pytest.raises(InvalidParameter, match=message):
        replace(PATCHES, **changes)


def test_a_warm_up_of_nothing_is_refused():
    """At least one epoch, of images in which five halvings leave a pixel."""
    with pytest.raises(InvalidParameter, match="epochs of the warm-up must be at least 1, got 0"):
        WarmUp(0, (64, 64))
    with pytest.raises(
        InvalidParameter, match=r"shape of the warm-up must be two numbers of at least 32, got \(64, 16\)"
    ):
        WarmUp(1, (64, 16))
