import math
from copy import deepcopy
from dataclasses import FrozenInstanceError, fields

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from torch import nn

from radlens import explainers
from radlens.errors import InvalidInput, InvalidParameter
from radlens.explainers import Explainer, register
from radlens.explainers.ranges import Finite, Flag, OneOf, Whole, ranges_of


class Quadratic(FakeModel):
    """Score ``0.5 |x|^2`` per image; its gradient is the image."""

    def score(self, images):
        """Half the squared norm."""
        return 0.5 * (images**2).sum(dim=(1, 2, 3))

    def gradient(self, images):
        """The images themselves."""
        return images


class Classes(Quadratic):
    """A classifier that answers everything: its two logits are half the squared norm and its negative."""

    n_outputs = 2

    def outputs(self, images):
        """Two logits."""
        score = super().score(images)
        return torch.stack([score, -score], dim=1)

    def score(self, images, targets):
        """The logit of each target."""
        return self.outputs(images).gather(1, targets[:, None])[:, 0]

    def gradient(self, images, targets):
        """The images, or their negatives."""
        return images * (1 - 2 * targets)[:, None, None, None]

    def guided(self, images, targets):
        """Positive parts of the gradient."""
        return self.gradient(images, targets).relu()

    def features(self, images, targets):
        """The image as its own feature map, with a gradient that is the same everywhere."""
        return images, torch.full_like(images, 0.5)

    def inpaint(self, images, masks):
        """Holes become 0."""
        return images * masks

    def odds(self, images, targets):
        """The logit of each target and its gradient."""
        return self.score(images, targets), self.gradient(images, targets)

    def impact(self, images, masks, targets):
        """The logit of the image with its holes at 0."""
        return (self.score(images * masks, targets),)

    def generated(self, images):
        """One brighter, one darker."""
        return images + 1, images - 1

    def cycled(self, images, others):
        """The way back is exact; the generators aim at both classes."""
        return images - 1, others + 1, torch.tensor([0.0, 1.0]).expand(len(images), 2)

    def proposal(self, images, targets):
        """Replace what is brighter than 1, whatever the class."""
        return (images > 1).to(images)[:, :1], torch.ones(len(images))

    def counterfactual(self, images, masks, targets):
        """The logit of the image with its holes at 0, and its gradient by the mask."""
        return self.score(images * masks, targets), (self.gradient(images * masks, targets) * images).sum(1, True)

    def deep_lift(self, images, baselines, targets):
        """Exact for this score when the baseline is zero."""
        return 0.5 * images * self.gradient(images, targets)

    def lrp_epsilon(self, images, epsilons, targets):
        """Relevance that sums to the score."""
        return 0.5 * images * self.gradient(images, targets)

    def lrp_deep_taylor(self, images, targets):
        """Relevance of positive scores alone."""
        return (0.5 * images * self.gradient(images, targets)).relu()


MODELS = {"omig": Quadratic(), "sensitivity": Quadratic()}
"""Methods of models with one score."""


