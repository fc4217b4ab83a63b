"""Networks that tests compile: small ones of every kind of layer, and the architectures the papers name."""

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def randomised(module: nn.Module, seed: int = 0) -> nn.Module:
    """Give batch normalisation statistics and weights as after training, and switch to evaluation mode."""
    generator = torch.Generator().manual_seed(seed)
    for part in module.modules():
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and part.running_mean is not None:
            part.running_mean.normal_(0, 0.3, generator=generator)
            part.running_var.uniform_(0.5, 2.0, generator=generator)
            if part.affine:
                nn.init.uniform_(part.weight, 0.5, 1.5, generator=generator)
                nn.init.normal_(part.bias, 0, 0.3, generator=generator)
    return module.eval()


class Branches(nn.Module):
    """Every branch sees the input; each gives one number per sample, a weighted sum of its squared output."""

    def __init__(self, branches: Sequence[nn.Module]) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: Tensor) -> Tensor:
        """Return ``(b, n)``."""
        return torch.stack([self._number(branch(x)) for branch in self.branches], dim=1)

    @staticmethod
    def _number(y: Tensor) -> Tensor:
        weights = torch.linspace(0.3, 1.7, y[0].numel(), dtype=y.dtype).view(y.shape[1:])
        return (y * weights + 0.1 * y * y).flatten(1).mean(dim=1)


class Lambda(nn.Module):
    """A function as a layer."""

    def __init__(self, function: Callable) -> None:
        super().__init__()
        self.function = function

    def forward(self, *inputs: Tensor) -> Tensor:
        """Apply the function."""
        return self.function(*inputs)


def weighted(output: Tensor) -> Tensor:
    """Score of :class:`Branches`: their sum with unequal weights."""
    return (output * torch.linspace(1, 2, output.shape[1], dtype=output.dtype)).sum(dim=1)


def activations() -> nn.Module:
    """Activation functions, those that torch takes apart or that have parameters among them."""
    layers: list[nn.Module] = [
        nn.ReLU(inplace=True),
        nn.ReLU6(),
        nn.SiLU(),
        nn.GELU(approximate="tanh"),
        nn.SELU(),
        nn.CELU(0.5),
        nn.Hardswish(),
        nn.Tanhshrink(),
        nn.PReLU(4),
        nn.RReLU(),
        nn.Softmax(dim=1),
        nn.GLU(dim=2),
    ]
    return Branches([nn.Sequential(Lambda(lambda x: 2 * x), layer) for layer in layers])


def convolutions() -> nn.Module:
    """Convolutions of every stride, padding, dilation and grouping, plain and transposed."""
    conv, back = nn.Conv2d, nn.ConvTranspose2d
    layers: list[nn.Module] = [
        conv(4, 3, 7, 2, padding=3),
        conv(4, 3, 1, 2),
        conv(4, 3, (3, 5), (2, 3), padding=(1, 0)),
        conv(4, 3, 3, 2, padding=2, dilation=2),
        conv(4, 3, 4, padding="same", dilation=2),
        conv(4, 3, 3, padding=4),
        conv(4, 4, 3, 2, padding=1, groups=4),
        conv(4, 3, 3, padding=1, padding_mode="reflect"),
        conv(4, 3, 3, padding=1, padding_mode="circular"),
        conv(4, 3, 3, padding=1, padding_mode="replicate"),
        back(4, 3, 3, 2, padding=1, output_padding=1),
        nn.Sequential(back(4, 6, 4, 2, padding=1, groups=2), nn.BatchNorm2d(6)),
        nn.Sequential(nn.BatchNorm2d(4), nn.ReLU(), conv(4, 3, 1)),
        nn.utils.parametrizations.weight_norm(conv(4, 3, 3)),
    ]
    return randomised(Branches([nn.Sequential(layer, nn.Tanh()) for layer in layers]))


