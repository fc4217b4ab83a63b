"""The causal record of classifiers on simulated images."""

import numpy as np
import pytest
import torch

from radlens.datasets import ModelInput
from radlens.errors import InvalidParameter
from radlens.families.classifier.lesions import lesion_record
from radlens.families.classifier.tables import causal_tables
from radlens.phantoms import mammogram, ultrasound

INPUTS = {
    "ultrasound": ModelInput((112, 112), scaling="fixed", mean=(80.0,), std=(50.0,)),
    "patches": ModelInput((224, 224), scaling="fixed", mean=(1500.0,), std=(900.0,)),
    "mammograms": ModelInput((256, 128), scaling="fixed", mean=(1500.0,), std=(900.0,)),
}


def detector(images):
    """A classifier that knows lesions: bright ones in mammograms."""
    return _probabilities(images.amax(dim=(1, 2, 3)))


def _probabilities(score):
    positive = torch.sigmoid(score.double())
    return torch.stack([1 - positive, positive], dim=1)


def test_a_classifier_that_sees_the_lesion_loses_its_score():
    """The maximum of a patch without its calcifications is lower in most images; that of replaced tissue is not."""
    found = lesion_record(detector, 1, "patches", INPUTS["patches"], n=8, p_calcifications=1.0)
    assert found["lesion"]["n_lowered"] >= 7
    assert found["lesion"]["fall"] > 0.5
    assert found["control"]["n_lowered"] < 7
    assert abs(found["control"]["fall"]) < 0.3
    assert found["p"] < 0.05


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
            from scipy.ndimage import binary_dilation

            assert change[~binary_dilation(touched, iterations=12)].mean() < rest
        assert change[touched].mean() > 5


@pytest.mark.parametrize(
    ("task", "n", "message"),
    [
        ("chest", 4, "task must be ultrasound, patches, mammograms"),
        ("patches", 1, "number of images must be at least 2"),
    ],
)
def test_bad_arguments_get_a_clear_error(task, n, message):
    """Each is named with what was expected."""
    with pytest.raises(InvalidParameter, match=message):
        lesion_record(detector, 1, task, INPUTS["patches"], n=n)
