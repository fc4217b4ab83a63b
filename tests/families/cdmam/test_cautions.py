"""What a reader is told about unusual images."""

import numpy as np
import pytest

from radlens.families.cdmam.cautions import cautions
from radlens.families.cdmam.manifest import InputSpec
from radlens.images import Image

TRAINED = InputSpec(100.0, 10.0, 0.07, "grid", (90.0, 110.0), (0.0, 20.0))


def image(value=100.0, shape=(300, 300), spacing_mm=(0.07, 0.07)):
    """Return a constant image."""
    return Image(np.full(shape, value, dtype=np.float32), spacing_mm, "image/png", "0" * 64)


def test_usual_images_need_no_caution():
    """Also at 10 % more or less than the trained spacing."""
    assert cautions(image(), TRAINED) == []
    assert cautions(image(spacing_mm=(0.064, 0.0769)), TRAINED) == []


@pytest.mark.parametrize(
    ("unusual", "expected"),
    [
        (image(spacing_mm=None), "the image states no pixel spacing; the model was trained at 0.07 mm"),
        (
            image(spacing_mm=(0.07, 0.1)),
            "pixel spacing 0.07 x 0.1 mm differs from the 0.07 mm the model was trained at",
        ),
        (image(200.0), "mean of the pixels 200 is outside the range seen in training, 90 to 110"),
    ],
)
def test_each_difference_is_named(unusual, expected):
    """With what it is and what it was in training."""
    assert cautions(unusual, TRAINED) == [expected]


def test_contrast_is_compared_as_well():
    """A standard deviation outside the trained range."""
    noisy = image()
    noisy.pixels[::2] += 100
    noisy.pixels[1::2] -= 100
    (caution,) = cautions(noisy, TRAINED)
    assert caution == "standard deviation of the pixels 100 is outside the range seen in training, 0 to 20"


def test_samples_have_no_spacing():
    """An image at the network's own size was sampled by the sender."""
    assert cautions(image(shape=(250, 250), spacing_mm=None), TRAINED) == []
