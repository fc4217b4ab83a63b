"""Classes, probabilities and explained scores from the logits of a classifier."""

import torch
from torch import Tensor

__all__ = ["class_weights", "n_classes", "predicted", "probabilities"]


def class_weights(targets: Tensor, n_outputs: int) -> Tensor:
    """Return rows ``(b, n_outputs)`` float32 whose product with the logits is the score of each image's class.

    Args:
        targets: ``(b,)`` int64.
        n_outputs: number of outputs of the network; with one, the score of class 0 is its negative.
    """
    if n_outputs == 1:
        return torch.where(targets > 0, 1.0, -1.0)[:, None]
    return torch.nn.functional.one_hot(targets, n_outputs).float()


def predicted(outputs: Tensor) -> Tensor:
    """Return the predicted classes ``(b,)`` int64 of logits ``(b, n)``: the largest, or the sign of a single one."""
    return (outputs[:, 0] > 0).long() if outputs.shape[1] == 1 else outputs.argmax(dim=1)


def probabilities(logits: Tensor) -> Tensor:
    """Return the probability of each class, ``(b, k)`` float64: softmax, or the sigmoid of one logit and its rest."""
    logits = logits.double()
    if logits.shape[1] > 1:
        return logits.softmax(dim=1)
    positive = logits.sigmoid()
    return torch.cat([1 - positive, positive], dim=1)


def n_classes(n_outputs: int) -> int:
    """Return the number of classes of a network with ``n_outputs`` outputs: two if it has one."""
    return 2 if n_outputs == 1 else n_outputs
