"""torchvision's models written out as functions of their state dicts: names, shapes and arithmetic, all by hand.

Written from the definitions in torchvision/models/{resnet,mobilenetv2,efficientnet}.py, whose weights are published.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


class Weights(dict):
    """A state dict with random values, filled by the functions that add a layer."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(seed)

    def convolution(self, name: str, n_in: int, n_out: int, size: int, bias: bool = False) -> None:
        """Add a convolution."""
        scale = (2 / (n_in * size * size)) ** 0.5
        self[f"{name}.weight"] = scale * torch.randn(n_out, n_in, size, size, generator=self.generator)
        if bias:
            self[f"{name}.bias"] = 0.1 * torch.randn(n_out, generator=self.generator)

    def norm(self, name: str, n: int) -> None:
        """Add batch normalisation."""
        self[f"{name}.weight"] = torch.rand(n, generator=self.generator) * 0.5 + 0.5
        self[f"{name}.bias"] = 0.1 * torch.randn(n, generator=self.generator)
        self[f"{name}.running_mean"] = 0.1 * torch.randn(n, generator=self.generator)
        self[f"{name}.running_var"] = torch.rand(n, generator=self.generator) + 0.5
        self[f"{name}.num_batches_tracked"] = torch.tensor(7)

    def dense(self, name: str, n_in: int, n_out: int) -> None:
        """Add a dense layer."""
        self[f"{name}.weight"] = torch.randn(n_out, n_in, generator=self.generator) / n_in**0.5
        self[f"{name}.bias"] = torch.randn(n_out, generator=self.generator)


def _norm(state: dict, name: str, x: Tensor) -> Tensor:
    mean, var, weight, bias = (state[f"{name}.{part}"] for part in ("running_mean", "running_var", "weight", "bias"))
    return F.batch_norm(x, mean, var, weight, bias, training=False, eps=1e-5)


def _unit(state: dict, conv: str, norm: str, x: Tensor, act: Callable | None, stride: int = 1, groups: int = 1):
    weight = state[f"{conv}.weight"]
    y = _norm(state, norm, F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, groups=groups))
    return y if act is None else act(y)


RESNETS = {"resnet18": (1, (2, 2, 2, 2)), "resnet50": (4, (3, 4, 6, 3))}


def _resnet_blocks(name: str):
    """Give name, inputs, width, expansion, stride of each block."""
    expansion, counts = RESNETS[name]
    channels = 64
    for stage, count in enumerate(counts):
        for number in range(count):
            stride = 2 if stage > 0 and number == 0 else 1
            yield f"layer{stage + 1}.{number}", channels, 64 * 2**stage, expansion, stride
            channels = 64 * 2**stage * expansion


def resnet_weights(name: str, seed: int = 0) -> Weights:
    """Return a random state dict for 3 channels and 1000 classes."""
    state = Weights(seed)
    state.convolution("conv1", 3, 64, 7)
    state.norm("bn1", 64)
    for block, n_in, width, expansion, stride in _resnet_blocks(name):
        sizes = [(n_in, width, 3), (width, width, 3)]
        if expansion == 4:
            sizes = [(n_in, width, 1), (width, width, 3), (width, 4 * width, 1)]
        for number, (a, b, size) in enumerate(sizes, 1):
            state.convolution(f"{block}.conv{number}", a, b, size)
            state.norm(f"{block}.bn{number}", b)
        if stride > 1 or n_in != width * expansion:
            state.convolution(f"{block}.downsample.0", n_in, width * expansion, 1)
            state.norm(f"{block}.downsample.1", width * expansion)
    state.dense("fc", 512 * RESNETS[name][0], 1000)
    return state


def resnet(name: str, state: dict, x: Tensor) -> Tensor:
    """Return the last feature maps; the stride of a bottleneck is in its 3x3 convolution."""
    x = F.max_pool2d(_unit(state, "conv1", "bn1", x, F.relu, 2), 3, 2, 1)
    for block, n_in, width, expansion, stride in _resnet_blocks(name):
        n = 3 if expansion == 4 else 2
        strides = {n - 1: stride} if expansion == 4 else {1: stride}
        y = x
        for number in range(1, n + 1):
            act = F.relu if number < n else None
            conv, norm = f"{block}.conv{number}", f"{block}.bn{number}"
            y = _unit(state, conv, norm, y, act, strides.get(number, 1))
        if stride > 1 or n_in != width * expansion:
            x = _unit(state, f"{block}.downsample.0", f"{block}.downsample.1", x, None, stride)
        x = F.relu(x + y)
    return x


def _mobilenet_blocks():
    """Give name, inputs, outputs, expansion, stride of each block."""
    settings = [
        [1, 16, 1, 1],
        [6, 24, 2, 2],
        [6, 32, 3, 2],
        [6, 64, 4, 2],
        [6, 96, 3, 1],
        [6, 160, 3, 2],
        [6, 320, 1, 1],
    ]
    channels, place = 32, 1
    for t, c, n, s in settings:
        for number in range(n):
            yield f"features.{place}.conv", channels, c, t, s if number == 0 else 1
            channels, place = c, place + 1


