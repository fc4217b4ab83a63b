"""ImageNet weights of torchvision's models, from a file of the user's.

A file is the state dict that torchvision publishes for resnet18, resnet50, mobilenet_v2 and efficientnet_b0. The names
and shapes here were written from those models' published definitions; that the networks then compute the same is tested
against those definitions written out, with random weights, as the files themselves cannot be had here.
"""

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError

import torch
from torch import Tensor

from radlens.errors import InvalidInput
from radlens.networks.classifiers import ClassifierNetwork

__all__ = ["load_imagenet"]

_N_NAMED = 3
_COUNTER = ".num_batches_tracked"
_HEADS = ("fc.", "classifier.")
_BLOCK = re.compile(r"(features\.\d+\.\d+)\.(expand|filter|squeeze|project)\.(.+)")
_PARTS = ("expand", "filter", "squeeze", "project")
_SQUEEZE = {"1": "fc1", "3": "fc2"}


def load_imagenet(network: ClassifierNetwork, path: str | Path) -> None:
    """Load torchvision's weights into ``network``; its dense layer stays as it is.

    A network of one channel gets the sum of the first convolution's weights over colours, which is what a grey image
    repeated on all three would see.

    Args:
        network: from `create_classifier`, of 1 or 3 channels.
        path: a ``.pth`` or ``.pt`` file that holds the state dict of torchvision's model of the same name.

    Raises:
        InvalidInput: the file is missing or holds no state dict, or names or shapes are of another network.
    """
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
        # torch's own message advises to load unsafely.
        raise InvalidInput(f"file of ImageNet weights must be weights alone, got {type(error).__name__}") from error
    if not isinstance(stored, Mapping) or not all(isinstance(value, Tensor) for value in stored.values()):
        raise InvalidInput(f"file of ImageNet weights must hold a dictionary of tensors, got {type(stored).__name__}")
    return stored


def _torchvision_name(name: str, own: Iterable[str]) -> str:
    """Return torchvision's name of a weight of ours."""
    if name.startswith(("features.conv1.", "features.bn1.", "features.layer")):
        return name.removeprefix("features.")
    found = _BLOCK.fullmatch(name)
    if not found:
        return name
    block, part, rest = found.groups()
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
    """Sum a first convolution over colours where the network has one channel."""
    of_colours = weight.ndim == own.ndim == 4 and weight.shape[1] == 3 and own.shape[1] == 1
    # Filters of one channel each have one input as well; only the first convolution of the file has three.
    return weight.sum(dim=1, keepdim=True) if of_colours else weight
