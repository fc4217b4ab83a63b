import subprocess
import sys
from functools import cache

import captum.attr
import pytest
import torch
from monai.networks.nets import EfficientNetBN
from monai.networks.nets import resnet as monai_resnet
from torch import nn
from torchvision_models import MODELS

from radlens.errors import InvalidInput, InvalidParameter
from radlens.networks import CLASSIFIERS, FIXED_SHAPES, MobileNet, create_classifier, load_imagenet

PARAMETERS = {
    "mobilenet": 4_231_976,
    "resnet18": 11_689_512,
    "resnet50": 25_557_032,
    "mobilenet_v2": 3_504_872,
    "efficientnet_b0": 5_288_548,
    "convnet": 3 * 32 * 9 + 32 * 64 * 9 + 64 * 128 * 9 + 128 * 256 * 9 + 2 * (32 + 64 + 128 + 256) + 16_385 * 1000,
}
"""As torchvision publishes them for 3 channels and 1000 classes; of MobileNet, Howard et al. 2017 state 4.2 million.
Those of the ConvNet follow from the kernels of Katzmann et al. 2021 and its flattened maps of 256x8x8."""

POOLED = [name for name in CLASSIFIERS if name not in FIXED_SHAPES]


@pytest.fixture(scope="module")
def images():
    """Two small images of one channel."""
    return torch.randn(2, 1, 64, 32, generator=torch.Generator().manual_seed(0))


def _new(name, n_outputs=2, **options):
    torch.manual_seed(0)
    return create_classifier(name, n_outputs=n_outputs, **options).eval()


def _fitting(name, images):
    """Return images of the only size of a network, where it has one."""
    shape = FIXED_SHAPES.get(name)
    return images if shape is None else nn.functional.interpolate(images, size=shape)


_network = cache(_new)
"""Networks that no test changes."""


@pytest.mark.parametrize("name", POOLED)
def test_logits_are_a_dense_layer_over_pooled_feature_maps(name, images):
    """Logits (b, n) are the head applied to the mean of the last feature maps, which are 32 times smaller."""
    network = _network(name)
    with torch.no_grad():
        maps = network.features(images)
        expected = maps.flatten(2).mean(2) @ network.head.weight.T + network.head.bias
        assert maps.shape == (2, network.head.in_features, 2, 1)
        torch.testing.assert_close(network(images), expected, rtol=1e-5, atol=1e-6)


