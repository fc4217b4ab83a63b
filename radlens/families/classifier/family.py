"""The family of image classifiers, single networks and ensembles, with every method that explains classes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from radlens.families.base import Family, Progress, Table, Worker
from radlens.wire import CLASSIFICATION

if TYPE_CHECKING:
    from radlens.dicom import Findings
    from radlens.families.classifier.manifest import ClassifierBundle, ClassifierManifest
    from radlens.families.classifier.service import ClassifierService
    from radlens.images import Image
    from radlens.service.parameters import Parameter

__all__ = ["FAMILY"]

_CHANGES = {"members": "n_members", "loss": "loss", "class_weight": "class_weight"}
"""Options that change a recipe, and the fields that they change."""


class Classifiers(Family["ClassifierBundle"]):
    """The family of classifiers with a single output, or one output per class."""

    task: ClassVar[str] = CLASSIFICATION
    # Several classifiers share the cores of one machine, so each starts with one worker; PUT
    # /models/NAME?min_worker=2 at the management address adds another. A batch of eight answers with the largest
    # allowed number of evaluations (20 000, at 170 ms for a gradient of a mammogram on 2 cores) takes 27 000 s. The
    # first start measures the engines, once for each model and machine.
    worker: ClassVar[Worker] = Worker(
        min_workers=1,
        max_workers=2,
        batch_size=8,
        max_batch_delay_ms=10,
        response_timeout_s=28_800,
        startup_timeout_s=900,
    )
    takes_companions: ClassVar[bool] = True
    train_options: ClassVar[frozenset[str]] = frozenset({*_CHANGES, "data", "root", "imagenet", "device"})

    def load(self, path: Path, *, verify: bool = True) -> ClassifierBundle:
        """See `Family`."""
        from radlens.families.classifier.manifest import ClassifierBundle

        return ClassifierBundle.load(path, verify=verify)

    def graphs(self, bundle: ClassifierBundle) -> Mapping[str, Path]:
        """See `Family`."""
        members = [bundle.graphs(member).values() for member in range(bundle.manifest.n_members)]
        return {path.stem: path for paths in members for path in paths}

    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Family`."""
        from radlens.families.classifier.recipes import CLASSIFIER_PRESETS

        return CLASSIFIER_PRESETS

    def train(
        self, run: Path, *, model: str, preset: str, options: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Train; the options ``data`` and ``root`` name a data set, ``imagenet`` a file of initial weights."""
        from radlens.families.classifier import training

        changes = {field: options[name] for name, field in _CHANGES.items() if name in options}
        recipe = replace(self.recipes()[model][preset], **changes)
        how = {name: options.get(name) for name in ("data", "root", "imagenet", "device")}
        return training.train_classifier(run, recipe, model=model, variant=preset, on_progress=report, **how).record

    def export(
        self,
        run: Path,
        folder: Path,
        *,
        name: str,
        version: str,
        report: Progress,
        companions: Mapping[str, Path] | None = None,
    ) -> ClassifierBundle:
        """See `Family`."""
        from radlens.families.classifier.making import bundle_run

        return bundle_run(run, folder, name=name, version=version, companions=companions, on_progress=report)

    def open_service(self, bundle: ClassifierBundle, **options: Any) -> ClassifierService:
        """Open a `ClassifierService` with its options."""
        from radlens.families.classifier.service import ClassifierService

        return ClassifierService(bundle, **options)

    def parameters(self, manifest: ClassifierManifest, kind: str, method: str | None = None) -> Mapping[str, Parameter]:
        """See `Family`."""
        from radlens.families.classifier.settings import explanation_parameters, prediction_parameters

        return prediction_parameters() if kind == "predict" else explanation_parameters(manifest, method)

    def record_tables(self, record: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        from radlens.families.classifier.tables import record_tables

        return record_tables(record)

    def bundle_tables(self, bundle: ClassifierBundle) -> Sequence[Table | str]:
        """See `Family`."""
        from radlens.families.classifier.tables import bundle_tables

        return bundle_tables(bundle.manifest.parity, bundle.manifest)

    def tables(self, answer: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        from radlens.families.classifier.tables import prediction_tables

        return prediction_tables(answer)

    def findings(self, answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
        """See `Family`."""
        from radlens.families.classifier.findings import findings

        return findings(answer, images)

    def files(self, answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
        """See `Family`."""
        from radlens.families.classifier.files import explanation_files

        return explanation_files(answer, image)


FAMILY = Classifiers()
"""The only instance."""
