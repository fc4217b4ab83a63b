"""The bundle of a classifier of one or several members."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from radlens.bundles.files import FORMAT_VERSION, MANIFEST, problems, read_manifest, write_manifest
from radlens.datasets.model_input import ModelInput
from radlens.errors import BundleError
from radlens.wire import CLASSIFICATION

__all__ = ["ClassifierBundle", "ClassifierManifest", "graph_file", "save_classifier"]


@dataclass(frozen=True)
class ClassifierManifest:
    """The contents of ``bundle.json``.

    Attributes:
        name: model name in URLs.
        version: as TorchServe wants it, such as ``"1.0"``.
        classes: names of the classes, at least two; with a single output the second is what a positive logit means.
        n_outputs: logits of an image: 1, or one for each class.
        input: what the network takes.
        n_members: networks in the ensemble.
        graphs: that every member has, see :data:`radlens.graphs.GRAPHS`.
        explainers: methods that these graphs allow.
        refused: why other methods are not allowed, by name.
        form: what the model was made from: ``"eager"``, ``"torchscript"`` or ``"onnx"``.
        layer: path of the module whose feature maps are used; None for the last ones.
        training: the training record.
        parity: relative error of each graph in float32.
        randomisation: of each method, see :func:`radlens.evaluation.model_randomisation`; empty if not measured.
        defaults: values of method parameters that differ from the methods' own, by method.
        files: SHA-256 of every other file of the bundle, by name.
        task: `radlens.wire.CLASSIFICATION`.
        format_version: of this layout.
    """

    name: str
    version: str
    classes: tuple[str, ...]
    n_outputs: int
    input: ModelInput
    n_members: int
    graphs: tuple[str, ...]
    explainers: tuple[str, ...]
    refused: Mapping[str, str]
    form: str
    layer: str | None = None
    training: Mapping[str, Any] = field(default_factory=dict)
    parity: Mapping[str, Any] = field(default_factory=dict)
    randomisation: Mapping[str, Any] = field(default_factory=dict)
    defaults: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    files: Mapping[str, str] = field(default_factory=dict)
    task: str = CLASSIFICATION
    format_version: int = FORMAT_VERSION


@dataclass(frozen=True)
class ClassifierBundle:
    """A bundle that was loaded and verified.

    Attributes:
        path: its directory.
        manifest: what ``bundle.json`` says.
        bundle_hash: SHA-256 of ``bundle.json``, 64 hexadecimal digits.
    """

    path: Path
    manifest: ClassifierManifest
    bundle_hash: str

    @classmethod
    def load(cls, path: Path | str, *, verify: bool = True) -> "ClassifierBundle":
        """Read a bundle.

        Args:
            path: directory with ``bundle.json``.
            verify: compare every file with its hash.

        Raises:
            BundleError: no such bundle there, another format version, a file missing or altered.
        """
        path = Path(path)
        document, bundle_hash = read_manifest(path)
        try:
            manifest = _parse(document)
        except (ValueError, TypeError, KeyError) as error:
            raise BundleError(f"{MANIFEST} must describe a classifier, got {type(error).__name__}: {error}") from error
        if verify:
            problems(path, manifest.files, lambda name: False)
        return cls(path, manifest, bundle_hash)

    def graphs(self, member: int) -> dict[str, Path]:
        """Return the file of each graph of a member, by name."""
        return {name: self.path / graph_file(member, name) for name in self.manifest.graphs}


def graph_file(member: int, name: str) -> str:
    """Return the name of the file that holds a graph."""
    return f"member-{member}.{name}.onnx"


def save_classifier(path: Path | str, manifest: ClassifierManifest) -> ClassifierBundle:
    """Write ``bundle.json`` for the files that already lie in ``path``, and load the result.

    Args:
        path: directory that holds the graphs.
        manifest: its ``files`` are filled in here.
    """
    path = Path(path)
    write_manifest(path, asdict(manifest))
    return ClassifierBundle.load(path)


def _parse(document: dict[str, Any]) -> ClassifierManifest:
    if document["task"] != CLASSIFICATION:
        raise ValueError(f"task must be {CLASSIFICATION!r}, got {document['task']!r}")
    tuples = {name: tuple(document[name]) for name in ("classes", "graphs", "explainers")}
    known = {f.name: document[f.name] for f in fields(ClassifierManifest)}
    return ClassifierManifest(**(known | tuples | {"input": ModelInput.from_json(document["input"])}))