def test_the_convnet_is_that_of_the_paper():
    """Katzmann et al. 2021, 3.2: 3x3 convolutions of stride 1, 2, 2, 2, written out, then flattened maps."""
    network = _network("convnet")
    maps = images = torch.randn(2, 1, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        for block, stride in zip(network.features, (1, 2, 2, 2), strict=True):
            weight, norm = block[0].weight, block[1]
            rows = nn.functional.unfold(maps, 3, padding=1, stride=stride)
            side = maps.shape[2] // stride
            maps = (weight.flatten(1) @ rows).unflatten(2, (side, side))
            maps = (maps - norm.running_mean[:, None, None]) / (norm.running_var[:, None, None] + norm.eps).sqrt()
            maps = (maps * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)
        assert [block[0].out_channels for block in network.features] == [32, 64, 128, 256]
        assert maps.shape == (2, 256, 8, 8)
        expected = maps.reshape(2, -1) @ network.head.weight.T + network.head.bias
        torch.testing.assert_close(network(images), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_sizes_are_those_published(name):
    """With 3 channels and 1000 outputs, each has the published number of parameters."""
    network = _network(name)
    per_output, extra_channels = network.head.in_features + 1, 2 * next(network.parameters()).numel()
    n = sum(parameter.numel() for parameter in network.parameters()) + 998 * per_output + extra_channels
    assert n == PARAMETERS[name]


@pytest.mark.parametrize("name", CLASSIFIERS)
def test_no_activation_is_used_twice(name, images):
    """Each activation module is called once in a forward pass."""
    images = _fitting(name, images)
    network, calls, hooks = _network(name), [], []
    kinds = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.Sigmoid)
    for part in network.modules():
        if isinstance(part, kinds):
            hooks.append(part.register_forward_hook(lambda module, inputs, output: calls.append(id(module))))
    with torch.no_grad():
        network(images)
    for hook in hooks:
        hook.remove()
    assert calls
    assert len(calls) == len(set(calls)) == sum(isinstance(part, kinds) for part in network.modules())


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
def test_resnets_compute_what_those_of_monai_do(name, images):
    """The plain network of MONAI with the same weights gives the same feature maps (float32 rounding)."""
    plain = getattr(monai_resnet, name)(
        spatial_dims=2, n_input_channels=1, num_classes=2, conv1_t_stride=2, bias_downsample=False
    ).eval()
    network = _network(name)
    weights = {key.removeprefix("features."): value for key, value in network.state_dict().items()}
    weights = {key.replace("head.", "fc."): value for key, value in weights.items()}
    plain.load_state_dict(weights)
    torch.testing.assert_close(network(images), plain(images), rtol=1e-5, atol=1e-5)


def test_the_efficientnet_computes_what_that_of_monai_does(images):
    """With padding and normalisation set alike: MONAI's layers, with the same weights in the same order."""
    norm = ("batch", {"eps": 1e-5, "momentum": 0.1})
    plain = EfficientNetBN("efficientnet-b0", pretrained=False, in_channels=1, num_classes=2, norm=norm).eval()
    for part in plain.modules():
        for convolution in ("_conv_stem", "_depthwise_conv"):
            if hasattr(part, convolution):
                size = getattr(part, convolution).kernel_size[0] // 2
                setattr(part, f"{convolution}_padding", nn.ZeroPad2d(size))
    network = _network("efficientnet_b0")
    weights = zip(plain.state_dict(), network.state_dict().values(), strict=True)
    plain.load_state_dict(dict(weights))
    torch.testing.assert_close(network(images), plain(images), rtol=1e-5, atol=1e-6)


@pytest.mark.filterwarnings("ignore:Setting forward, backward hooks", "ignore:Setting backward hooks")
@pytest.mark.parametrize("name", CLASSIFIERS)
def test_captum_explains_each_network(name, images):
    """DeepLIFT, guided backpropagation and Grad-CAM of Captum run; DeepLIFT sums to the change of the logit."""
    network, images = _network(name), _fitting(name, images).clone().requires_grad_()
    maps = captum.attr.DeepLift(network).attribute(images, torch.zeros_like(images), target=1)
    if name.startswith("resnet"):
        gain = (network(images) - network(torch.zeros_like(images)))[:, 1]
        torch.testing.assert_close(maps.sum((1, 2, 3)), gain, rtol=1e-2, atol=1e-4)
    if name != "efficientnet_b0":
        assert captum.attr.GuidedBackprop(network).attribute(images, target=1).shape == images.shape
    cam = captum.attr.LayerGradCam(network, network.features).attribute(images, target=1)
    assert cam.shape == ((2, 1, 8, 8) if name in FIXED_SHAPES else (2, 1, 2, 1))


@pytest.mark.parametrize("width", [1.0, 0.75, 0.5, 0.25])
def test_mobilenets_have_the_size_of_the_paper(width):
    """Howard et al. 2017, Table 6: 4.2, 2.6, 1.3 and 0.5 million parameters with a dense layer of 1000 classes."""
    network = MobileNet(3, width=width)
    n = sum(parameter.numel() for parameter in network.parameters()) + 1000 * (network.n_features + 1)
    assert n / 1e6 == pytest.approx({1.0: 4.2, 0.75: 2.6, 0.5: 1.3, 0.25: 0.5}[width], abs=0.05)


def test_the_mobilenet_multiplies_as_often_as_the_paper_says():
    """Table 4 and Table 1: 569 million multiplications and additions of an image of 224x224, dense layer included."""
    network, counts = MobileNet(3), [1024 * 1000]

    def count(layer, inputs, output):
        counts.append(output.shape[2] * output.shape[3] * layer.weight.numel())

    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 224, 224)).shape == (1, 1024, 7, 7)
    assert len(counts) == 1 + 1 + 13 * 2
    assert sum(counts) / 1e6 == pytest.approx(569, abs=0.5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"width": 0.0}, r"width must be above 0, got 0\.0"),
        ({"width": float("nan")}, "width must be above 0, got nan"),
        ({"n_channels": 0}, "n_channels must be at least 1, got 0"),
    ],
)
def test_mobilenets_of_nothing_are_refused(options, message):
    """Width and channels are told with what came."""
    with pytest.raises(InvalidParameter, match=message):
        MobileNet(**options)


