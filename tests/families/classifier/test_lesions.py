"""The causal record of classifiers on simulated images."""

import json

import numpy as np
import pytest
import torch
from scipy.ndimage import binary_dilation
from tiny_classifier import tiny

from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter
from radlens.families.classifier.lesions import lesion_pair, lesion_record, unseen_pair
from radlens.families.classifier.tables import causal_tables
from radlens.families.classifier.training_data import build_sets
from radlens.phantoms import mammogram, nodule, ultrasound

INPUTS = {
    "ultrasound": ModelInput((112, 112), scaling="fixed", mean=(80.0,), std=(50.0,)),
    "patches": ModelInput((224, 224), scaling="fixed", mean=(1500.0,), std=(900.0,)),
    "mammograms": ModelInput((256, 128), scaling="fixed", mean=(1500.0,), std=(900.0,)),
    "nodules": ModelInput((64, 64), scaling="fixed", mean=(-1000.0,), std=(1400.0,)),
}


def detector(images):
    """A classifier that knows lesions: bright ones in mammograms."""
    return _probabilities(images.amax(dim=(1, 2, 3)))


def _probabilities(score):
    positive = torch.sigmoid(score.double())
    return torch.stack([1 - positive, positive], dim=1)


def test_a_classifier_that_sees_the_lesion_loses_its_score():
    """The maximum of a patch without its calcifications is lower in most images; that of replaced tissue is not."""
    found = lesion_record(detector, 1, "patches", INPUTS["patches"], n=8, lesions={"p_calcifications": 1.0})
    assert found["lesion"]["n_lowered"] >= 7
    assert found["lesion"]["fall"] > 0.5
    assert found["control"]["n_lowered"] < 7
    assert abs(found["control"]["fall"]) < 0.3
    assert found["p"] < 0.05


def test_a_classifier_that_sees_the_nodule_loses_its_score():
    """The mean of the middle falls in every patch without its nodule; that of replaced lung stays."""
    found = lesion_record(
        lambda images: _probabilities(10 * images[:, :, 28:36, 28:36].mean(dim=(1, 2, 3))),
        *(1, "nodules", INPUTS["nodules"]),
        n=12,
    )
    assert found["lesion"]["n_lowered"] == 12
    assert found["lesion"]["fall"] > 10 * abs(found["control"]["fall"])
    assert found["p"] < 0.01


def test_a_pair_of_nodules_is_the_patch_with_and_without_it():
    """In the units of the network, and the lung is the organ of which other pieces are removed."""
    for category, number in (("benign", 0), ("malignant", 1)):
        pair = lesion_pair("nodules", INPUTS["nodules"], category, (3, number))
        with_it, without = (nodule.sample(category, removed=flag, seed=(3, number)) for flag in (False, True))
        np.testing.assert_allclose(pair.image[0], (with_it.pixels + 1000) / 1400, atol=1e-6)
        np.testing.assert_allclose(pair.healthy[0], (without.pixels + 1000) / 1400, atol=1e-6)
        np.testing.assert_array_equal(pair.lesion_mask, with_it.mask)
        np.testing.assert_array_equal(pair.organ, with_it.lung)
        assert pair.positive


@pytest.mark.parametrize("task", INPUTS)
def test_a_classifier_of_the_corner_does_not_lose_its_score(task):
    """The mean of the first rows and columns holds no lesion: nothing changes but for rounding and the same gain."""
    found = lesion_record(
        lambda images: _probabilities(images[:, :, :4, :4].mean(dim=(1, 2, 3))), 1, task, INPUTS[task], n=6
    )
    assert abs(found["lesion"]["fall"]) < 0.02
    assert found["lesion"]["fall_low"] > -0.05
    assert found["task"] == task


def test_the_table_states_lesion_and_control():
    """One row each; without a record there is no table, and a control that was impossible is stated."""
    found = lesion_record(detector, 1, "patches", INPUTS["patches"], n=4)
    (table,) = causal_tables(found)
    assert table.rows[0][1] == f"{found['lesion']['n_lowered']} of 4"
    assert causal_tables(None) == []
    (table,) = causal_tables({**found, "control": None, "p": None})
    assert table.rows[1][1] == "not possible"


@pytest.mark.parametrize("sample", [mammogram.sample, mammogram.sample_patch, ultrasound.sample])
def test_a_removed_lesion_leaves_the_rest_of_the_image(sample):
    """Nothing is recorded, and no pixel far from the lesion and its features changes, but for the last grey level."""
    shape = (512, 256) if sample is mammogram.sample else (224, 224)
    for seed in range(3):
        image, healthy = (sample("malignant", image_shape=shape, removed=flag, seed=seed) for flag in (False, True))
        assert not healthy.malignant
        if isinstance(image, ultrasound.UltrasoundImage):
            touched, rest = image.mask | np.any(list(image.changed.values()), axis=0), 1.0
            assert not healthy.mask.any()
            assert healthy.gain == image.gain
        else:
            findings = image.findings if isinstance(image, mammogram.Mammogram) else [image.finding]
            # Below the recorded limit of 0.01, which are 47 grey levels, mass and spicules may add up.
            touched, rest = np.any([m for each in findings for m in each.changed.values()], axis=0), 95.0
        change = np.abs(image.pixels - healthy.pixels)
        if rest > 1:
            assert change[~touched].max() < rest
        else:
            assert change[~binary_dilation(touched, iterations=12)].mean() < rest
        assert change[touched].mean() > 5


