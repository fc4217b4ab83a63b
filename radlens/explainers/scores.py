"""Scores: what of a classifier's outputs is explained."""

import torch
from torch import Tensor

__all__ = ["class_weights"]


def class_weights(targets: Tensor, n_outputs: int) -> Tensor:
    """Return rows ``(b, n_outputs)`` float32 whose product with the logits is the score of each image's class.

    Args:
        targets: ``(b,)`` int64.
        n_outputs: of the network; with one output, class 0 is its negative.
    """
    if n_outputs == 1:
        return torch.where(targets > 0, 1.0, -1.0)[:, None]
    return torch.nn.functional.one_hot(targets, n_outputs).float()
