"""The perceptual network: distortions, what it learns, and VGG-16 from a file."""

from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn

from radlens.datasets import ModelInput
from radlens.errors import InvalidInput
from radlens.families.inpainter.perceptual import DISTORTIONS, Perceptual, distorted, load_vgg, train_perceptual
from radlens.images.breast import breast_region
from radlens.phantoms import mammogram


@pytest.mark.parametrize("side", [8, 12, 64])
@pytest.mark.parametrize("kind", DISTORTIONS)
def test_a_distortion_changes_a_square(kind, side):
    """Of a quarter to half of the patch, and of at least four pixels; nothing for "none"."""
    patch = np.random.default_rng(0).normal(size=(1, side, side)).astype(np.float32)
    widest = 0
    for seed in range(20):
        before = patch.copy()
        found = distorted(np.random.default_rng(seed), patch, kind)
        assert np.array_equal(patch, before)
        assert (found.shape, found.dtype) == (patch.shape, np.float32)
        rows, columns = np.nonzero((found != patch)[0])
        if len(rows):
            widest = max(widest, np.ptp(rows) + 1, np.ptp(columns) + 1)
    if kind == "none":
        assert widest == 0
    elif kind != "shuffled" or side == 64:  # one block of four pixels has no other order
        assert min(4, side // 4) <= widest <= max(4, side // 2)


def test_distortions_are_what_they_are_called():
    """Smoothed: less variance; flattened: one value; shuffled: the same values; turned: values of the patch."""
    patch = np.random.default_rng(0).normal(size=(2, 64, 64)).astype(np.float32)
    for seed in range(5):
        found = {kind: distorted(np.random.default_rng(seed), patch, kind) for kind in DISTORTIONS}
        where = (found["flattened"] != patch).all(axis=0)
        assert where.sum() in (16**2, 20**2, 24**2, 28**2, 32**2)
        assert np.ptp(found["flattened"][0][where]) == 0
        assert found["flattened"][0][where][0] == pytest.approx(patch[0][where].mean(), abs=1e-6)
        assert found["smoothed"][0][where].std() < 0.5 * patch[0][where].std()
        assert found["noisy"][0][where].std() > patch[0][where].std()
        assert np.array_equal(np.sort(found["shuffled"][0][where]), np.sort(patch[0][where]))
        assert np.isin(found["turned"], patch).all()


def test_features_halve_the_image_three_times():
    """16, 32 and 64 maps; the logits are of the last ones."""
    network = Perceptual(3).eval()
    images = torch.randn(2, 3, 32, 24)
    found = network.features(images)
    assert [tuple(each.shape[1:]) for each in found] == [(16, 16, 12), (32, 8, 6), (64, 4, 3)]
    expected = network.head(found[-1].flatten(2).max(dim=2).values)
    torch.testing.assert_close(network(images), expected)


@pytest.mark.slow
def test_training_beats_chance_on_simulated_tissue():
    """Which is one in six; the same seed gives the same network."""
    spec = ModelInput((64, 48))
    images = [spec.prepare(mammogram.sample("normal", image_shape=(64, 48), seed=k).pixels).pixels for k in range(4)]
    regions = np.stack([breast_region(image[0]) for image in images])
    told = []
    network, accuracy = train_perceptual(
        np.stack(images).astype(np.float16), regions, 60, on_step=lambda done, total: told.append((done, total))
    )
    assert accuracy > 0.3
    assert told == [(k + 1, 60) for k in range(60)]
    assert not network.training
    assert not any(weight.requires_grad for weight in network.parameters())
    again = [train_perceptual(np.stack(images), regions, 1)[0].state_dict() for _ in range(2)]
    assert all(torch.equal(again[0][name], again[1][name]) for name in again[0])


def vgg16():
    """Return the first layers of VGG-16 as torchvision builds them: configuration D up to pool3."""
    layers, before = [], 3
    for item in (64, 64, "M", 128, 128, "M", 256, 256, 256, "M"):
        if item == "M":
            layers.append(nn.MaxPool2d(kernel_size=2, stride=2))
        else:
            layers += [nn.Conv2d(before, item, kernel_size=3, padding=1), nn.ReLU(inplace=True)]
            before = item
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A network of random weights, and the file of torchvision's form, which has further layers as well."""
    torch.manual_seed(0)
    network = vgg16().requires_grad_(False)
    state = OrderedDict((f"features.{name}", value) for name, value in network.state_dict().items())
    state["features.17.weight"] = torch.zeros(1)
    state["classifier.0.bias"] = torch.zeros(1)
    file = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save(state, file)
    return network, file


@pytest.mark.parametrize("n_channels", [1, 3])
def test_vgg_weights_are_read(weights, n_channels):
    """The features are the outputs of pool1, pool2 and pool3; a grey image is repeated."""
    network, file = weights
    images = torch.randn(2, n_channels, 16, 8, requires_grad=True)
    found = load_vgg(file, n_channels)(images)
    rgb = images.repeat(1, 3 // n_channels, 1, 1)
    assert [tuple(each.shape[1:]) for each in found] == [(64, 8, 4), (128, 4, 2), (256, 2, 1)]
    for last, own in zip((4, 9, 16), found, strict=True):
        torch.testing.assert_close(own, network[: last + 1](rgb))
    found[-1].sum().backward()
    assert images.grad is not None


def broken(kind, weights, tmp_path):
    """Return a file that does not hold the weights."""
    file = tmp_path / "weights.pth"
    state = torch.load(weights, weights_only=True)
    if kind == "missing":
        return file
    if kind == "shape":
        torch.save(state | {"features.5.weight": torch.zeros(3, 3)}, file)
    elif kind == "key":
        state.pop("features.14.bias")
        torch.save(state, file)
    elif kind == "value":
        torch.save(state | {"features.0.weight": 3}, file)
    elif kind == "list":
        torch.save([1, 2], file)
    elif kind == "tensor":
        torch.save(torch.zeros(3), file)
    elif kind == "object":
        torch.save(vgg16(), file)
    else:
        file.write_bytes({"text": b"no weights", "empty": b"", "zip": b"PK\3\4 and no more"}[kind])
    return file


@pytest.mark.parametrize(
    "kind", ["missing", "shape", "key", "value", "list", "tensor", "object", "text", "empty", "zip"]
)
def test_other_files_are_refused(weights, tmp_path, kind):
    """Whatever they hold; the message says what was expected, and the file."""
    message = r"weights of VGG-16 must be a file of torch with features.0.weight to features.14.bias, got weights.pth"
    with pytest.raises(InvalidInput, match=message):
        load_vgg(broken(kind, weights[1], tmp_path), 1)
