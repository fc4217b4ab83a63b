"""Images of odd sizes and values, and where on them a map lands."""

import io

import numpy as np
import PIL.Image
import pytest
import torch
from class_requests import QUICK, answer, explained, fields, picture, refused
from fake_model import FakeModel
from small_classifier import SHAPE, EagerMember, class_methods

from radlens import explainers
from radlens.datasets import ModelInput

ODD = {
    "all zero": np.zeros((40, 30), dtype=np.uint16),
    "constant": np.full((40, 30), 7, dtype=np.uint16),
    "one pixel": np.ones((1, 1), dtype=np.float32),
    "one row": picture((1, 700)),
    "narrow": picture((900, 3)),
    "small": picture((5, 4)),
    "large": picture((300, 200)),
    "negative": -picture((30, 30)),
    "huge values": picture((30, 30)) * np.float32(1e34),
    "nearly constant": 1e6 + np.eye(30, dtype=np.float32) * 1e-2,
}


EVEN = ("all zero", "constant", "one pixel", "nearly constant")


@pytest.mark.parametrize("name", [name for name in ODD if name not in EVEN])
def test_odd_images_are_explained(service, name):
    """A finite map on their own grid, a trust card that is strict JSON, and a picture."""
    pixels = ODD[name]
    for method in ("integrated_gradients", "lime"):
        found, said = explained(service, pixels=pixels, method=method, trust="true", **QUICK[method])
        assert found.shape == pixels.shape
        assert np.isfinite(found).all()
        assert 0 <= said["trust"]["deletion"] <= 1
    drawn = PIL.Image.open(io.BytesIO(answer(service, pixels=pixels, output="overlay", method="cam").body))
    assert max(drawn.size) <= 1250


@pytest.mark.parametrize("name", EVEN)
def test_even_images_have_no_map(service, name):
    """Nothing is to be seen in them, and the answer says so."""
    found = fields(answer(service, pixels=ODD[name], method="lime"))
    assert (found["assessable"], found["explanation"]) == (False, None)
    assert found["reasons"] == ["all pixels have one value; there is nothing to see"]
    drawn = PIL.Image.open(io.BytesIO(answer(service, pixels=ODD[name], output="overlay", method="cam").body))
    assert max(drawn.size) <= 1250


@pytest.mark.parametrize("method", class_methods())
def test_no_method_fails_on_an_almost_even_image(eager_service, method):
    """Superpixels, ranges and weights of next to nothing."""
    pixels = np.zeros(SHAPE, np.float32)
    pixels[3, 4] = 1.0
    found, _ = explained(eager_service(), pixels=pixels, method=method, **QUICK.get(method, {}))
    assert np.isfinite(found).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_must_be_finite(service, value):
    """One NaN is enough."""
    pixels = picture()
    pixels[3, 4] = value
    status, message = refused(service, pixels=pixels)
    assert status == 422
    assert "pixels must be finite" in message


@pytest.mark.parametrize("shape", [(128, 96), (90, 30)])
def test_a_map_is_on_the_grid_of_the_sent_image(service, shape):
    """The map of what the network saw, enlarged bilinearly by another library; values keep their unit."""
    pixels = picture(shape)
    found, _ = explained(service, pixels=pixels, method="occlusion", target=0, window=8, stride=5)
    seen = torch.from_numpy(ModelInput(SHAPE).prepare(pixels).pixels)[None]
    values = explainers.create("occlusion", window=8, stride=5).attribute(EagerMember(), seen, 0)[0, 0].numpy()
    expected = np.array(PIL.Image.fromarray(values).resize(shape[::-1], PIL.Image.Resampling.BILINEAR))
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4 * np.abs(values).max())


class UpperChestWall(FakeModel):
    """A model that looks at the upper left quarter of what it gets: the upper part of the breast at the chest wall."""

    n_outputs, image_shape = 1, (1, *SHAPE)
    refused = ()

    def __init__(self):
        self.members, self.engines = (self,), {"prediction": "none"}

    def engine(self, name):
        """Return itself."""
        self.name = "none"
        return self

    def outputs(self, images):
        """Return the mean of the quarter."""
        return images[:, :, :16, :12].mean(dim=(2, 3))

    def score(self, images, targets):
        """Return the score of class 1."""
        return self.outputs(images)[:, 0]


def breast(*, right):
    """Return an image of a breast from column 0 to 39 of 80, rows 10 to 89 of 100, or mirrored."""
    rows, columns = np.ogrid[-40:40, 0:40]
    pixels = np.zeros((100, 80), dtype=np.float32)
    pixels[10:90, :40] = np.where((rows + 0.5) ** 2 / 1600 + columns**2 / 1600 < 1, 500, 0)
    pixels[20:60, 5:20] *= 2
    return pixels[:, ::-1].copy() if right else pixels


@pytest.mark.parametrize("right", [False, True])
def test_maps_of_right_breasts_land_on_the_right(eager_service, right):
    """The network sees every breast with the chest wall at the left; the map is turned back, and 0 around the crop."""
    service = eager_service(model=UpperChestWall(), n_outputs=1, input=ModelInput(SHAPE, framing="breast"))
    found, said = explained(service, pixels=breast(right=right), method="occlusion", target=1, window=4, stride=2)
    assert said["warnings"] == []
    strength = np.abs(found[:, ::-1] if right else found)
    assert strength[10:50, :20].sum() > 0.85 * strength.sum()
    assert strength[:10].sum() == strength[90:].sum() == strength[:, 40:].sum() == 0


def test_mirrored_breasts_are_the_same_to_the_network(eager_service):
    """Prediction and map mirror, bit for bit."""
    service = eager_service(input=ModelInput(SHAPE, framing="breast"))
    left, said_left = explained(service, pixels=breast(right=False), method="saliency")
    right, said_right = explained(service, pixels=breast(right=True), method="saliency")
    assert said_left["prediction"] == said_right["prediction"]
    np.testing.assert_array_equal(left, right[:, ::-1])


def test_an_image_without_a_breast_is_taken_whole(eager_service):
    """And the reader is told."""
    service = eager_service(input=ModelInput(SHAPE, framing="breast"))
    said = fields(answer(service, "predict", ODD["constant"]))
    assert "no breast was found in the image; the whole image was used" in said["warnings"]


def test_grey_images_are_repeated_for_networks_of_colours(eager_service):
    """The map of three equal channels is the sum of theirs, that of a method which treats them as one is not."""

    class Colours(UpperChestWall):
        image_shape = (3, *SHAPE)

        def gradient(self, images, targets):
            """Return 1, 2 and 3 for the channels."""
            return torch.ones_like(images) * torch.tensor([1.0, 2.0, 3.0]).reshape(3, 1, 1)

    service = eager_service(model=Colours(), n_outputs=1, input=ModelInput(SHAPE, n_channels=3))
    found, _ = explained(service, method="saliency", target=1)
    np.testing.assert_array_equal(found, np.full(SHAPE, 6.0, dtype=np.float32))
    found, _ = explained(service, method="occlusion", target=1, window=100)
    np.testing.assert_allclose(found, np.full(SHAPE, fields(answer(service, "predict"))["prediction"]["logits"][0]))
