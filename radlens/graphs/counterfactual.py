"""Questions of counterfactual impact analysis: Major et al. 2020, section 2.

The companion ``"inpainter"`` maps images I ``(b, c, h, w)`` and masks M ``(b, 1, h, w)``, 1 = known and 0 = hole, to
images pi(M) of the same shape. ``"inpaint"`` asks for pi(M); ``"odds"`` for the log-odds of a class in an image, and
their gradient; ``"impact"`` for the log-odds in ``M I + (1 - M) pi(M)``, which needs no gradient; ``"counterfactual"``
for the same and their gradient with respect to M: the whole step of the optimisation is one graph.
"""

import torch
from torch import Tensor, nn

from radlens.graphs.asks import Answer, AskSpec, register
from radlens.graphs.classifier import ClassifierGraphs
from radlens.graphs.compiled import CompiledGraph
from radlens.graphs.gradient import forward_graph, gradient_graph

__all__ = ["INPAINTER", "example_masks", "log_odds"]

INPAINTER = "inpainter"
"""Name of the companion."""

_OTHERS = 1e4
"""Number subtracted from the logit of the class so that it does not count among the others."""


def log_odds(logits: Tensor, weights: Tensor) -> Tensor:
    """Return the log-odds ``log(p / (1 - p))`` of a class, ``(b,)``.

    Args:
        logits: ``(b, n)``; of a single output, the logit of class 1.
        weights: ``(b, n)``; the class is that of the largest weight. Of a single output, 1 for class 1, -1 for class 0.
    """
    score = (logits * weights).sum(dim=1)
    if logits.shape[1] == 1:
        return score
    chosen = (weights == weights.amax(dim=1, keepdim=True)).to(logits.dtype)
    return (logits * chosen).sum(dim=1) - torch.logsumexp(logits - _OTHERS * chosen, dim=1)


class _Step(nn.Module):
    """Map images, masks and weights to the log-odds of the images with their holes filled."""

    def __init__(self, classifier: nn.Module, inpainter: nn.Module) -> None:
        super().__init__()
        self.classifier, self.inpainter = classifier, inpainter

    def forward(self, images: Tensor, masks: Tensor, weights: Tensor) -> Tensor:
        filled = masks * images + (1 - masks) * self.inpainter(images, masks)
        return log_odds(self.classifier(filled).reshape(-1, weights.shape[1]), weights)


class _Odds(nn.Module):
    """Map images and weights to log-odds."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    def forward(self, images: Tensor, weights: Tensor) -> Tensor:
        # A copy, because the first layer may change its input in place.
        return log_odds(self.classifier(images.clone()).reshape(-1, weights.shape[1]), weights)


def example_masks(images: Tensor) -> Tensor:
    """Return masks of square holes, with a grey part, which optimised masks have as well."""
    height, width = images.shape[2:]
    side = max(2, min(height, width) // 8)
    rows, columns = torch.arange(height) // side, torch.arange(width) // side
    squares = ((rows[:, None] + columns) % 3 != 0).to(images)
    squares[: height // 2, : width // 2] = 0.3 + 0.4 * squares[: height // 2, : width // 2]
    shifts = [torch.roll(squares, (side * k, side * k), (0, 1)) for k in range(len(images))]
    return torch.stack(shifts)[:, None]


def _inpaint_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    found = forward_graph(graphs.companions[INPAINTER], tuple(graphs.examples("inpaint")))
    return found.named(["images", "masks"], ["inpainted"])


def _inpaint(graphs: ClassifierGraphs, images: Tensor, masks: Tensor) -> Answer:
    with torch.no_grad():
        return (graphs.companions[INPAINTER](images, masks),)


def _odds_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    found = gradient_graph(_Odds(graphs.module), tuple(graphs.examples("odds")), lambda odds: odds)
    return found.named(["images", "weights"], ["log_odds", "gradient"])


def _odds(graphs: ClassifierGraphs, images: Tensor, weights: Tensor) -> Answer:
    return _with_gradient(_Odds(graphs.module), (images, weights), 0)


def _impact_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    step = _Step(graphs.module, graphs.companions[INPAINTER])
    return forward_graph(step, tuple(graphs.examples("impact"))).named(["images", "masks", "weights"], ["log_odds"])


def _impact(graphs: ClassifierGraphs, images: Tensor, masks: Tensor, weights: Tensor) -> Answer:
    with torch.no_grad():
        return (_Step(graphs.module, graphs.companions[INPAINTER])(images, masks, weights),)


def _counterfactual_graph(graphs: ClassifierGraphs) -> CompiledGraph:
    step = _Step(graphs.module, graphs.companions[INPAINTER])
    found = gradient_graph(step, tuple(graphs.examples("counterfactual")), lambda odds: odds, wrt=1)
    return found.named(["images", "masks", "weights"], ["log_odds", "gradient"])


def _counterfactual(graphs: ClassifierGraphs, images: Tensor, masks: Tensor, weights: Tensor) -> Answer:
    return _with_gradient(_Step(graphs.module, graphs.companions[INPAINTER]), (images, masks, weights), 1)


def _with_gradient(module: nn.Module, inputs: tuple[Tensor, ...], wrt: int) -> Answer:
    """Return what the module computes, one number per sample, and the gradient with respect to an input."""
    inputs = tuple(each.detach().requires_grad_(k == wrt) for k, each in enumerate(inputs))
    with torch.enable_grad():
        found = module(*inputs)
        (gradient,) = torch.autograd.grad(found.sum(), inputs[wrt])
    return found.detach(), gradient


_MASKS = {"masks": example_masks}

register(
    AskSpec(
        "inpaint",
        ("images", "masks"),
        ("inpainted",),
        _inpaint_graph,
        _inpaint,
        answers=("inpainted",),
        companions=(INPAINTER,),
        examples=_MASKS,
    )
)
register(
    AskSpec(
        "odds",
        ("images", "weights"),
        ("log_odds", "gradient"),
        _odds_graph,
        _odds,
        answers=("log_odds", "gradient"),
        companions=(INPAINTER,),
    )
)
register(
    AskSpec(
        "impact",
        ("images", "masks", "weights"),
        ("log_odds",),
        _impact_graph,
        _impact,
        answers=("log_odds",),
        companions=(INPAINTER,),
        examples=_MASKS,
    )
)
register(
    AskSpec(
        "counterfactual",
        ("images", "masks", "weights"),
        ("log_odds", "gradient"),
        _counterfactual_graph,
        _counterfactual,
        answers=("log_odds", "gradient"),
        companions=(INPAINTER,),
        examples=_MASKS,
    )
)
