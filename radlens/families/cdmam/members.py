"""The members of a CDMAM ensemble one by one, computed together."""

import hashlib
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from radlens.engines.base import DEFAULT_BATCH_SIZE, Engine
from radlens.errors import InvalidInput
from radlens.explainers import Explainer, StepwiseExplainer, complete, of_member
from radlens.networks import FoldedCdmamEnsemble

__all__ = ["CdmamMembers"]


class CdmamMembers:
    """Explains each member of an ensemble by itself, all of them in the same calls of one graph.

    Args:
        engine: computes ``score (b, m)`` and ``gradient (b, m, 250, 250)`` of ``images (b, m, 250, 250)``, an image
            for each member; see :class:`radlens.families.cdmam.gradient.CdmamMemberGradients`.
        model: the ensemble; computes midpoints where no gradient is asked for.
    """

    def __init__(self, engine: Engine, model: FoldedCdmamEnsemble) -> None:
        self._engine, self._model, self.n_members = engine, model, model.n_members

    def attribute(self, explainer: Explainer, images: Tensor) -> Tensor:
        """Return the map of each member for each image, ``(b, m, 250, 250)``; their mean is that of the members.

        Args:
            explainer: a method of Amanova et al. 2022.
            images: normalised, ``(b, 1, 250, 250)``.

        Raises:
            InvalidInput: another shape.
        """
        if images.ndim != 4 or images.shape[1] != 1:
            raise InvalidInput(f"images must have shape (b, 1, h, w), got {tuple(images.shape)}")
        b, _, height, width = images.shape
        if not isinstance(explainer, StepwiseExplainer):
            # Rows of one image are its members, so that every call is of whole images.
            return explainer.attribute(self, images.repeat_interleave(self.n_members, dim=0)).view(b, -1, height, width)
        # They all cover the same squares of the same image: one call answers for all.
        tasks = [of_member(explainer.work(image, None), k) for image in images for k in range(self.n_members)]
        with torch.no_grad():
            found = complete(_Answers(self), tasks)
        return torch.stack([each.map for each in found]).view(b, -1, height, width)

    def score(self, images: Tensor) -> Tensor:
        """Return the midpoint of the curve of each member, ``(b * m,)`` um of gold; see `gradient`."""
        return self._run(images)[0]

    def gradient(self, images: Tensor) -> Tensor:
        """Return ``R(x)`` of each member, in the shape of ``images``.

        Args:
            images: ``(b * m, 1, 250, 250)``, an image for each member, then the next one for each.
        """
        return self._run(images)[1]

    def score_of_each(self, images: Tensor) -> Tensor:
        """Return the midpoint of each member at images ``(b, 1, 250, 250)``, ``(b, m)``."""
        # The first layer of a large batch takes gigabytes.
        return torch.cat([self._model.midpoints(part) for part in images.float().split(DEFAULT_BATCH_SIZE)])

    def gradient_of_each(self, images: Tensor) -> Tensor:
        """Return the gradient of each member at images ``(b, 1, 250, 250)``, ``(b, m, 250, 250)``."""
        gradients = self.gradient(images.repeat_interleave(self.n_members, dim=0))
        return gradients.view(len(images), -1, *images.shape[2:])

    def _run(self, images: Tensor) -> tuple[Tensor, Tensor]:
        for_each = images.float().numpy().reshape(-1, self.n_members, *images.shape[2:])
        found = self._engine.run({"images": np.ascontiguousarray(for_each)})
        return torch.from_numpy(found["score"]).reshape(-1), torch.from_numpy(found["gradient"]).reshape(images.shape)


class _Answers:
    """Members for tasks of each: what one member is asked is answered for all, and kept until each has asked it.

    Args:
        model: answers.
    """

    def __init__(self, model: CdmamMembers) -> None:
        self._model = model
        self._kept: dict[tuple[str, bytes], list[Tensor]] = {}
        self.members = [_Answer(self, member) for member in range(model.n_members)]

    def of(self, images: Tensor, member: int, kind: Literal["score", "gradient"]) -> Tensor:
        """Return the midpoints ``(b,)`` or the gradients ``(b, 250, 250)`` of one member."""
        key = (kind, hashlib.sha256(np.ascontiguousarray(images.numpy()).data).digest())
        if key not in self._kept:
            of_each = self._model.score_of_each if kind == "score" else self._model.gradient_of_each
            self._kept[key] = list(of_each(images).unbind(dim=1))
        found = self._kept[key][member]
        if member == self._model.n_members - 1:
            del self._kept[key]
        return found


class _Answer:
    def __init__(self, answers: _Answers, member: int) -> None:
        self._answers, self._member = answers, member

    def score(self, images: Tensor) -> Tensor:
        return self._answers.of(images, self._member, "score")

    def gradient(self, images: Tensor) -> Tensor:
        return self._answers.of(images, self._member, "gradient")[:, None]
