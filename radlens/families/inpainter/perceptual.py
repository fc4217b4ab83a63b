"""The perceptual network of the inpainter's loss: trained here on healthy tissue, or VGG-16 from a local file.

Liu et al. 2018 use VGG-16 with weights of ImageNet. Here a small network is trained to tell healthy patches from
distorted ones: it learns what the texture of tissue looks like, and needs neither a download nor labels. Its features
must not come from the classifier that is explained, which would let the inpainter learn what that classifier sees.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from pickle import UnpicklingError

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from radlens.errors import InvalidInput

__all__ = ["DISTORTIONS", "Perceptual", "distorted", "load_vgg", "train_perceptual"]

DISTORTIONS = ("none", "smoothed", "noisy", "shuffled", "flattened", "turned")
"""Classes of the training: untouched; a square smoothed, with noise, with its blocks in another order, with one value,
or taken from another place and turned."""

_SIDE = 64
"""Side of the patches."""

_BATCH = 32
_RATE = 2e-3
_POOLS = (4, 9, 16)
"""Index of the pooling layers in VGG-16 whose outputs Liu et al. 2018 compare: pool1, pool2, pool3."""


class Perceptual(nn.Module):
    """Three blocks of convolutions; their outputs, each pooled to half the size, are the features.

    Args:
        n_channels: Channels of the images.
        width: Maps of the first block; the following have twice and four times as many.
    """

    def __init__(self, n_channels: int = 1, width: int = 16) -> None:
        super().__init__()
        counts = [n_channels, width, 2 * width, 4 * width]
        self.blocks = nn.ModuleList(_block(counts[k], counts[k + 1]) for k in range(3))
        self.head = nn.Linear(counts[-1], len(DISTORTIONS))

    def features(self, images: Tensor) -> list[Tensor]:
        """Return the maps of all blocks of images ``(b, c, h, w)``."""
        found = []
        for block in self.blocks:
            images = block(images)
            found.append(images)
        return found

    def forward(self, images: Tensor) -> Tensor:
        """Return logits of `DISTORTIONS`, ``(b, 6)``."""
        logits: Tensor = self.head(self.features(images)[-1].amax(dim=(2, 3)))
        return logits


def _block(n_in: int, n_out: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(n_in, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
        nn.Conv2d(n_out, n_out, 3, padding=1, bias=False),
        nn.BatchNorm2d(n_out),
        nn.ReLU(),
        nn.MaxPool2d(2),
    )


def train_perceptual(
    images: np.ndarray,
    regions: np.ndarray,
    n_steps: int,
    *,
    seed: int = 0,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> tuple[Perceptual, float]:
    """Train a network to name the distortion of patches.

    Args:
        images: Healthy images ``(n, c, h, w)``.
        regions: ``(n, h, w)`` bool, places of the centres of patches.
        n_steps: Steps of 32 patches.
        seed: Seed of weights and patches.
        on_step: Called as ``on_step(done, total)``.

    Returns:
        The network in evaluation mode, and the share of the patches of the last fifth of the steps that it named right.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    network = Perceptual(images.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), _RATE)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, n_steps + 1)
    right = []
    for step in range(n_steps):
        labels = torch.from_numpy(rng.integers(len(DISTORTIONS), size=_BATCH))
        patches = np.stack([_patch(rng, images, regions, DISTORTIONS[k]) for k in labels])
        logits = network(torch.from_numpy(patches))
        loss = F.cross_entropy(logits, labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        right.append(float((logits.argmax(dim=1) == labels).float().mean()))
        on_step(step + 1, n_steps)
    return network.eval().requires_grad_(False), float(np.mean(right[-max(1, n_steps // 5) :]))


def _patch(rng: np.random.Generator, images: np.ndarray, regions: np.ndarray, kind: str) -> np.ndarray:
    number = int(rng.integers(len(images)))
    rows, columns = np.nonzero(regions[number])
    chosen = rng.integers(len(rows))
    height, width = images.shape[2:]
    side = min(_SIDE, height, width)
    top = int(np.clip(rows[chosen] - side // 2, 0, height - side))
    left = int(np.clip(columns[chosen] - side // 2, 0, width - side))
    patch = images[number, :, top : top + side, left : left + side].astype(np.float32)
    return distorted(rng, patch, kind)


def distorted(rng: np.random.Generator, patch: np.ndarray, kind: str) -> np.ndarray:
    """Return a square patch ``(c, h, h)``, of at least 8 rows, with a random square of it distorted."""
    side = max(4, int(rng.integers(patch.shape[1] // 4, patch.shape[1] // 2 + 1)) // 4 * 4)
    top, left = rng.integers(0, patch.shape[1] - side + 1, 2)
    found = patch.copy()
    part = found[:, top : top + side, left : left + side]
    if kind == "smoothed":
        small = F.avg_pool2d(torch.from_numpy(part.copy())[None], 4)
        part[:] = F.interpolate(small, size=part.shape[1:], mode="bilinear")[0].numpy()
    elif kind == "noisy":
        part += 0.5 * patch.std() * rng.normal(size=part.shape).astype(np.float32)
    elif kind == "shuffled":
        blocks = part.reshape(part.shape[0], side // 4, 4, side // 4, 4)
        part[:] = blocks[:, rng.permutation(side // 4)][:, :, :, rng.permutation(side // 4)].reshape(part.shape)
    elif kind == "flattened":
        part[:] = part.mean(axis=(1, 2), keepdims=True)
    elif kind == "turned":
        other = rng.integers(0, patch.shape[1] - side + 1, 2)
        moved = patch[:, other[0] : other[0] + side, other[1] : other[1] + side]
        part[:] = np.rot90(moved, int(rng.integers(1, 4)), (1, 2))
    return found


def load_vgg(file: Path, n_channels: int, device: str = "cpu") -> Callable[[Tensor], Sequence[Tensor]]:
    """Return the features of VGG-16 as Liu et al. 2018 use them, with weights from a local file.

    Args:
        file: Weights as torch saves them, with the names of torchvision: ``features.0.weight`` and so on.
        n_channels: Channels of the images; a grey image is repeated for the three channels of the network.
        device: Device of the images.

    Raises:
        InvalidInput: The file cannot be read, or does not hold these weights.
    """
    try:
        state = torch.load(file, map_location="cpu", weights_only=True)
        layers = [layer.to(device) for layer in _vgg_layers(state)]
    except (OSError, UnpicklingError, RuntimeError, LookupError, TypeError, ValueError, EOFError) as error:
        raise InvalidInput(
            f"weights of VGG-16 must be a file of torch with features.0.weight to features.14.bias, got {file.name}"
        ) from error

    def features(images: Tensor) -> list[Tensor]:
        images = images.expand(-1, 3, -1, -1) if n_channels == 1 else images
        found = []
        for k, layer in enumerate(layers):
            images = layer(images)
            if k in _POOLS:
                found.append(images)
        return found

    return features


def _vgg_layers(state: dict[str, Tensor]) -> list[nn.Module]:
    layers: list[nn.Module] = []
    counts = (3, 64, 64, 0, 128, 128, 0, 256, 256, 256, 0)
    before = counts[0]
    for count in counts[1:]:
        if count == 0:
            layers.append(nn.MaxPool2d(2))
            continue
        conv = nn.Conv2d(before, count, 3, padding=1)
        name = f"features.{len(layers)}"
        conv.load_state_dict({"weight": state[f"{name}.weight"], "bias": state[f"{name}.bias"]})
        layers += [conv.requires_grad_(False), nn.ReLU()]
        before = count
    return layers
