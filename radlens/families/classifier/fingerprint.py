"""Hash of the weights of a classifier: the generators that explain it were trained for these weights and no others."""

import hashlib
from collections.abc import Sequence

import torch
from torch import nn

__all__ = ["network_hash"]


def network_hash(members: Sequence[nn.Module]) -> str:
    """Return a SHA-256 of the weights and statistics of all members, hexadecimal.

    The order of the members counts. Names of layers do not, so that a network has one hash as a module and inside
    another module.

    Args:
        members: Networks; their weights are taken as float32.
    """
    whole = hashlib.sha256()
    for member in members:
        parts = []
        for value in member.state_dict().values():
            if isinstance(value, torch.Tensor) and value.is_floating_point():
                array = value.detach().cpu().float().contiguous().numpy()
                parts.append(hashlib.sha256(f"{array.shape}".encode() + array.tobytes()).digest())
        whole.update(b"".join(sorted(parts)) + b"member")
    return whole.hexdigest()
