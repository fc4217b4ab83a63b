"""Every method beside Captum's, on one network in one run."""

from copy import deepcopy

import captum.attr as captum
import pytest
import torch
from torch import nn

from radlens import explainers
from radlens.errors import InvalidInput, UnsupportedOperation
from radlens.explainers.eager import EagerClassifier
from radlens.families.classifier.model import EnsembleClassifier
from radlens.networks import GeneratorPair, MaskProposer, PartialConvInpainter

TOLERANCE = {"rtol": 1e-4, "atol": 1e-6}
"""Maps are sums of float32 terms in another order."""

pytestmark = pytest.mark.filterwarnings("ignore")
"""Captum announces its hooks and gradients with warnings."""


def network(n_outputs=3, *, n_channels=2):
    """Return a small network with random weights; the last one makes its scores large enough for LIME's lasso."""
    torch.manual_seed(n_outputs)
    layers = [nn.Conv2d(n_channels, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 8, 3, padding=1)]
    found = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, n_outputs)).eval()
    found[-1].weight.data *= 20
    return found


NET = network()
COMPANIONS = {
    "generators": GeneratorPair(2, 2, classes=(0, 2)),
    "inpainter": PartialConvInpainter(2, 2),
    "proposer": MaskProposer(2, (0, 1, 2), 2),
}
MODEL = EagerClassifier(NET, (2, 32, 24), layer="4", as_captum=True, companions=COMPANIONS)
COARSE = torch.randn(2, 2, 8, 6, generator=torch.Generator().manual_seed(1))
IMAGES = nn.functional.interpolate(COARSE, scale_factor=4, mode="bilinear")
TARGETS = torch.tensor([2, 0])


METHODS_OF_CLASSES = sorted(set(explainers.names()) - {"omig", "sensitivity"})
FEW = {
    "counterfactual": {"n_steps": 3},
    "deep_shap": {"n_baselines": 3},
    "integrated_gradients": {"n_steps": 3},
    "lime": {"n_evaluations": 20, "n_segments": 6},
    "shap": {"n_evaluations": 20, "n_segments": 6},
    "smooth_grad": {"n_draws": 2},
}


def asked():
    """Return the images as Captum wants them for gradients."""
    return IMAGES.clone().requires_grad_()


def enlarged(maps, mode):
    """Return maps of a layer on the grid of the images, with Captum's own function."""
    return captum.LayerAttribution.interpolate(maps, IMAGES.shape[2:], mode)


CASES = {
    "saliency": ({}, lambda: captum.Saliency(NET).attribute(asked(), TARGETS)),
    "integrated_gradients": (
        {"n_steps": 37, "internal_batch_size": 5},
        lambda: captum.IntegratedGradients(NET).attribute(IMAGES, target=TARGETS, n_steps=37),
    ),
    "occlusion": (
        {"window": 10, "stride": 7, "baseline": 0.5},
        lambda: captum.Occlusion(NET).attribute(IMAGES, (2, 10, 10), (2, 7, 7), 0.5, TARGETS),
    ),
    "guided_grad_cam": ({}, lambda: captum.GuidedGradCam(NET, NET[4]).attribute(asked(), TARGETS)),
    "grad_cam": (
        {"positive_only": False},
        lambda: enlarged(captum.LayerGradCam(NET, NET[4]).attribute(IMAGES, TARGETS), "bilinear"),
    ),
    "deep_lift": ({"baseline": 0.2}, lambda: captum.DeepLift(NET).attribute(asked(), 0.2, TARGETS)),
}


@pytest.mark.parametrize("name", CASES)
def test_a_method_equals_captums(name):
    """Same network, images, targets and parameters."""
    parameters, theirs = CASES[name]
    ours = explainers.create(name, **parameters).attribute(MODEL, IMAGES, TARGETS)
    # Captum returns one channel for maps of a layer.
    torch.testing.assert_close(ours, theirs().detach().expand_as(IMAGES), **TOLERANCE)


@pytest.mark.parametrize(("name", "method"), [("lime", captum.Lime), ("shap", captum.KernelShap)])
def test_superpixel_methods_equal_captums_with_the_same_seed(name, method):
    """Sets of superpixels are drawn as Captum draws them, so the fitted models are the same."""
    ours = explainers.create(name, n_segments=12, n_evaluations=40, seed=3).attribute(MODEL, IMAGES, TARGETS)
    for image, target, found in zip(IMAGES, TARGETS, ours, strict=True):
        torch.manual_seed(3)
        mask = explainers.superpixels(image, 12)[None, None]
        theirs = method(NET).attribute(image[None], target=int(target), feature_mask=mask, n_samples=40)
        torch.testing.assert_close(found, theirs[0], **TOLERANCE)


