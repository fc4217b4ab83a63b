"""``radlens evaluate --domain``: whether a phantom model judges the right images and refuses wrong ones."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from radlens.cli.console import note, out, stages, table
from radlens.cli.evaluate_causal import ModelReader
from radlens.errors import BundleError, InvalidInput

if TYPE_CHECKING:
    from radlens.evaluation.domain import Assess, DomainRecord, Judgement, Kind

__all__ = ["FILE", "ModelAssessor", "evaluate_domain", "print_record"]

FILE = "domain.json"
"""Name of the record in the folder of an evaluation."""


def evaluate_domain(
    model: Path, output: Path | None, *, n_trained: int, n_each: int, seed: int, spacing_mm: float
) -> None:
    """Measure the domain record of a bundle or a training run with `radlens.evaluation.domain.domain_record`; print it.

    Args:
        model: folder of the bundle or the run.
        output: folder of the record and of the judgements so far, from which an interrupted measurement continues;
            None to write no files.
        n_trained: number of images of the training range.
        n_each: number of images of each other kind.
        seed: seed of all random numbers.
        spacing_mm: pixel spacing.

    Raises:
        BundleError: The bundle is damaged, or not that of a phantom model.
        TrainingError: The folder does not hold a finished run of a phantom model.
    """
    from radlens.evaluation.domain import domain_record

    assessor = ModelAssessor(model)
    identity = assessor.identity()
    with stages("opening the model") as report:
        record = domain_record(
            assessor,
            n_trained=n_trained,
            n_each=n_each,
            seed=seed,
            spacing_mm=spacing_mm,
            folder=output,
            identity=identity,
            on_progress=report,
        )
    print_record(record)
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / FILE).write_text(json.dumps({"model": identity, **record.as_json()}, indent=2) + "\n", "utf-8")
        note(f"wrote {output / FILE}")


@dataclass(frozen=True)
class ModelAssessor:
    """Checks with the model of a folder whether images can be judged.

    Images for a bundle go through its service as DICOM, like those of a client. A training run does not have a service
    yet; its images are judged by the default limits of `radlens.phantoms.cdmam.domain.Limits`.

    Args:
        folder: folder of a bundle or of a finished training run.
    """

    folder: Path

    def __call__(self, pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> Judgement:
        """Return whether the model can judge an image, and the reasons if it cannot."""
        return self._assess(pixels, spacing_mm)

    def identity(self) -> str:
        """Return a SHA-256 of the model; errors are those of `evaluate_domain`."""
        from radlens.families import load
        from radlens.wire import CDC

        if self._is_bundle and (task := load(self.folder).manifest.task) != CDC:
            raise BundleError(f"--domain needs a contrast-detail model, got one of task {task}")
        return ModelReader(self.folder).identity()

    @property
    def _is_bundle(self) -> bool:
        from radlens.bundles import MANIFEST

        return (self.folder / MANIFEST).is_file()

    @cached_property
    def _assess(self) -> Assess:
        return _with_service(self.folder) if self._is_bundle else _with_members(self.folder)


def _with_service(folder: Path) -> Assess:
    from radlens.client import Client
    from radlens.evaluation.domain import Judgement
    from radlens.families import load
    from radlens.local import LocalTransport

    bundle = load(folder)
    client = Client("http://local", model=bundle.manifest.name, transport=LocalTransport(bundle))

    def assess(pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> Judgement:
        try:
            answer = client.predict(_as_dicom(pixels, spacing_mm))
        except InvalidInput as error:
            return Judgement(False, (str(error),))
        return Judgement(answer["assessable"], answer["reasons"])

    return assess


def _as_dicom(pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> bytes:
    import pydicom

    from radlens.phantoms.cdmam import Acquisition, Layout, PhantomImage, to_dicom

    layout = Layout.on_detector((pixels.shape[0], pixels.shape[1]), spacing_mm)
    dataset = pydicom.dcmread(BytesIO(to_dicom(PhantomImage(pixels, Acquisition(), layout, 0))))
    dataset.BitsStored, dataset.HighBit = 16, 15
    # The header must not state an exposure, because the pixels may be those of a wrong image.
    del dataset.KVP, dataset.Exposure, dataset.ExposureInuAs
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def _with_members(folder: Path) -> Assess:
    from radlens.evaluation.domain import Judgement
    from radlens.families.cdmam import PhantomReader
    from radlens.families.cdmam.training import load_run
    from radlens.phantoms.cdmam import domain, register

    run = load_run(folder)
    reader, limits = PhantomReader(run.ensemble(), run.calibration), domain.Limits()

    def assess(pixels: NDArray[np.float32], spacing_mm: tuple[float, float]) -> Judgement:
        try:
            phantom = register(pixels, spacing_mm)
            findings = domain.findings(phantom, pixels)
            reasons = domain.reasons(findings, limits)
            if not reasons:
                curve = reader.read(phantom)
                reasons = domain.contradictions(findings, curve.mean, curve.interval, limits)
        except InvalidInput as error:
            return Judgement(False, (str(error),))
        return Judgement(not reasons, reasons)

    return assess


def print_record(record: DomainRecord) -> None:
    """Print how many images of each kind are refused, with the most frequent reason."""
    _print_kinds("Must be judged", {"training range": record.trained, **record.right}, is_right=True)
    _print_kinds("Must be refused", record.wrong, is_right=False)
    judged = sum(kind.n for kind in record.wrong.values())
    trained = record.trained
    out.print(
        f"{'✓' if record.holds else '✗'} {trained.refused} of {trained.n} unseen images of the training range are "
        f"refused ({record.share_refused:.1%}; at most 1 % is allowed); {record.passed} of {judged} wrong images of "
        f"{len(record.wrong)} kinds are judged (0 are allowed)",
        soft_wrap=True,
    )


def _print_kinds(title: str, kinds: Mapping[str, Kind], *, is_right: bool) -> None:
    rows = []
    for name, kind in kinds.items():
        wanted = kind.refused == 0 if is_right else kind.passed == 0
        usual = next(iter(kind.reasons), "")
        rows.append((f"{name}: {usual}" if usual else name, f"{kind.refused}/{kind.n}", "✓" if wanted else "✗"))
    table(["kind: usual first reason", "refused", ""], rows, title=title)
