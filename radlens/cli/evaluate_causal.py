"""``radlens evaluate --causal``: the dependence of a phantom model's answer on each cause."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from radlens.cli.console import note, out, stages, table
from radlens.errors import BundleError, InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from radlens.evaluation import CausalRecord, Criterion, Quantity
    from radlens.evaluation.causal import Read, Reading

__all__ = ["CAUSAL", "FILE", "ModelReader", "evaluate_causal", "print_record"]

CAUSAL = "causal"
"""Key of the causal record in the record of a training run, and therefore in a bundle."""

FILE = "causal.json"
"""Name of the record in the folder of an evaluation."""


def evaluate_causal(
    model: Path,
    output: Path | None,
    *,
    n: int,
    n_coverage: int | None,
    seed: int,
    spacing_mm: float,
    max_error: float,
    n_workers: int,
    is_kept: bool = False,
) -> None:
    """Measure the causal record of a bundle or a training run with `radlens.evaluation.causal_record`, and print it.

    Args:
        model: folder of the bundle or the run.
        output: folder of the record and of the readings so far, from which an interrupted measurement continues; None
            to write no files.
        n: number of phantoms whose causes are changed.
        n_coverage: number of phantoms of each group; None for ``n``.
        seed: seed of all random numbers.
        spacing_mm: pixel spacing.
        max_error: limit of the error of the midpoint.
        n_workers: number of processes.
        is_kept: whether to add the record to that of the training run.

    Raises:
        BundleError: The bundle is damaged, or not that of a phantom model.
        InvalidParameter: ``is_kept`` is set for a bundle, which cannot be changed.
        TrainingError: The folder does not hold a finished run of a phantom model.
    """
    from radlens.evaluation import causal_record

    if is_kept and _is_bundle(model):
        raise InvalidParameter("--keep needs a training run, whose next export holds the record; got a bundle")
    reader = ModelReader(model)
    identity = reader.identity()
    with stages("opening the model") as report:
        record = causal_record(
            reader,
            n=n,
            n_coverage=n_coverage,
            seed=seed,
            spacing_mm=spacing_mm,
            max_error=max_error,
            n_workers=n_workers,
            folder=output,
            identity=identity,
            on_progress=report,
        )
    print_record(record)
    found = {"model": identity, **record.as_json()}
    if output is not None:
        output.mkdir(parents=True, exist_ok=True)
        (output / FILE).write_text(json.dumps(found, indent=2) + "\n", "utf-8")
        note(f"wrote {output / FILE}")
    if is_kept:
        from radlens.families.cdmam.training import keep_in_record

        note(f"wrote {keep_in_record(model, CAUSAL, found)}, from which radlens export takes it")


@dataclass(frozen=True)
class ModelReader:
    """Reads images with the model of a folder, which each process opens at its first image.

    Images for a bundle go through its service as DICOM, like those of a client. A training run does not have a service
    yet; the same code opens and judges its images.

    Args:
        folder: folder of a bundle or of a finished training run.
    """

    folder: Path

    def __call__(self, pixels: NDArray[np.float32], spacing_mm: float) -> Reading | None:
        """Return the predicted curve, or None if the model does not predict one."""
        return _opened(self.folder)(pixels, spacing_mm)

    def identity(self) -> str:
        """Return a SHA-256 of the model.

        Raises:
            BundleError: The bundle is damaged, or not that of a phantom model.
            TrainingError: The folder does not hold a finished run of a phantom model.
        """
        if _is_bundle(self.folder):
            return str(_bundle(self.folder).bundle_hash)
        from radlens.families.cdmam.training import load_run

        record = dict(load_run(self.folder).record)
        # Measurements of a model are not part of its identity.
        record.pop(CAUSAL, None)
        parts = [file.read_bytes() for file in sorted(self.folder.glob("member-*.npz"))]
        parts.append(json.dumps(record, sort_keys=True).encode())
        return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


@dataclass(frozen=True, eq=False)
class _Answer:
    """Curve in an answer of the service."""

    mean: NDArray[np.float64]
    interval: NDArray[np.float64]
    epistemic: NDArray[np.float64]
    assessable: bool


@lru_cache(maxsize=1)
def _opened(folder: Path) -> Read:
    return _read_with_service(folder) if _is_bundle(folder) else _read_with_members(folder)


def _is_bundle(folder: Path) -> bool:
    from radlens.bundles import MANIFEST

    return (folder / MANIFEST).is_file()


def _bundle(folder: Path) -> Any:
    from radlens.families import load
    from radlens.wire import CDC

    bundle = load(folder)
    if bundle.manifest.task != CDC:
        raise BundleError(f"--causal needs a contrast-detail model, got one of task {bundle.manifest.task}")
    return bundle


def _read_with_service(folder: Path) -> Read:
    from radlens.client import Client
    from radlens.local import LocalTransport

    bundle = _bundle(folder)
    client = Client("http://local", model=bundle.manifest.name, transport=LocalTransport(bundle))

    def read(pixels: NDArray[np.float32], spacing_mm: float) -> Reading | None:
        try:
            answer = client.predict(_as_dicom(pixels, spacing_mm))
        except InvalidInput:
            return None
        found = answer["prediction"]
        if found is None or min(found["mean_um"]) <= 0:
            return None
        mean, interval, epistemic = (np.array(found[name]) for name in ("mean_um", "interval_um", "epistemic_um"))
        return _Answer(mean, interval, epistemic, answer.get("assessable", True))

    return read


def _as_dicom(pixels: NDArray[np.float32], spacing_mm: float) -> bytes:
    import pydicom

    from radlens.phantoms.cdmam import Acquisition, Layout, PhantomImage, to_dicom

    layout = Layout.on_detector((pixels.shape[0], pixels.shape[1]), spacing_mm)
    dataset = pydicom.dcmread(BytesIO(to_dicom(PhantomImage(pixels, Acquisition(), layout, 0))))
    # A detector of four times the gain needs more than the simulator's 12 bits.
    dataset.BitsStored, dataset.HighBit = 16, 15
    # The header must not state an exposure, because the pixels were changed.
    del dataset.KVP, dataset.Exposure, dataset.ExposureInuAs
    buffer = BytesIO()
    pydicom.dcmwrite(buffer, dataset)
    return buffer.getvalue()


def _read_with_members(folder: Path) -> Read:
    from radlens import images
    from radlens.families.cdmam import PhantomReader
    from radlens.families.cdmam.opening import PhantomOpener
    from radlens.families.cdmam.training import load_run
    from radlens.images.image import DICOM
    from radlens.phantoms.cdmam.domain import Limits

    run = load_run(folder)
    reader, opener = PhantomReader(run.ensemble(), run.calibration), PhantomOpener(Limits())

    def read_registered(pixels: NDArray[np.float32], spacing_mm: float) -> Reading | None:
        opened = opener.open(images.read(_as_dicom(pixels, spacing_mm), DICOM))
        if opened.phantom is None:
            return None
        curve = reader.read(opened.phantom)
        return _Answer(curve.mean, curve.interval, curve.epistemic, opened.judged(curve).assessable)

    def read_plain(pixels: NDArray[np.float32], spacing_mm: float) -> Reading | None:
        try:
            return reader.read_values((pixels - np.float32(run.mean)) / np.float32(run.std))
        except InvalidInput:
            return None

    return read_registered if run.registered else read_plain


def print_record(record: CausalRecord) -> None:
    """Print a causal record: first its criteria and whether they hold, then all measurements."""
    held = sum(criterion.holds for criterion in record.criteria)
    rows = [
        (each.name, _number(each.value), _number(each.standard_error), _wanted(each), "✓" if each.holds else "✗")
        for each in record.criteria
    ]
    title = f"Causal record: {held} of {len(rows)} criteria hold"
    table(["quantity", "value", "±", "required", ""], rows, title=title)
    _print_elasticities(record)
    _print_effects(record)
    _print_coverages(record)
    _print_errors(record)
    _print_outside(record)
    for text in record.notes:
        note(text)
    phantoms = f"{record.n} phantoms with all changes, {record.n_coverage} of each group"
    out.print(f"{phantoms}, {record.spacing_mm:g} mm, seed {record.seed}", soft_wrap=True)


def _print_elasticities(record: CausalRecord) -> None:
    rows = [
        (cause, *_pair(each.predicted), _number(each.true), str(each.n)) for cause, each in record.elasticities.items()
    ]
    table(["cause", "model", "±", "truth", "phantoms"], rows, title="Elasticity of the midpoint")


def _print_effects(record: CausalRecord) -> None:
    rows = [
        (
            name,
            _percent(each.within.value),
            *_pair(each.ratio),
            "-" if each.ratio_range is None else " to ".join(f"{ratio:.3g}" for ratio in each.ratio_range),
            _percent(each.largest_change),
            _percent(each.refused),
        )
        for name, each in record.effects.items()
    ]
    columns = ["change", "within", "midpoint x", "±", "smallest to largest", "largest change", "refused"]
    table(columns, rows, title="Phantoms with one change, relative to the unchanged phantoms")


def _print_coverages(record: CausalRecord) -> None:
    from radlens.evaluation.causal import PUBLISHED_COVERAGE

    rows = [
        (
            name,
            *_pair(each.coverage, _percent),
            _percent(PUBLISHED_COVERAGE.get(name)),
            _number(each.width),
            _number(each.epistemic),
            _percent(each.refused),
        )
        for name, each in record.groups.items()
    ]
    columns = ["phantoms", "coverage", "±", "paper", "width", "epistemic", "refused"]
    table(columns, rows, title="95 % intervals; width and epistemic part relative to the threshold")


def _print_errors(record: CausalRecord) -> None:
    rows = [
        (
            name,
            *_pair(each.rms_log_error),
            *_pair(each.log_error),
            _number(each.log_error_deviation),
            _number(each.rmse_um),
            _number(each.reference_rmse_um),
        )
        for name, each in record.groups.items()
    ]
    columns = ["phantoms", "rms log", "±", "mean log", "±", "s.d. log", "RMSE µm", "mean curve µm"]
    table(columns, rows, title="Errors: log(predicted / true) of the midpoint, and of all points")


def _print_outside(record: CausalRecord) -> None:
    from radlens.evaluation.causal import PUBLISHED_COVERAGE

    rows = [
        (
            name,
            *_pair(each.epistemic_growth),
            *_pair(each.coverage, _percent),
            *_pair(each.rms_log_error),
            _number(each.log_error.value),
            _percent(each.refused),
        )
        for name, each in record.outside.items()
    ]
    columns = ["change", "epistemic x", "±", "coverage", "±", "rms log", "±", "mean log", "refused"]
    paper = _percent(PUBLISHED_COVERAGE["out of distribution"])
    table(columns, rows, title=f"Out of distribution; coverage of the paper's set {paper}")


def _wanted(criterion: Criterion) -> str:
    low, high = (None if bound is None else f"{bound:.3g}" for bound in (criterion.low, criterion.high))
    if low is None:
        return f"at most {high}"
    return f"at least {low}" if high is None else f"{low} to {high}"


def _pair(quantity: Quantity | None, write: Callable[[float | None], str] | None = None) -> tuple[str, str]:
    write = write or _number
    return ("-", "-") if quantity is None else (write(quantity.value), write(quantity.standard_error))


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.3g}" if abs(value) >= 0.0005 or not value else f"{value:.0e}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f} %"
