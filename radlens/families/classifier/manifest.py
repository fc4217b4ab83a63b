"""The bundle of a classifier with one or several members."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any

from radlens import explainers
from radlens.bundles import BundleManifest, StoredBundle, write_manifest
from radlens.datasets.model_input import ModelInput
from radlens.families.classifier.domain import DOMAIN, ImageDomain
from radlens.wire import CLASSIFICATION

TRACED = "members.traced.pt"

_OF_TRACED = ("prediction", "gradient")
"""Graphs that the traced module can replace."""

__all__ = ["TRACED", "ClassifierBundle", "ClassifierManifest", "graph_file", "save_classifier"]


@dataclass(frozen=True, kw_only=True)
class ClassifierManifest(BundleManifest):
    """The contents of ``bundle.json``.

    Attributes:
        classes: names of the classes, at least two; with a single output a positive logit stands for the second class.
        n_outputs: number of logits of an image: 1, or one per class.
        input: preprocessing that the network expects.
        n_members: number of networks in the ensemble.
        graphs: names of the graphs that every member has, from :mod:`radlens.graphs.asks`.
        refused: reason why a method, or an alternative such as ``lrp rule=deep_taylor``, is not allowed, by name.
        form: form of the source model: ``"eager"``, ``"torchscript"`` or ``"onnx"``.
        layer: path of the module whose feature maps explain the model; None for the last feature maps.
        randomisation: result of :func:`radlens.evaluation.model_randomisation` for each method; empty if not measured.
        left_out: what was left out at the end of a member, by member, such as ``{"member-0": "Softmax"}``: the graphs
            give the logits before it.
        defaults: defaults of parameters that differ from those of the methods, by method.
        companions: name, version and bundle hash of each companion network, by its kind.
        network_hash: hash of the weights, see `radlens.families.classifier.fingerprint`; empty for a network that
            radlens cannot differentiate, and in older bundles.
        task: `radlens.wire.CLASSIFICATION`.
    """

    classes: tuple[str, ...]
    n_outputs: int
    input: ModelInput
    n_members: int
    graphs: tuple[str, ...]
    refused: Mapping[str, str]
    form: str
    layer: str | None = None
    randomisation: Mapping[str, Any] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    companions: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    network_hash: str = ""
    task: str = CLASSIFICATION


class ClassifierBundle(StoredBundle[ClassifierManifest]):
    """The bundle of a classifier.

    The traced module replaces damaged graphs of predictions and gradients. Methods that need another damaged graph are
    not allowed.
    """

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> "ClassifierBundle":
        """Read a bundle; arguments and errors are those of `StoredBundle.read`."""
        found = cls.read(path, _parse, _may_miss, verify=verify)
        return cls(found.path, _without(found.manifest, found.damaged), found.bundle_hash, found.damaged)

    @property
    def traced(self) -> Path:
        """TorchScript module of all members, which maps images ``(b, c, h, w)`` to logits ``(b, m, n_outputs)``."""
        return self.path / TRACED

    def domain(self) -> ImageDomain | None:
        """Return the images that the model was trained on; None if the bundle does not know them.

        Raises:
            BundleError: The file cannot be read.
        """
        return ImageDomain.load(self.path / DOMAIN) if DOMAIN in self.manifest.files else None

    def graphs(self, member: int) -> dict[str, Path]:
        """Return the file of each graph of a member, by name."""
        return {name: self.path / graph_file(member, name) for name in self.manifest.graphs}

    def damaged_graphs(self, member: int) -> dict[str, str]:
        """Return the reasons why graphs of a member must not be used, by name of the graph."""
        files = {name: graph_file(member, name) for name in self.manifest.graphs}
        return {name: self.damaged[file] for name, file in files.items() if file in self.damaged}


def graph_file(member: int, name: str) -> str:
    """Return the file name of a graph."""
    return f"member-{member}.{name}.onnx"


def save_classifier(path: Path | str, manifest: ClassifierManifest) -> ClassifierBundle:
    """Write ``bundle.json`` for the files in ``path``, and load the bundle.

    Args:
        path: directory with the graphs.
        manifest: manifest whose ``files`` are filled in.
    """
    path = Path(path)
    write_manifest(path, asdict(manifest))
    return ClassifierBundle.load(path)


def _parse(document: dict[str, Any]) -> ClassifierManifest:
    if document["task"] != CLASSIFICATION:
        raise ValueError(f"task must be {CLASSIFICATION!r}, got {document['task']!r}")
    tuples = {name: tuple(document[name]) for name in ("classes", "graphs", "explainers")}
    # Older bundles state neither companions, nor what was left out, nor the hash of the weights.
    document = {"companions": {}, "left_out": {}, "network_hash": "", **document}
    known = {f.name: document[f.name] for f in fields(ClassifierManifest)}
    return ClassifierManifest(**(known | tuples | {"input": ModelInput.from_json(document["input"])}))


def _may_miss(manifest: ClassifierManifest, file: str) -> bool:
    """Return whether a model can be served without ``file``: a graph that is optional or has the traced module."""
    graphs = {graph_file(member, name): name for member in range(manifest.n_members) for name in manifest.graphs}
    return file in graphs and (graphs[file] not in _OF_TRACED or TRACED in manifest.files)


def _without(manifest: ClassifierManifest, damaged: Mapping[str, str]) -> ClassifierManifest:
    """Return a manifest without the methods that need a damaged graph which the traced module cannot replace."""
    lost = {
        name: damaged[file]
        for member in range(manifest.n_members)
        for name in manifest.graphs
        if name not in _OF_TRACED and (file := graph_file(member, name)) in damaged
    }
    needs = {label: its for method in manifest.explainers for label, its in explainers.variants(method).items()}
    reasons = {label: lost[need] for label, its in needs.items() for need in its if need in lost}
    allowed = tuple(method for method in manifest.explainers if method not in reasons)
    return replace(manifest, explainers=allowed, refused={**manifest.refused, **reasons})