@pytest.mark.parametrize("absolute", [True, False])
def test_smooth_grad_equals_captums_noise_tunnel(absolute):
    """The same noise gives the same map."""
    ours = explainers.create("smooth_grad", n_draws=6, noise=0.1, seed=5, absolute=absolute)
    found = ours.attribute(MODEL, IMAGES[:1], TARGETS[:1])
    torch.manual_seed(5)
    theirs = captum.NoiseTunnel(captum.Saliency(NET)).attribute(
        IMAGES[:1], nt_samples=6, stdevs=0.1 * float(IMAGES[0].max() - IMAGES[0].min()), target=2, abs=absolute
    )
    torch.testing.assert_close(found, theirs, **TOLERANCE)


def test_the_convergence_delta_is_captums():
    """What the sum of a map misses of the difference of scores."""
    _, theirs = captum.IntegratedGradients(NET).attribute(
        IMAGES, target=TARGETS, n_steps=9, return_convergence_delta=True
    )
    found = explainers.create("integrated_gradients", n_steps=9).explain(MODEL, IMAGES, TARGETS)
    torch.testing.assert_close(torch.tensor([each.delta for each in found]), theirs.float(), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("n_outputs", [1, 3])
def test_the_mean_of_a_cam_is_the_score_without_the_bias(n_outputs):
    """Byra et al. 2022: the average of the map is directly related to the decision; exact before enlarging."""
    net = network(n_outputs)
    model = EagerClassifier(net, (2, 32, 24), layer="4")
    images = torch.randn(1, 2, 32, 24, generator=torch.Generator().manual_seed(2))
    (found,) = explainers.create("cam").explain(model, images, 0)
    bias = net[-1].bias[0] * (-1 if n_outputs == 1 else 1)
    # Bilinear enlarging by 2 keeps the mean but for the border.
    torch.testing.assert_close(found.map.mean(), model.score(images, torch.tensor([0]))[0] - bias, rtol=0.05, atol=0.05)


def test_cam_refuses_a_network_without_global_average_pooling():
    """A dense layer on all features has no weight per feature map."""
    net = nn.Sequential(nn.Conv2d(1, 3, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 36, 2))
    model = EagerClassifier(net, (1, 6, 6), layer="1")
    with pytest.raises(UnsupportedOperation, match="cam must be given a network of global average pooling"):
        explainers.create("cam").attribute(model, torch.ones(1, 1, 6, 6))


@pytest.mark.parametrize("name", ["saliency", "integrated_gradients", "occlusion", "guided_grad_cam", "deep_lift"])
def test_class_zero_of_a_single_output_is_the_negative_logit(name):
    """A sigmoid network explains both classes; guided backpropagation starts from the negative logit."""
    net = network(1)
    model, double = EagerClassifier(net, (2, 32, 24), layer="4"), nn.Sequential(net, _BothSigns())
    both = EagerClassifier(double, (2, 32, 24), layer="0.4")
    method = explainers.create(name)
    for target in (0, 1):
        torch.testing.assert_close(
            method.attribute(model, IMAGES, target), method.attribute(both, IMAGES, target), **TOLERANCE
        )


class _BothSigns(nn.Module):
    def forward(self, logit):
        return torch.cat([-logit, logit], dim=1)


def test_the_target_is_by_default_the_predicted_class_of_each_row():
    """Two rows of one batch can have different targets."""
    method = explainers.create("saliency", absolute=False)
    classes = MODEL.outputs(IMAGES).argmax(dim=1)
    torch.testing.assert_close(method.attribute(MODEL, IMAGES), method.attribute(MODEL, IMAGES, classes))


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS_OF_CLASSES)
def test_rows_of_a_batch_get_what_they_get_alone(name):
    """To the rounding of sums whose order depends on the batch."""
    method = explainers.create(name)
    together = method.attribute(MODEL, IMAGES, TARGETS)
    alone = torch.cat([method.attribute(MODEL, IMAGES[i : i + 1], TARGETS[i : i + 1]) for i in range(2)])
    torch.testing.assert_close(together, alone, **TOLERANCE)