@pytest.mark.parametrize("name", explainers.names())
def test_every_method_maps_images_to_maps_of_their_shape(name):
    """Each registered method, with its defaults, gives one finite map per image and leaves the images alone."""
    images = torch.randn(2, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    before = images.clone()
    maps = explainers.create(name).attribute(MODELS.get(name, Classes()), images)
    assert maps.shape == images.shape
    assert maps.isfinite().all()
    assert torch.equal(images, before)


@pytest.mark.parametrize("name", explainers.names())
def test_every_method_is_immutable_and_refuses_other_shapes(name):
    """Options cannot change after construction; three dimensions are refused."""
    method = explainers.create(name)
    for field in fields(method):
        with pytest.raises(FrozenInstanceError):
            setattr(method, field.name, 1)
    with pytest.raises(InvalidInput, match=r"4 dimensions \(b, c, h, w\), got 3"):
        method.attribute(Quadratic(), torch.zeros(1, 5, 5))


def test_sensitivity_is_minus_the_gradient():
    """The registered method and the function agree with ``-R(x)``."""
    images = torch.randn(2, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(explainers.create("sensitivity").attribute(Quadratic(), images), -images)


def test_unknown_names_are_refused():
    """Unknown methods and parameters are named, with what is known."""
    with pytest.raises(
        InvalidParameter,
        match=r"one of cam, counterfactual, counterfactual_fast, cycle_activation, .*, smooth_grad, got 'lrb'",
    ):
        explainers.get("lrb")
    with pytest.raises(InvalidParameter, match="n_steps, path_length, zscore; got speed"):
        explainers.create("omig", speed=3)
    with pytest.raises(InvalidParameter, match="must be among: none; got n_steps"):
        explainers.create("sensitivity", n_steps=3)


def test_alternatives_ask_other_questions():
    """By the names that bundles refuse them under; a method without alternatives has one variant."""
    assert explainers.variants("lrp") == {
        "lrp": ("lrp_epsilon", "score"),
        "lrp rule=deep_taylor": ("lrp_deep_taylor", "score"),
    }
    assert explainers.variants("saliency") == {"saliency": ("gradient",)}
    assert explainers.create("lrp", rule="deep_taylor").variant == "lrp rule=deep_taylor"


def test_a_name_can_be_taken_once():
    """Registering a second method under a name fails."""
    with pytest.raises(ValueError, match="'omig' is already registered"):
        register("omig")(Explainer)


@pytest.mark.parametrize("name", explainers.names())
def test_no_image_has_no_map(name):
    """A batch of none gives a batch of none, with and without targets."""
    images = torch.zeros(0, 1, 6, 5)
    assert explainers.create(name).attribute(MODELS.get(name, Classes()), images).shape == images.shape
    if name not in MODELS:
        assert explainers.create(name).explain(Classes(), images, 1) == []


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (torch.full((1, 1, 3, 3), torch.nan), "images must be finite, got NaN or infinity"),
        (torch.zeros(1, 1, 3, 3, dtype=torch.int64), "images must be a floating point tensor, got torch.int64"),
        (np.zeros((1, 1, 3, 3)), "images must be a floating point tensor, got ndarray"),
        (torch.zeros(1, 1, 0, 3), r"images must have at least one pixel, got shape \(1, 1, 0, 3\)"),
    ],
    ids=["NaN", "integers", "array", "no pixel"],
)
def test_odd_images_are_refused(images, message):
    """By all methods, before anything is computed."""
    for name in ("saliency", "sensitivity"):
        with pytest.raises(InvalidInput, match=message):
            explainers.create(name).attribute(MODELS.get(name, Classes()), images)


def test_what_is_no_model_is_refused():
    """A function has neither a score nor a gradient."""
    with pytest.raises(InvalidInput, match=r"model must be a torch module or a radlens Model, got function"):
        explainers.create("saliency").attribute(lambda images: images, torch.zeros(1, 1, 3, 3))


BAD: dict[type, list[tuple[object, str]]] = {
    Whole: [("a", "an integer, got 'a'"), (2.5, "an integer, got 2.5"), (True, "an integer, got True")],
    Finite: [("a", "finite"), (math.nan, "finite, got nan|a finite number, got nan"), (math.inf, "finite")],
    Flag: [("no", "True or False, got 'no'")],
    OneOf: [("no", "one of .*, got 'no'")],
}


@pytest.mark.parametrize("name", explainers.names())
def test_parameters_of_another_kind_are_refused(name):
    """Text, fractions, NaN: no method is made with a value that it cannot compute with."""
    for parameter, allowed in ranges_of(explainers.get(name)).items():
        bad = next(values for kind, values in BAD.items() if isinstance(allowed, kind))
        for value, message in bad:
            with pytest.raises(InvalidParameter, match=f"{parameter} must be .*({message})"):
                explainers.create(name, **{parameter: value})
        if getattr(explainers.create(name), parameter) is not None:
            with pytest.raises(InvalidParameter, match=f"{parameter} must be .*, got None"):
                explainers.create(name, **{parameter: None})


@pytest.mark.parametrize("name", ["lime", "shap"])
def test_one_set_of_superpixels_fits_no_model(name):
    """Its map would be zero everywhere."""
    with pytest.raises(InvalidParameter, match="n_evaluations must be at least 2, got 1"):
        explainers.create(name, n_evaluations=1)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["saliency", "deep_lift", "grad_cam", "guided_grad_cam", "lrp"])
@pytest.mark.parametrize("inference", [False, True])
def test_the_users_module_stays_as_it_was(name, inference):
    """Training mode, gradients and hooks; also under inference_mode, where autograd keeps nothing."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    network = nn.Sequential(*layers, nn.Linear(3, 2)).train()
    images = torch.randn(2, 1, 8, 8)
    expected = explainers.create(name).attribute(deepcopy(network).eval(), images, 1)
    called = []
    handle = network[0].register_forward_hook(lambda *_: called.append(1))
    network[-1].weight.grad = torch.ones_like(network[-1].weight)
    before = deepcopy(network.state_dict())
    with torch.inference_mode(inference):
        found = explainers.create(name).attribute(network, images.clone(), 1)
    torch.testing.assert_close(found, expected)
    assert network.training
    assert network[1].training
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert torch.equal(network[-1].weight.grad, torch.ones_like(network[-1].weight))
    assert network[0]._forward_hooks == {handle.id: network[0]._forward_hooks[handle.id]}
    assert not any(layer._backward_hooks for layer in network.modules())
    assert found.requires_grad is False