def pools() -> nn.Module:
    """Pooling of every kind, overlapping, padded, dilated, adaptive."""
    layers: list[nn.Module] = [
        nn.MaxPool2d(2),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.MaxPool2d(5, 1, padding=2),
        nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
        nn.AvgPool2d(2, divisor_override=3),
        nn.AdaptiveAvgPool2d(1),
        nn.AdaptiveAvgPool2d((2, 5)),
        nn.AdaptiveMaxPool2d(1),
        nn.AdaptiveMaxPool2d((2, 5)),
        nn.LPPool2d(2, 2),
        nn.LocalResponseNorm(3),
    ]
    return Branches([nn.Sequential(layer, nn.Tanh()) for layer in layers])


def resampling() -> nn.Module:
    """Interpolation of every kind."""
    options: list[dict] = [
        {"scale_factor": 2},
        {"scale_factor": 1.5},
        {"size": (13, 7), "mode": "nearest-exact"},
        {"size": (17, 15), "mode": "bilinear", "align_corners": True},
        {"scale_factor": 0.7, "mode": "bilinear"},
        {"scale_factor": 2, "mode": "bicubic"},
        {"size": (3, 4), "mode": "area"},
        {"size": (4, 4), "mode": "bilinear", "antialias": True},
    ]
    return Branches([Lambda(lambda x, o=o: torch.tanh(F.interpolate(x, **o))) for o in options])