def mobilenet_weights(seed: int = 0) -> Weights:
    """Return a random state dict for 3 channels and 1000 classes."""
    state = Weights(seed)
    state.convolution("features.0.0", 3, 32, 3)
    state.norm("features.0.1", 32)
    for block, n_in, n_out, t, _ in _mobilenet_blocks():
        place = 0
        if t > 1:
            state.convolution(f"{block}.0.0", n_in, n_in * t, 1)
            state.norm(f"{block}.0.1", n_in * t)
            place = 1
        state.convolution(f"{block}.{place}.0", 1, n_in * t, 3)
        state.norm(f"{block}.{place}.1", n_in * t)
        state.convolution(f"{block}.{place + 1}", n_in * t, n_out, 1)
        state.norm(f"{block}.{place + 2}", n_out)
    state.convolution("features.18.0", 320, 1280, 1)
    state.norm("features.18.1", 1280)
    state.dense("classifier.1", 1280, 1000)
    return state


def mobilenet(state: dict, x: Tensor) -> Tensor:
    """Return the last feature maps."""
    x = _unit(state, "features.0.0", "features.0.1", x, F.relu6, 2)
    for block, n_in, n_out, t, stride in _mobilenet_blocks():
        y, place = x, 0
        if t > 1:
            y, place = _unit(state, f"{block}.0.0", f"{block}.0.1", y, F.relu6), 1
        y = _unit(state, f"{block}.{place}.0", f"{block}.{place}.1", y, F.relu6, stride, groups=n_in * t)
        y = _unit(state, f"{block}.{place + 1}", f"{block}.{place + 2}", y, None)
        x = x + y if stride == 1 and n_in == n_out else y
    return _unit(state, "features.18.0", "features.18.1", x, F.relu6)


def _efficientnet_blocks():
    """Give name, inputs, outputs, expansion, kernel, stride of each block."""
    settings = [
        [1, 3, 1, 32, 16, 1],
        [6, 3, 2, 16, 24, 2],
        [6, 5, 2, 24, 40, 2],
        [6, 3, 2, 40, 80, 3],
        [6, 5, 1, 80, 112, 3],
        [6, 5, 2, 112, 192, 4],
        [6, 3, 1, 192, 320, 1],
    ]
    for stage, (expansion, kernel, stride, n_in, n_out, count) in enumerate(settings, 1):
        for number in range(count):
            first = number == 0
            yield (
                f"features.{stage}.{number}.block",
                n_in if first else n_out,
                n_out,
                expansion,
                kernel,
                stride if first else 1,
            )


def efficientnet_weights(seed: int = 0) -> Weights:
    """Return a random state dict for 3 channels and 1000 classes."""
    state = Weights(seed)
    state.convolution("features.0.0", 3, 32, 3)
    state.norm("features.0.1", 32)
    for block, n_in, n_out, expansion, kernel, _ in _efficientnet_blocks():
        wide, place = n_in * expansion, 0
        if expansion > 1:
            state.convolution(f"{block}.0.0", n_in, wide, 1)
            state.norm(f"{block}.0.1", wide)
            place = 1
        state.convolution(f"{block}.{place}.0", 1, wide, kernel)
        state.norm(f"{block}.{place}.1", wide)
        state.convolution(f"{block}.{place + 1}.fc1", wide, n_in // 4, 1, bias=True)
        state.convolution(f"{block}.{place + 1}.fc2", n_in // 4, wide, 1, bias=True)
        state.convolution(f"{block}.{place + 2}.0", wide, n_out, 1)
        state.norm(f"{block}.{place + 2}.1", n_out)
    state.convolution("features.8.0", 320, 1280, 1)
    state.norm("features.8.1", 1280)
    state.dense("classifier.1", 1280, 1000)
    return state


def efficientnet(state: dict, x: Tensor) -> Tensor:
    """Return the last feature maps."""
    x = _unit(state, "features.0.0", "features.0.1", x, F.silu, 2)
    for block, n_in, n_out, expansion, _, stride in _efficientnet_blocks():
        y, place = x, 0
        if expansion > 1:
            y, place = _unit(state, f"{block}.0.0", f"{block}.0.1", y, F.silu), 1
        y = _unit(state, f"{block}.{place}.0", f"{block}.{place}.1", y, F.silu, stride, groups=n_in * expansion)
        fc1, fc2 = (
            (state[f"{block}.{place + 1}.{name}.weight"], state[f"{block}.{place + 1}.{name}.bias"])
            for name in ("fc1", "fc2")
        )
        gate = F.conv2d(F.silu(F.conv2d(y.mean((2, 3), keepdim=True), *fc1)), *fc2)
        y = _unit(state, f"{block}.{place + 2}.0", f"{block}.{place + 2}.1", torch.sigmoid(gate) * y, None)
        x = x + y if stride == 1 and n_in == n_out else y
    return _unit(state, "features.8.0", "features.8.1", x, F.silu)


MODELS: dict[str, tuple[Callable[[], Weights], Callable[[dict, Tensor], Tensor]]] = {
    "resnet18": (lambda: resnet_weights("resnet18"), lambda state, x: resnet("resnet18", state, x)),
    "resnet50": (lambda: resnet_weights("resnet50"), lambda state, x: resnet("resnet50", state, x)),
    "mobilenet_v2": (mobilenet_weights, mobilenet),
    "efficientnet_b0": (efficientnet_weights, efficientnet),
}
"""Weights and last feature maps of each model."""