@pytest.mark.parametrize(
    ("task", "n", "message"),
    [
        ("chest", 4, "task must be patches, mammograms, ultrasound, nodules"),
        ("patches", 1, "number of images must be at least 2"),
    ],
)
def test_bad_arguments_get_a_clear_error(task, n, message):
    """Each is named with what was expected."""
    with pytest.raises(InvalidParameter, match=message):
        lesion_record(detector, 1, task, INPUTS["patches"], n=n)


def _record(input_shape=(96, 72), **preset):
    network = ModelInput(input_shape, framing="breast")
    preset = {"task": "mammograms", "p_calcifications": 0.0, **preset}
    return {"preset": preset, "data": None, "classes": ["healthy", "mass"], "model_input": network.to_json()}


def test_unseen_pairs_are_the_test_images_of_training(tmp_path):
    """Pixel for pixel, up to the half precision that training keeps, with the masses and the seed of the recipe."""
    preset = tiny(
        "mammogram-mobilenet",
        input=ModelInput((96, 72), framing="breast"),
        masses=mammogram.Masses((16.0, 20.0), 1.5),
        seed=5,
    )
    tested = build_sets(tmp_path, preset, n_workers=1)["test"]
    record = _record(**json.loads(json.dumps(preset.to_json())))
    for i, image in enumerate(tested.images):
        pair = unseen_pair(record, i)
        np.testing.assert_array_equal(pair.image.astype(np.float16), image)
        assert pair.positive == bool(tested.labels[i]) == bool(i % 2)
        assert pair.seed == (5, 2, i)


@pytest.mark.parametrize("number", [1, 3, 5, 7])
def test_the_image_without_lesion_differs_at_the_lesion(number):
    """Up to the scale of each image, far from a mass nothing changes; masks lie in the breast, in the frame."""
    pair = unseen_pair(_record((288, 224)), number)
    assert pair.image.shape == pair.healthy.shape == (1, 288, 224)
    assert pair.masks
    assert pair.lesion_mask.any()
    assert not (pair.lesion_mask & ~pair.organ).any()
    far = pair.organ & ~binary_dilation(pair.lesion_mask, iterations=80)
    slope, offset = np.polyfit(pair.healthy[0][far], pair.image[0][far], 1)
    change = np.abs(pair.image[0] - (slope * pair.healthy[0] + offset))
    # Grey levels are whole numbers, of which about 700 are one standard deviation.
    assert change[far].max() < 5e-3
    assert change[pair.lesion_mask].mean() > 20 * change[far].mean()
    # A stretched crop to the breast: its mask reaches the first column and nearly the last.
    assert pair.organ[:, 0].any()
    assert pair.organ[:, -4:].any()


def test_healthy_images_have_themselves_as_a_pair():
    """Nothing is removed where there is no lesion."""
    pair = unseen_pair(_record(), 4)
    np.testing.assert_array_equal(pair.image, pair.healthy)
    assert pair.masks == ()
    assert not pair.lesion_mask.any()
    assert not pair.positive


def test_pairs_of_every_task():
    """Patches and ultrasound images have their lesions removed as well."""
    for task, network in INPUTS.items():
        pair = lesion_pair(task, network, "malignant", (3, 1))
        assert len(pair.masks) >= 1
        assert not np.array_equal(pair.image, pair.healthy)
        assert pair.organ.shape == network.shape


def test_the_record_names_the_class():
    """Masses are removed from images of the class mass, with the masses of the recipe."""
    options = {"category": "mass", "lesions": {"masses": mammogram.Masses((20.0, 26.0), 2.0)}}
    found = lesion_record(detector, 1, "mammograms", INPUTS["mammograms"], n=4, **options)
    assert found["category"] == "mass"
    assert "log-odds of mass when a simulated mass is removed" in found["meaning"]
    assert causal_tables(found)[0].rows[0][0] == "mass"


@pytest.mark.parametrize(
    ("record", "number", "message"),
    [
        ({"data": "omi-db", "preset": {}}, 0, "the run must have simulated images, got omi-db"),
        ({}, 0, "the run must have simulated images, got no recipe"),
        (_record(), -1, "number must be at least 0, got -1"),
        (_record(task="chest"), 0, "task must be patches, mammograms, ultrasound, nodules"),
    ],
)
def test_pairs_that_cannot_be_simulated_are_refused(record, number, message):
    """Each is named with what was expected."""
    with pytest.raises(InvalidParameter, match=message):
        unseen_pair(record, number)
