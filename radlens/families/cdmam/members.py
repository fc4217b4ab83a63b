"""Explanations of the single members of a CDMAM ensemble, with one graph that computes all of them."""

from collections.abc import Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from radlens.engines.base import DEFAULT_BATCH_SIZE, Engine
from radlens.errors import InvalidInput
from radlens.explainers import Ask, Explainer, Model, complete, of_member
from radlens.networks import FoldedCdmamEnsemble

__all__ = ["CdmamMembers"]


class CdmamMembers(Model):
    """Explains the members of an ensemble separately, with calls of one graph that computes all members.

    Args:
        engine: Engine of the graph of :class:`radlens.families.cdmam.gradient.CdmamMemberGradients`, which maps
            ``images (b, m, 250, 250)``, one per member, to ``score (b, m)`` and ``gradient (b, m, 250, 250)``.
        model: Ensemble that computes midpoints, which need no gradient.
    """

    def __init__(self, engine: Engine, model: FoldedCdmamEnsemble) -> None:
        self._engine, self._model, self.n_members = engine, model, model.n_members

    def attribute_each(self, explainer: Explainer, images: Tensor) -> Tensor:
        """Return the maps of all members for each image, ``(b, m, 250, 250)``.

        Args:
            explainer: Method of Amanova et al. 2022.
            images: Normalised images ``(b, 1, 250, 250)``.

        Raises:
            InvalidInput: The shape is wrong.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise InvalidInput(f"images must have shape (b, 1, h, w), got {tuple(images.shape)}")
        tasks = [of_member(explainer.work(image, None), k) for image in images for k in range(self.n_members)]
        with torch.no_grad():
            found = complete(self, tasks)
        return torch.stack([each.map for each in found]).view(len(images), -1, *images.shape[2:])

    def answer(self, asks: Sequence[Ask]) -> list[tuple[Tensor, ...]]:
        """Answer a round of questions with one call: every member has the same questions, about its own images."""
        name, of_each = asks[0].name, [[ask for ask in asks if ask.member == k] for k in range(self.n_members)]
        self.require(name)
        images = torch.stack([torch.cat([ask.images for ask in own]) for own in of_each], dim=1)
        found = self._scores(images) if name == "score" else self._gradients(images)
        sizes = [len(ask.images) for ask in of_each[0]]
        parts = [iter(found[:, k].split(sizes)) for k in range(self.n_members)]
        return [(next(parts[ask.member or 0]),) for ask in asks]

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        raise AssertionError("every question must name its member")

    def _scores(self, images: Tensor) -> Tensor:
        """Return the midpoints of the members ``(n, m)``, um of gold, for images ``(n, m, 1, 250, 250)``."""
        if all(torch.equal(images[:, 0], images[:, k]) for k in range(1, self.n_members)):
            # Occlusion gives all members the same images, so one call of the ensemble computes their midpoints.
            return self._midpoints(images[:, 0])
        return torch.stack([self._midpoints(images[:, k])[:, k] for k in range(self.n_members)], dim=1)

    def _midpoints(self, images: Tensor) -> Tensor:
        # The activations of the first layer take gigabytes for a large batch.
        return torch.cat([self._model.midpoints(part) for part in images.float().split(DEFAULT_BATCH_SIZE)])

    def _gradients(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of each member for its own image, in the shape of ``images``."""
        given = np.ascontiguousarray(images[:, :, 0].float().numpy())
        return torch.from_numpy(self._engine.run({"images": given})["gradient"])[:, :, None]