def shapes() -> nn.Module:
    """Slices, assignments, concatenation, padding and permutations."""

    def assigned(x: Tensor) -> Tensor:
        y = x * 2
        y[:, 1] = x[:, 0] * 3
        y[:, :, 2:4] = 0
        y[:, :, :, ::2] *= 2
        return y

    def shuffled(x: Tensor) -> Tensor:
        b, c, h, w = x.shape
        return x.view(b, 2, c // 2, h, w).transpose(1, 2).contiguous().view(b, c, h, w)

    functions: list[Callable[[Tensor], Tensor]] = [
        assigned,
        shuffled,
        lambda x: torch.cat([x[:, :, ::2], x[:, :, 1:].sum(2, keepdim=True).expand(-1, -1, 2, -1)], dim=2),
        lambda x: F.pixel_unshuffle(torch.tanh(F.pixel_shuffle(x, 2)), 2),
        lambda x: F.pad(F.pad(x, (1, 2, 0, 1), mode="reflect"), (1, 0, 2, 1), mode="replicate"),
        lambda x: F.pad(x, (1, 2, 2, 0), mode="circular"),
        lambda x: x[:, torch.tensor([2, 0, 1, 1])],
        lambda x: x.roll(1, 2).flip(3).repeat(1, 2, 1, 1),
        lambda x: F.unfold(x, 2, padding=1, stride=3),
        lambda x: x.unfold(3, 2, 2).mean(-1),
        lambda x: torch.stack([part * (k + 1) for k, part in enumerate(x.unbind(1))], dim=2).squeeze(1),
        lambda x: x.swapaxes(1, 3).movedim(1, 2).unsqueeze(2).squeeze(2),
        lambda x: x.reshape(-1, 1, *x.shape[2:]).mul(2).reshape(x.shape[0], -1),
        lambda x: (x + 0).mul_(2).add_(x).relu_().clamp(max=1.5),
        lambda x: F.channel_shuffle(x, 2) * x,
    ]
    return Branches([Lambda(function) for function in functions])


def mathematics() -> nn.Module:
    """Arithmetic, reductions and products."""

    def held(x: Tensor) -> Tensor:
        with torch.no_grad():
            mean = x.mean(dim=(2, 3), keepdim=True)
        return (x - mean) * mean * x.detach()

    functions: list[Callable[[Tensor], Tensor]] = [
        held,
        lambda x: torch.stack([torch.std_mean(x, (2, 3))[0], torch.var_mean(x, (2, 3))[0], x.max(2)[0].sum(-1)], -1),
        lambda x: F.normalize(x, dim=1) + F.cosine_similarity(x, x.flip(1) + 1, dim=1).unsqueeze(1),
        lambda x: torch.einsum("bchw,bdhw->bcd", x, x),
        lambda x: F.smooth_l1_loss(x, torch.zeros_like(x), reduction="none") * torch.floor(x),
        lambda x: F.scaled_dot_product_attention(x, x, x, is_causal=True),
    ]
    return Branches([Lambda(function) for function in functions])


def normalisation() -> nn.Module:
    """Layers that normalise, and dense layers in chains."""
    layers: list[nn.Module] = [
        nn.GroupNorm(2, 4),
        nn.InstanceNorm2d(4, affine=True),
        nn.InstanceNorm2d(4, track_running_stats=True),
        nn.LayerNorm([4, 8, 10]),
        nn.LayerNorm(10),
        nn.RMSNorm(10),
        nn.BatchNorm2d(4),
        nn.Sequential(nn.Flatten(), nn.Linear(320, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 3)),
        nn.Sequential(nn.Flatten(), nn.Linear(320, 64), nn.Dropout(), nn.Linear(64, 32), nn.Linear(32, 3)),
        nn.Sequential(nn.Linear(10, 6), nn.Tanh(), nn.Linear(6, 2, bias=False)),
        nn.Sequential(nn.Dropout2d(), nn.AlphaDropout(), nn.Identity(), nn.Tanh()),
    ]
    return randomised(Branches(layers))


FAMILIES = {
    family.__name__: family
    for family in (activations, convolutions, pools, resampling, shapes, mathematics, normalisation)
}
"""Modules of many branches for images ``(b, 4, 8, 10)``."""


class Residual(nn.Module):
    """Two convolutions and a way round them, as in ResNet-18."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(n_in, n_out, 3, stride, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(n_out)
        self.conv2 = nn.Conv2d(n_out, n_out, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(n_out)
        self.relu = nn.ReLU(inplace=True)
        around = [nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out)]
        self.around = nn.Sequential(*around) if stride > 1 or n_in != n_out else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Add both ways."""
        y = self.relu(self.norm1(self.conv1(x)))
        return self.relu(self.norm2(self.conv2(y)) + self.around(x))


class SmallResNet(nn.Module):
    """A ResNet of few channels."""

    def __init__(self, widths: Sequence[int] = (4, 6), n_classes: int = 3) -> None:
        super().__init__()
        first = widths[0]
        self.stem = nn.Sequential(
            nn.Conv2d(3, first, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, padding=1),
        )
        pairs = zip([first, *widths], widths, strict=False)
        self.layers = nn.Sequential(*(Residual(a, b, 1 if k == 0 else 2) for k, (a, b) in enumerate(pairs)))
        self.head = nn.Linear(widths[-1], n_classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to logits."""
        return self.head(self.layers(self.stem(x)).mean(dim=(2, 3)))


class InvertedResidual(nn.Module):
    """Wide, depthwise, narrow: the block of MobileNetV2 (Sandler et al. 2018)."""

    def __init__(self, n_in: int, n_out: int, stride: int, factor: int) -> None:
        super().__init__()
        wide = n_in * factor
        self.body = nn.Sequential(
            nn.Conv2d(n_in, wide, 1, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, wide, 3, stride, padding=1, groups=wide, bias=False),
            nn.BatchNorm2d(wide),
            nn.ReLU6(inplace=True),
            nn.Conv2d(wide, n_out, 1, bias=False),
            nn.BatchNorm2d(n_out),
        )
        self.same = stride == 1 and n_in == n_out

    def forward(self, x: Tensor) -> Tensor:
        """Add the input where it fits."""
        return x + self.body(x) if self.same else self.body(x)


def mobilenet() -> nn.Module:
    """A MobileNetV2 of few blocks."""
    blocks = [InvertedResidual(*shape) for shape in ((8, 8, 1, 1), (8, 12, 2, 4), (12, 12, 1, 4), (12, 16, 2, 4))]
    stem = [nn.Conv2d(3, 8, 3, 2, padding=1, bias=False), nn.BatchNorm2d(8), nn.ReLU6()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(16, 3)]
    return randomised(nn.Sequential(*stem, *blocks, *head))


class PartialConvolution(nn.Module):
    """Convolution of what a mask leaves, and the mask of where something was: Liu et al. 2018, eqs. (1) and (2)."""

    def __init__(self, n_in: int, n_out: int, kernel: int, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(n_in, n_out, kernel, stride, padding=kernel // 2)
        self.register_buffer("ones", torch.ones(1, n_in, kernel, kernel))

    def forward(self, x: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Map image and mask ``(b, n_in, h, w)`` to features ``(b, n_out, h, w)`` and mask ``(b, 1, h, w)``."""
        options = {"stride": self.conv.stride, "padding": self.conv.padding}
        covered = F.conv2d(mask, self.ones, **options)
        updated = covered.clamp(0, 1)
        ratio = self.ones.numel() / (covered + 1e-6) * updated
        bias = self.conv.bias.view(1, -1, 1, 1)
        return ((self.conv(x * mask) - bias) * ratio + bias) * updated, updated


class PartialUNet(nn.Module):
    """An inpainter with partial convolutions, then a classifier of what it fills in."""

    def __init__(self) -> None:
        super().__init__()
        self.down1, self.down2 = PartialConvolution(3, 4, 7, 2), PartialConvolution(4, 6, 5, 2)
        self.norm = nn.BatchNorm2d(6)
        self.up1, self.up2 = PartialConvolution(10, 4, 3), PartialConvolution(7, 3, 3)
        self.classifier = nn.Sequential(nn.Conv2d(3, 4, 3, 2, padding=1), nn.ReLU(), nn.MaxPool2d(2))

    def forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Map image ``(b, 3, h, w)`` and mask ``(b, 3, h, w)`` to logits ``(b, 4)``."""
        a, mask_a = self.down1(image, mask)
        a = F.relu(a)
        b, mask_b = self.down2(a, mask_a.expand(-1, 4, -1, -1))
        b = F.relu(self.norm(b))
        up, mask_up = F.interpolate(b, scale_factor=2), F.interpolate(mask_b, scale_factor=2)
        masks = torch.cat([mask_up.expand(-1, 6, -1, -1), mask_a.expand(-1, 4, -1, -1)], dim=1)
        c, mask_c = self.up1(torch.cat([up, a], dim=1), masks)
        up, mask_up = F.interpolate(F.leaky_relu(c, 0.2), scale_factor=2), F.interpolate(mask_c, scale_factor=2)
        masks = torch.cat([mask_up.expand(-1, 4, -1, -1), mask], dim=1)
        filled, _ = self.up2(torch.cat([up, image], dim=1), masks)
        return self.classifier(image * mask + filled * (1 - mask)).mean(dim=(2, 3))


class SqueezeExcite(nn.Module):
    """Channels weighted by what all pixels say: Hu et al. 2018."""

    def __init__(self, n_channels: int) -> None:
        super().__init__()
        self.squeeze, self.excite = nn.Linear(n_channels, 2), nn.Linear(2, n_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of ``(b, c, h, w)``."""
        b, c = x.shape[:2]
        y = F.relu(self.squeeze(x.mean((2, 3)).view(b, c)))
        return x * torch.sigmoid(self.excite(y)).view(b, c, 1, 1)


class DenseBlock(nn.Module):
    """Each layer sees all before it: Huang et al. 2017; then squeeze and excitation, and dilated branches."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            nn.Sequential(nn.BatchNorm2d(3 + 2 * k), nn.ReLU(inplace=True), nn.Conv2d(3 + 2 * k, 2, 3, padding=1))
            for k in range(3)
        )
        self.attention = SqueezeExcite(9)
        self.branches = nn.ModuleList(nn.Conv2d(9, 3, 3, padding=d, dilation=d) for d in (1, 2, 4))
        self.act = nn.PReLU(9)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to ``(b, 9)``."""
        features = [x]
        for layer in self.layers:
            features.append(layer(torch.cat(features, dim=1)))
        y = self.attention(torch.cat(features, dim=1))
        return self.act(torch.cat([branch(y) for branch in self.branches], dim=1)).mean((2, 3))


class SmallTransformer(nn.Module):
    """A vision transformer of one block (Dosovitskiy et al. 2021)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.token = nn.Parameter(torch.randn(1, 1, 8))
        self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, norm_first=True, activation="gelu")
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(b, 3, h, w)`` to logits."""
        y = self.patches(x).flatten(2).transpose(1, 2)
        y = torch.cat([self.token.expand(x.shape[0], -1, -1), y], dim=1)
        return self.head(self.block(y)[:, 0])
