"""ImageNet weights of torchvision's models, from a file of the user.

The file is the state dict that torchvision publishes for resnet18, resnet50, mobilenet_v2 or efficientnet_b0. Names and
shapes follow the published definitions of these models. Tests compare the networks with re-implementations of the
definitions, with random weights; the published files themselves are not part of the tests.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from radlens.errors import InvalidInput
from radlens.networks.classifiers import ClassifierNetwork, FlattenedNetwork
from radlens.networks.mobilenet import MobileNet

__all__ = ["load_imagenet"]

_N_NAMED = 3
"""Number of names that a message lists."""

_COUNTER = ".num_batches_tracked"
_HEADS = ("fc.", "classifier.")
_BLOCK = re.compile(r"(features\.\d+\.\d+)\.(expand|filter|squeeze|project)\.(.+)")
_PARTS = ("expand", "filter", "squeeze", "project")
_SQUEEZE = {"1": "fc1", "3": "fc2"}


def load_imagenet(network: ClassifierNetwork, path: str | Path) -> None:
    """Load torchvision's weights into ``network``, except those of the dense layer.

    In a network of one channel, the weights of the first convolution are summed over colours: this is equivalent to a
    grey image repeated in three channels.

    Args:
        network: result of `create_classifier` with 1 or 3 channels.
        path: ``.pth`` or ``.pt`` file with the state dict of torchvision's model of the same name.

    Raises:
        InvalidInput: the file is missing or does not hold a state dict, its names or shapes are those of another
            network, or the network is a MobileNet or a ConvNet, which torchvision does not have.
    """
    if isinstance(network, FlattenedNetwork) or isinstance(network.features, MobileNet):
        name = "the ConvNet" if isinstance(network, FlattenedNetwork) else "MobileNet"
        raise InvalidInput(f"ImageNet weights must be those of a model of torchvision, which has none for {name}")
    stored = {name: value for name, value in _read(Path(path)).items() if not name.endswith(_COUNTER)}
    own = {name: value for name, value in network.state_dict().items() if name.startswith("features.")}
    named = {_torchvision_name(name, own): name for name in own if not name.endswith(_COUNTER)}
    _require_names(named, stored)
    weights = {ours: _grey(stored[theirs], own[ours]) for theirs, ours in named.items()}
    for theirs, ours in named.items():
        if weights[ours].shape != own[ours].shape:
            expected, got = tuple(own[ours].shape), tuple(stored[theirs].shape)
            raise InvalidInput(f"ImageNet weight {theirs} must have shape {expected}, got {got}")
    network.load_state_dict(weights, strict=False)


def _read(path: Path) -> Mapping[str, Tensor]:
    if not path.is_file():
        raise InvalidInput(f"file of ImageNet weights must exist, got {path.name!r}, which does not")
    try:
        stored = torch.load(path, map_location="cpu", weights_only=True)
    except (UnpicklingError, EOFError, RuntimeError, ValueError, KeyError) as error:
        # torch's message is not quoted: it recommends to load the file with weights_only=False, which runs its code.
        raise InvalidInput(f"file of ImageNet weights must hold only weights, got {type(error).__name__}") from error
    if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise InvalidInput(f"file of ImageNet weights must hold a dictionary of tensors, got {type(stored).__name__}")
    return stored


def _torchvision_name(name: str, own: Iterable[str]) -> str:
    """Return torchvision's name of the weight ``name`` of a `ClassifierNetwork`."""
    if name.startswith(("features.conv1.", "features.bn1.", "features.layer")):
        return name.removeprefix("features.")
    found = _BLOCK.fullmatch(name)
    if not found:
        return name
    block, part, rest = found.groups()
    # torchvision numbers the parts of a block, and the first block of EfficientNet does not have an expansion.
    expands = any(other.startswith(f"{block}.expand.") for other in own)
    place = _PARTS.index(part) - (0 if expands else 1)
    if part == "squeeze":
        layer, kind = rest.split(".")
        rest = f"{_SQUEEZE[layer]}.{kind}"
    return f"{block}.block.{place}.{rest}"


def _require_names(expected: Mapping[str, str], stored: Mapping[str, Tensor]) -> None:
    missing = [name for name in expected if name not in stored]
    unknown = [name for name in stored if name not in expected and not name.startswith(_HEADS)]
    if missing or unknown:
        raise InvalidInput(
            f"ImageNet weights must have the {len(expected)} names of torchvision's model, "
            f"got {_listed(missing, 'missing')} and {_listed(unknown, 'unknown')}"
        )


def _listed(names: list[str], what: str) -> str:
    first = f" ({', '.join(names[:_N_NAMED])}{', ...' if len(names) > _N_NAMED else ''})" if names else ""
    return f"{len(names)} {what}{first}"


def _grey(weight: Tensor, own: Tensor) -> Tensor:
    """Return a weight, summed over colours if it is the first convolution of a network of one channel."""
    of_colours = weight.ndim == own.ndim == 4 and weight.shape[1] == 3 and own.shape[1] == 1
    # Depthwise filters also have one input channel; only the first convolution of the file has three.
    return weight.sum(dim=1, keepdim=True) if of_colours else weight
