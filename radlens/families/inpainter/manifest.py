"""The bundle of an inpainter."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from radlens.bundles import BundleManifest, StoredBundle, write_manifest
from radlens.datasets.model_input import ModelInput
from radlens.wire import INPAINTING

if TYPE_CHECKING:
    from radlens.networks import PartialConvInpainter

__all__ = ["GRAPH", "WEIGHTS", "InpainterBundle", "InpainterManifest", "save_inpainter"]

GRAPH = "inpainter.onnx"
"""Graph from ``images`` ``(b, c, h, w)`` and ``masks`` ``(b, 1, h, w)``, 1 = known, to ``inpainted``."""

WEIGHTS = "inpainter.npz"
"""Weights, with which the inpainter becomes the companion of a classifier, and serves without its graph."""


@dataclass(frozen=True, kw_only=True)
class InpainterManifest(BundleManifest):
    """The contents of ``bundle.json``.

    Attributes:
        input: Preprocessing that the network expects.
        width: See `radlens.networks.PartialConvInpainter`.
        task: `radlens.wire.INPAINTING`.
    """

    input: ModelInput
    width: int
    task: str = INPAINTING


class InpainterBundle(StoredBundle[InpainterManifest]):
    """The bundle of an inpainter."""

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> "InpainterBundle":
        """Read a bundle; arguments and errors are those of `StoredBundle.read`."""
        return cls.read(path, _parse, lambda manifest, file: file == GRAPH, verify=verify)

    @property
    def graph(self) -> Path:
        """File of the graph."""
        return self.path / GRAPH

    def network(self) -> "PartialConvInpainter":
        """Return the network in evaluation mode."""
        import numpy as np
        import torch

        from radlens.networks import PartialConvInpainter

        found = PartialConvInpainter(self.manifest.input.n_channels, self.manifest.width)
        with np.load(self.path / WEIGHTS) as stored:
            found.load_state_dict({name: torch.from_numpy(stored[name]) for name in stored.files})
        return found.eval().requires_grad_(False)


def save_inpainter(path: Path, manifest: InpainterManifest) -> InpainterBundle:
    """Write ``bundle.json`` for the files in ``path``, and load the bundle."""
    write_manifest(path, asdict(manifest))
    return InpainterBundle.load(path)


def _parse(document: Mapping[str, Any]) -> InpainterManifest:
    if document["task"] != INPAINTING:
        raise ValueError(f"task must be {INPAINTING!r}, got {document['task']!r}")
    known = {each.name: document[each.name] for each in fields(InpainterManifest)}
    own = {"input": ModelInput.from_json(document["input"]), "explainers": tuple(document["explainers"])}
    return InpainterManifest(**(known | own))