@pytest.mark.parametrize("name", [name for name in METHODS_OF_CLASSES if "counterfactual" not in name])
def test_a_black_image_has_a_finite_map(name):
    """A constant image has no superpixels but one, no noise, and nothing to integrate along.

    Counterfactual impact refuses it, because it has no organ.
    """
    found = explainers.create(name).attribute(MODEL, torch.zeros(1, 2, 32, 24), 2)
    assert found.shape[2:] == (32, 24)
    assert found.isfinite().all()


@pytest.mark.parametrize("size", [(31, 45), (1, 1)])
@pytest.mark.parametrize("n_outputs", [1, 3])
def test_maps_of_float64_equal_captums(size, n_outputs):
    """Odd sizes, images smaller than the window, one step, mixed targets; what is left is rounding of float64."""
    net = network(n_outputs).double()
    net[2] = nn.MaxPool2d(2, ceil_mode=True)
    images = torch.rand(3, 2, *size, generator=torch.Generator().manual_seed(4)).double()
    images[1], images[2] = 0.0, 0.7
    targets = torch.tensor([1, 0, n_outputs // 2])
    both, classes = (nn.Sequential(net, _BothSigns()), targets) if n_outputs == 1 else (net, targets)
    window, inputs = (2, min(60, size[0]), min(60, size[1])), images.clone().requires_grad_()
    theirs = {
        "saliency": captum.Saliency(both).attribute(inputs, classes),
        "integrated_gradients": captum.IntegratedGradients(both).attribute(images, target=classes, n_steps=1),
        "occlusion": captum.Occlusion(both).attribute(
            images, window, (2, *(min(30, s) for s in window[1:])), 0, classes
        ),
        "deep_lift": captum.DeepLift(both).attribute(inputs, 0.0, classes),
        "guided_grad_cam": captum.GuidedGradCam(both, net[4]).attribute(inputs, classes),
    }
    for name, expected in theirs.items():
        parameters = {"n_steps": 1} if name == "integrated_gradients" else {}
        model = EagerClassifier(net, (2, *size), layer="4", as_captum=True)
        found = explainers.create(name, **parameters).attribute(model, images, targets)
        # Captum's occlusion is float32.
        rtol = 1e-5 if name == "occlusion" else 1e-10
        torch.testing.assert_close(found, expected.detach().double(), rtol=rtol, atol=1e-3 * rtol)


@pytest.mark.slow
@pytest.mark.parametrize("name", METHODS_OF_CLASSES)
def test_images_are_converted_to_the_type_of_the_model(name):
    """Arrays are float64 by default; the map is that of float32, and stays float64 where the network is."""
    method = explainers.create(name, **FEW.get(name, {}))
    found = method.attribute(MODEL, IMAGES.double(), TARGETS)
    torch.testing.assert_close(found, method.attribute(MODEL, IMAGES, TARGETS), rtol=0, atol=0)
    companions = {kind: deepcopy(each).double() for kind, each in COMPANIONS.items()}
    double = EagerClassifier(network().double(), (2, 32, 24), layer="4", companions=companions)
    assert method.attribute(double, IMAGES, TARGETS).dtype == torch.float64


class _OneRelu(nn.Module):
    """The network with one rectifier for both places, or with functions in place of layers."""

    def __init__(self, rectify, pool):
        super().__init__()
        self.net, self.rectify, self.pool = network(), rectify, pool

    def forward(self, images):
        maps = self.rectify(self.net[3](self.pool(self.rectify(self.net[0](images)))))
        return self.net[7](maps.mean(dim=(2, 3)))


@pytest.mark.parametrize(
    ("rectify", "pool"),
    [(nn.ReLU(), nn.MaxPool2d(2)), (torch.relu_, nn.functional.max_pool2d)],
    ids=["used twice", "functions"],
)
def test_rectifiers_that_captum_does_not_see_are_treated_as_layers(rectify, pool):
    """Captum passes the plain gradient of a function, and its DeepLIFT refuses a layer that is used twice."""
    pooled = pool if isinstance(pool, nn.Module) else lambda maps: pool(maps, 2)
    other = EagerClassifier(_OneRelu(rectify, pooled), (2, 32, 24), as_captum=True)
    pair = {"images": IMAGES, "baselines": torch.full_like(IMAGES, 0.2)}
    for name, given in (("guided", {"images": IMAGES}), ("deep_lift", pair)):
        found, expected = (model.ask(name, TARGETS, **given) for model in (other, MODEL))
        torch.testing.assert_close(found, expected, **TOLERANCE)


@pytest.mark.parametrize(
    ("module", "message"),
    [
        (nn.Conv2d(2, 3, 3), r"model must map images to logits \(b, n\), got shape \(1, 3, 30, 22\)"),
        (nn.Sequential(nn.Flatten(), nn.Linear(1536, 1), nn.Flatten(0)), r"logits \(b, n\), got shape \(1,\)"),
        (nn.Linear(7, 2), r"images must fit the model, got shape \(2, 32, 24\): "),
        (network(n_channels=1), r"images must fit the model, got shape \(2, 32, 24\): "),
    ],
)
def test_modules_that_classify_no_such_images_are_refused(module, message):
    """The message says what they returned, or what torch said of the images."""
    with pytest.raises(InvalidInput, match=message):
        explainers.create("saliency").attribute(module, IMAGES)


def test_images_of_other_channels_are_refused():
    """A classifier knows how many it takes."""
    with pytest.raises(InvalidInput, match="images must have the 2 channels of the model, got 3"):
        explainers.create("saliency").attribute(MODEL, torch.zeros(1, 3, 32, 24))


def test_members_average_to_the_ensemble():
    """Methods that are linear in the score explain an ensemble by the mean of its members' maps."""
    members = [EagerClassifier(network(k), (2, 32, 24), layer="4") for k in (3, 3)]
    members[1].module[-1].weight.data *= -0.5
    ensemble = EnsembleClassifier(members)
    for name in ("integrated_gradients", "occlusion", "deep_lift", "cam"):
        method = explainers.create(name)
        maps = [method.attribute(member, IMAGES, TARGETS) for member in members]
        torch.testing.assert_close(method.attribute(ensemble, IMAGES, TARGETS), sum(maps) / 2, **TOLERANCE)
    with pytest.raises(InvalidInput, match="members must be at least one, got none"):
        EnsembleClassifier([])


@pytest.mark.parametrize(
    ("targets", "message"),
    [
        (3, r"targets must be from 0 to 2, got \[3, 3\]"),
        ([0, -1], r"targets must be from 0 to 2, got \[0, -1\]"),
        ([0, 1, 2], "targets must be one class, or one for each of 2 images, got 3"),
        ([[0, 1]], r"one for each of 2 images, got shape \(1, 2\)"),
        ([0.9, 1.0], "targets must be integers, got torch.float32"),
        ("malignant", "targets must be integers, got str"),
    ],
)
def test_targets_that_are_no_classes_are_refused(targets, message):
    """The message says what there is."""
    with pytest.raises(InvalidInput, match=message):
        explainers.create("saliency").attribute(MODEL, IMAGES, targets)


@pytest.mark.parametrize("name", ["grad_cam", "cam", "saliency"])
def test_a_torch_module_can_be_explained_as_it_is(name):
    """Its last feature maps are found by compiling it."""
    method = explainers.create(name)
    torch.testing.assert_close(
        method.attribute(NET, IMAGES, TARGETS), method.attribute(MODEL, IMAGES, TARGETS), **TOLERANCE
    )


def test_a_call_of_the_model_holds_few_images():
    """The number follows from the size of an image unless it is given."""
    assert explainers.images_per_call(torch.zeros(1, 224, 224)) == 32
    assert explainers.images_per_call(torch.zeros(1, 1024, 512)) == 15
    assert explainers.images_per_call(torch.zeros(3, 4000, 3000)) == 1
    assert explainers.images_per_call(torch.zeros(3, 4000, 3000), 7) == 7


class _Counting(EagerClassifier):
    sizes: list[int]

    def _answer(self, name, targets, arrays):
        if name == "gradient":
            self.sizes.append(len(arrays["images"]))
        return super()._answer(name, targets, arrays)


def test_rows_and_methods_share_calls_within_the_limit():
    """Two rows of 12 steps in calls of at most 8: 3 full calls instead of 4."""
    model = _Counting(NET, (2, 32, 24))
    model.sizes = []
    explainers.create("integrated_gradients", n_steps=12, internal_batch_size=8).attribute(model, IMAGES, TARGETS)
    assert max(model.sizes) <= 8
    assert sum(model.sizes) == 24
    assert len(model.sizes) == 3
