import json
from dataclasses import replace

import numpy as np
import pytest

from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS, WarmUp, lesion_options
from radlens.phantoms.mammogram import USUAL_MASSES, Masses

SECOND = "mammogram-resnet18"

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


def test_the_preset_for_masses_holds_the_numbers_of_the_paper():
    """Major et al. 2020, section 3: MobileNet, 576x448, Adam 1e-5, batches of 4, 250 epochs, flips, 50k patches."""
    masses = CLASSIFIER_PRESETS["mammogram-mobilenet"]["paper"]
    assert (masses.network, masses.classes) == ("mobilenet", ("healthy", "mass"))
    assert masses.input == ModelInput((576, 448))
    assert (masses.optimizer, masses.learning_rate, masses.batch_size, masses.epochs) == ("adam", 1e-5, 4, 250)
    assert masses.stop_after is not None
    # The rate of the paper is constant.
    assert masses.schedule == "plateau"
    assert masses.patience >= masses.epochs
    assert masses.flips == (0, 1)
    assert min(masses.rotation, masses.zoom) > 0
    assert masses.p_calcifications == 0
    assert masses.warm_up is not None
    assert (masses.warm_up.n_patches, masses.warm_up.shape) == (50_000, (224, 224))
    assert (masses.n_training + masses.n_validation, masses.n_test) == (1231 + 2000, 334 + 778)


def test_the_preset_for_nodules_holds_the_numbers_of_the_paper():
    """Katzmann et al. 2021, section 3: ConvNet, two outputs, weighted cross entropy, 537 and 235 patches of 64x64."""
    nodules = CLASSIFIER_PRESETS["nodule-convnet"]["paper"]
    assert (nodules.network, nodules.classes, nodules.n_outputs) == ("convnet", ("benign", "malignant"), 2)
    assert (nodules.input.shape, nodules.loss, nodules.class_weight) == ((64, 64), "cross-entropy", None)
    assert (nodules.n_training + nodules.n_validation, nodules.n_test) == (537, 235)
    # The ConvNet learns so few images by heart.
    assert nodules.stop_after is not None
    # The network sees -1000 to 400 HU as 0 to 1.
    ends = nodules.input.prepare(np.linspace(-1000, 400, 64 * 64).reshape(64, 64)).pixels
    assert (ends.min(), ends.max()) == (0, 1)


@pytest.mark.parametrize("names", [("mammogram-mobilenet", SECOND), ("nodule-convnet", "nodule-resnet18")])
def test_the_second_classifier_is_independent_of_the_first(names):
    """The same images to classify, with another network, other training images and other initial weights."""
    for variant in ("demo", "paper"):
        first, second = (CLASSIFIER_PRESETS[model][variant] for model in names)
        assert first.network != second.network
        assert first.seed != second.seed
        for name in ("task", "input", "classes", "n_outputs", "masses", "p_calcifications"):
            assert getattr(first, name) == getattr(second, name)


def test_demo_recipes_classify_what_the_papers_do():
    """Task, network, classes and outputs are those of the paper; only mammograms are smaller."""
    for model, presets in CLASSIFIER_PRESETS.items():
        demo, paper = presets["demo"], presets["paper"]
        for name in ("task", "network", "classes", "n_outputs", "loss"):
            assert getattr(demo, name) == getattr(paper, name)
        assert (demo.input == paper.input) == (not model.startswith("mammogram"))


def test_lesions_of_a_record_are_those_of_its_recipe():
    """Through JSON; a record without a recipe, or of an older one, has the lesions of the simulator."""
    masses = Masses((14.0, 28.0), 0.7)
    recipe = json.loads(json.dumps(replace(MAMMOGRAMS, masses=masses, p_calcifications=0.1).to_json()))
    assert lesion_options(recipe) == {"p_calcifications": 0.1, "masses": masses}
    assert lesion_options({}) == {"p_calcifications": 0.3, "masses": USUAL_MASSES}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "lungs"}, "task must be one of patches, mammograms, ultrasound, nodules, got 'lungs'"),
        ({"network": "alexnet"}, "network must be one of resnet50, .* got 'alexnet'"),
        ({"loss": "hinge"}, "loss must be one of cross-entropy, focal, got 'hinge'"),
        ({"schedule": "none"}, "schedule must be one of plateau, warm-restarts, one-cycle, got 'none'"),
        ({"optimizer": "lion"}, "optimizer must be one of adam, sgd, got 'lion'"),
        ({"n_outputs": 3}, "n_outputs must be 1 or 2, got 3"),
        ({"n_test": 1}, "n_test must be at least 2, got 1"),
        ({"zoom": 1.0}, r"zoom must be at least 0 and below 1, got 1\.0"),
        ({"n_members": 0}, "n_members must be at least 1, got 0"),
        ({"class_weight": 0.0}, r"class_weight must be above 0, got 0\.0"),
        ({"network": "convnet"}, r"input of convnet must have shape \(64, 64\), got \(224, 224\)"),
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
