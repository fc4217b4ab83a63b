"""The family of inpainters."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from radlens.families.base import Family, Progress, Table, Worker
from radlens.wire import INPAINTING

if TYPE_CHECKING:
    from radlens.dicom import Findings
    from radlens.families.inpainter.manifest import InpainterBundle, InpainterManifest
    from radlens.families.inpainter.service import InpainterService
    from radlens.images import Image
    from radlens.service.parameters import Parameter

__all__ = ["FAMILY"]


class Inpainters(Family["InpainterBundle"]):
    """Models that fill holes in images with healthy tissue."""

    task: ClassVar[str] = INPAINTING
    worker: ClassVar[Worker] = Worker(
        min_workers=1,
        max_workers=2,
        batch_size=8,
        max_batch_delay_ms=10,
        response_timeout_s=300,
        startup_timeout_s=600,
    )
    train_options: ClassVar[frozenset[str]] = frozenset({"data", "root", "vgg", "device"})

    def load(self, path: Path, *, verify: bool = True) -> InpainterBundle:
        """See `Family`."""
        from radlens.families.inpainter.manifest import InpainterBundle

        return InpainterBundle.load(path, verify=verify)

    def graphs(self, bundle: InpainterBundle) -> Mapping[str, Path]:
        """See `Family`."""
        return {"inpainter": bundle.graph}

    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Family`."""
        from radlens.families.inpainter.recipes import INPAINTER_PRESETS

        return INPAINTER_PRESETS

    def train(
        self, run: Path, *, model: str, preset: str, options: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Train; the options ``data`` and ``root`` name a data set, ``vgg`` a file with weights of VGG-16."""
        from radlens.families.inpainter.training import train_inpainter

        how = {name: options.get(name) for name in self.train_options}
        recipe = self.recipes()[model][preset]
        return train_inpainter(run, recipe, model=model, variant=preset, on_progress=report, **how).record

    def export(self, run: Path, folder: Path, *, name: str, version: str, report: Progress) -> InpainterBundle:
        """See `Family`."""
        from radlens.families.inpainter.making import bundle_inpainter_run

        return bundle_inpainter_run(run, folder, name=name, version=version, report=report)

    def open_service(self, bundle: InpainterBundle, **options: Any) -> InpainterService:
        """Open an `InpainterService` with its options."""
        from radlens.families.inpainter.service import InpainterService

        return InpainterService(bundle, **options)

    def parameters(self, manifest: InpainterManifest, kind: str, method: str | None = None) -> Mapping[str, Parameter]:
        """See `Family`."""
        from radlens.families.inpainter.service import prediction_parameters

        return prediction_parameters() if kind == "predict" else {}

    def record_tables(self, record: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        found = record["evaluation"]
        rows = [
            ("inpainter", f"{found['inpainter']:.3f}"),
            ("mean of the known tissue", f"{found['mean']:.3f}"),
        ]
        title = f"Mean absolute error in the holes of {record['images']['validation']['n']} images"
        return [Table(title, ("filled by", "standard deviations of the image"), rows)]

    def bundle_tables(self, bundle: InpainterBundle) -> Sequence[Table | str]:
        """See `Family`."""
        rows = [(form, f"{error:.1e}") for form, error in bundle.manifest.parity["inpainter"].items()]
        return [Table("Against the network in float64", ("form", "relative error"), rows)]

    def tables(self, answer: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        found = answer["prediction"]
        holes = found["mask"] > 0
        change = abs(found["change"][holes]).mean() if holes.any() else 0.0
        rows = [("pixels in holes", f"{int(holes.sum())}"), ("mean absolute change there", f"{change:.4g}")]
        return [Table("Filled", ("", "value"), rows)]

    def picture(self, answer: Mapping[str, Any]) -> bytes | None:
        """Return the filled image as PNG."""
        from radlens.figures import display_grey
        from radlens.images import to_png

        return to_png(display_grey(answer["prediction"]["filled"]))

    def findings(self, answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
        """See `Family`."""
        from radlens.families.inpainter.findings import findings

        return findings(answer, images)

    def files(self, answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
        """Return an empty mapping: an inpainter has no explanations."""
        return {}


FAMILY = Inpainters()
"""The only instance."""