@pytest.mark.parametrize("name", MODELS)
def test_imagenet_weights_make_the_published_model(name, tmp_path):
    """After loading, feature maps are those of torchvision's definition; one channel sees a grey image alike."""
    make, features = MODELS[name]
    state = make()
    published = sum(value.numel() for key, value in state.items() if "running" not in key and "tracked" not in key)
    assert published == PARAMETERS[name]
    torch.save(dict(state), tmp_path / "weights.pth")
    colours, grey = _new(name, n_channels=3), _new(name)
    head = grey.head.weight.clone()
    for network in (colours, grey):
        load_imagenet(network, tmp_path / "weights.pth")
    pictures = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        expected = features(state, pictures)
        scale = expected.abs().max().item()
        # Fifty layers of float32 rounding.
        torch.testing.assert_close(colours.features(pictures), expected, rtol=0, atol=1e-4 * scale)
        single = pictures[:, :1]
        expected = features(state, single.expand(-1, 3, -1, -1))
        torch.testing.assert_close(grey.features(single), expected, rtol=0, atol=1e-4 * scale)
    assert torch.equal(grey.head.weight, head)


def test_files_that_do_not_fit_are_refused(tmp_path):
    """Missing and unknown names are counted and named, wrong shapes told, other files refused."""
    with pytest.raises(InvalidInput, match="has none for the ConvNet"):
        load_imagenet(_new("convnet"), tmp_path / "any.pth")
    with pytest.raises(InvalidInput, match="has none for MobileNet"):
        load_imagenet(_network("mobilenet"), tmp_path / "weights.pth")
    network, file = _new("resnet18"), tmp_path / "weights.pth"
    before = {key: value.clone() for key, value in network.state_dict().items()}
    state = MODELS["resnet18"][0]()
    del state["bn1.weight"]
    torch.save(state | {f"layer5.{i}.weight": torch.zeros(1) for i in range(4)}, file)
    named = r"layer5.0.weight, layer5.1.weight, layer5.2.weight, ..."
    with pytest.raises(
        InvalidInput, match=rf"must have the 100 names .* 1 missing \(bn1.weight\) and 4 unknown \({named}"
    ):
        load_imagenet(network, file)
    torch.save(state | {"bn1.weight": torch.ones(32)}, file)
    with pytest.raises(InvalidInput, match=r"bn1.weight must have shape \(64,\), got \(32,\)"):
        load_imagenet(network, file)
    torch.save([1, 2], file)
    with pytest.raises(InvalidInput, match="must hold a dictionary of tensors, got list"):
        load_imagenet(network, file)
    file.write_bytes(b"nothing of the kind")
    with pytest.raises(InvalidInput, match="must hold only weights, got UnpicklingError"):
        load_imagenet(network, file)
    with pytest.raises(InvalidInput, match=r"must exist, got 'none.pth', which does not"):
        load_imagenet(network, tmp_path / "none.pth")
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_unknown_networks_are_refused():
    """The names that exist are told."""
    with pytest.raises(InvalidParameter, match=r"network must be one of resnet50, .*, got 'alexnet'"):
        create_classifier("alexnet", n_outputs=2)
    with pytest.raises(InvalidParameter, match="n_outputs must be at least 1, got 0"):
        create_classifier("resnet18", n_outputs=0)
    with pytest.raises(InvalidParameter, match="n_channels must be at least 1, got 0"):
        create_classifier("resnet18", n_outputs=2, n_channels=0)


def test_monai_is_imported_only_when_a_network_is_made():
    """Importing the networks leaves MONAI out."""
    code = "import sys, radlens.networks; sys.exit('monai' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
