"""The family of the phantom model: contrast-detail curves of CDMAM images (Amanova et al. 2022)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from radlens.errors import InvalidParameter
from radlens.families.base import Family, Progress, Table, Worker
from radlens.wire import CDC

if TYPE_CHECKING:
    from radlens.dicom import Findings
    from radlens.engines.calibration import Calibration
    from radlens.families.cdmam.manifest import Bundle, Manifest
    from radlens.families.cdmam.service import Service
    from radlens.images import Image
    from radlens.service.parameters import Parameter

__all__ = ["FAMILY", "MODEL"]

MODEL = "cdmam"
"""Name of the model."""


class Cdmam(Family["Bundle"]):
    """The family of ensembles that read CDMAM phantoms."""

    task: ClassVar[str] = CDC
    # While one worker streams a map for minutes, the other answers. The timeout is for plain answers: a batch of eight
    # with 62 500 evaluations each, the limit, takes 5000 s on 2 cores. A stream sends a line every few seconds.
    worker: ClassVar[Worker] = Worker(
        min_workers=2,
        max_workers=2,
        batch_size=8,
        max_batch_delay_ms=10,
        response_timeout_s=7200,
        startup_timeout_s=300,
    )
    train_options: ClassVar[frozenset[str]] = frozenset({"members", "recordings", "device"})
    serve_options: ClassVar[frozenset[str]] = frozenset({"pace", "checkpoint", "workers"})
    default_preset: ClassVar[str] = "standard"

    def load(self, path: Path, *, verify: bool = True) -> Bundle:
        """See `Family`."""
        from radlens.families.cdmam.manifest import Bundle

        return Bundle.load(path, verify=verify)

    def graphs(self, bundle: Bundle) -> Mapping[str, Path]:
        """See `Family`."""
        from radlens.families.cdmam.manifest import GRADIENT_ONNX, PREDICTION_ONNX

        return {name: bundle.path / name for name in (PREDICTION_ONNX, GRADIENT_ONNX)}

    def calibrations(self, bundle: Bundle, **how: Any) -> Mapping[str, Calibration]:
        """Measure engines with each graph; torch computes with the weights."""
        from radlens.families.cdmam.model import open_bundle

        opened = open_bundle(bundle, **how)
        refused = {
            graph: {each.engine: each.reason for each in opened.refused if each.graph == graph}
            for graph in opened.calibrations
        }
        return {name: replace(found, refused=refused[name]) for name, found in opened.calibrations.items()}

    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Family`."""
        from radlens.families.cdmam.training import PRESETS

        return {MODEL: PRESETS}

    def train(
        self, run: Path, *, model: str, preset: str, options: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Train; the option ``members`` is the number of networks, ``recordings`` a folder of real phantom images."""
        from radlens.families.cdmam.training import train

        recipe = self.recipes()[model][preset]
        if "members" in options:
            recipe = replace(recipe, n_members=options["members"])
        how: dict[str, Any] = {name: options.get(name) for name in ("recordings", "device")}
        return train(run, recipe, on_progress=report, **how).record

    def export(self, run: Path, folder: Path, *, name: str, version: str, report: Progress) -> Bundle:
        """See `Family`."""
        from radlens.families.cdmam.export import export_bundle
        from radlens.families.cdmam.training import load_run

        trained = load_run(run)
        return export_bundle(
            trained,
            folder,
            name=name,
            version=version,
            on_progress=lambda stage, done, total: report("exporting", done, total),
        )

    def name_of(self, run: Path) -> str:
        """See `Family`."""
        return MODEL

    def open_service(self, bundle: Bundle, **options: Any) -> Service:
        """Open a `Service` with its options."""
        from radlens.families.cdmam.service import Service

        return Service(bundle, **options)

    def methods(self, manifest: Manifest) -> Sequence[str]:
        """Return the methods of the manifest and, for registered phantoms, disk ablation."""
        from radlens.families.cdmam.methods import methods_of

        return methods_of(manifest)

    def parameters(self, manifest: Manifest, kind: str, method: str | None = None) -> Mapping[str, Parameter]:
        """See `Family`."""
        from radlens.families.cdmam.methods import ABLATION, ablation_parameters, defaults_of, methods_of
        from radlens.families.cdmam.settings import explanation_parameters, prediction_parameters

        sampler = manifest.input.sampler
        if kind == "predict":
            return prediction_parameters(sampler)
        methods = methods_of(manifest)
        if method is not None and method not in methods:
            raise InvalidParameter(f"method must be one of {', '.join(methods)}, got {method!r}")
        if method == ABLATION:
            return ablation_parameters(sampler)
        return explanation_parameters(sampler, methods, method, defaults_of(manifest.input.registered))

    def record_tables(self, record: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        from radlens.families.cdmam.tables import record_tables

        return record_tables(record)

    def bundle_tables(self, bundle: Bundle) -> Sequence[Table | str]:
        """See `Family`."""
        from radlens.families.cdmam.tables import parity_table

        return [parity_table(bundle.manifest.parity)]

    def tables(self, answer: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        from radlens.families.cdmam.tables import prediction_tables

        return prediction_tables(answer)

    def picture(self, answer: Mapping[str, Any]) -> bytes | None:
        """Return the predicted curve as PNG, or a grey page with the reasons why the image cannot be judged."""
        from radlens.families.cdmam.drawing import curve_picture
        from radlens.figures import figure_not_assessable
        from radlens.images import to_png

        return curve_picture(answer) if answer["assessable"] else to_png(figure_not_assessable(answer["reasons"]))

    def findings(self, answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
        """See `Family`."""
        from radlens.families.cdmam.findings import findings

        return findings(answer, images)

    def files(self, answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
        """See `Family`."""
        from radlens.families.cdmam.files import explanation_files

        return explanation_files(answer, image)


FAMILY = Cdmam()
"""The only instance."""
