"""A family: one kind of model, and all that radlens knows of it.

Families import heavy packages inside their methods: a client that prints an answer has no torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Generic, TypeVar

from radlens.bundles import StoredBundle
from radlens.errors import InvalidParameter

if TYPE_CHECKING:
    from radlens.dicom import Findings
    from radlens.engines.calibration import Calibration
    from radlens.images import Image
    from radlens.service.batching import BatchService
    from radlens.service.parameters import Parameter

__all__ = ["RECORD", "Family", "Progress", "Table", "Worker"]

RECORD = "training.json"
"""File of a finished training run that states its ``task``."""

Progress = Callable[[str, float, float], None]
"""Called as ``report(stage, done, total)``."""

B = TypeVar("B", bound=StoredBundle[Any])


@dataclass(frozen=True)
class Table:
    """A table for the command line; cells may hold rich markup.

    Attributes:
        title: Line above the table.
        columns: Headings; the first column is text, all others are numbers.
        rows: Cells.
        below: Sentence beneath the table.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    below: str = ""


@dataclass(frozen=True)
class Worker:
    """How TorchServe runs a model; part of every archive, read when it is registered.

    Attributes:
        min_workers: Processes that start with the model. A process holds about 0.5 GB and the model.
        max_workers: Most processes.
        batch_size: Most requests that share calls of the network.
        max_batch_delay_ms: Time for which the first request of a batch waits for others.
        response_timeout_s: Time between two signs of life of a process. A process that exceeds it is killed, and with
            it every request of its batch.
        startup_timeout_s: Time for starting, the measurement of engines included.
    """

    min_workers: int
    max_workers: int
    batch_size: int
    max_batch_delay_ms: int
    response_timeout_s: int
    startup_timeout_s: int

    def as_yaml(self) -> str:
        """Return the contents of TorchServe's ``model-config.yaml``."""
        stated = {
            "minWorkers": self.min_workers,
            "maxWorkers": self.max_workers,
            "batchSize": self.batch_size,
            "maxBatchDelay": self.max_batch_delay_ms,
            "responseTimeout": self.response_timeout_s,
            "startupTimeout": self.startup_timeout_s,
        }
        return "".join(f"{name}: {value}\n" for name, value in stated.items())


class Family(ABC, Generic[B]):
    """One kind of model. It has no state; its only instance is ``FAMILY`` in the module ``family`` of its folder.

    Attributes:
        task: Name of the task in ``bundle.json``, ``training.json`` and every answer.
        worker: How TorchServe runs a model.
        train_options: Options of ``radlens train`` that recipes of this family have.
        serve_options: Options of `open_service` that not every family has.
        default_preset: Preset of a training unless one is named.
        takes_companions: Whether `export` takes ``companions``, the folders of the bundles of companions by kind.
    """

    task: ClassVar[str]
    worker: ClassVar[Worker]
    train_options: ClassVar[frozenset[str]] = frozenset()
    serve_options: ClassVar[frozenset[str]] = frozenset()
    default_preset: ClassVar[str] = "demo"
    takes_companions: ClassVar[bool] = False

    # Bundles

    @abstractmethod
    def load(self, path: Path, *, verify: bool = True) -> B:
        """Read a bundle; arguments and errors as `StoredBundle.read`."""

    @abstractmethod
    def graphs(self, bundle: B) -> Mapping[str, Path]:
        """Return the files of the graphs that engines compute, by name."""

    def calibrations(self, bundle: B, **how: Any) -> Mapping[str, Calibration]:
        """Measure engines with each graph of a bundle.

        Args:
            bundle: The model.
            how: Precision, limits and progress, as of :func:`radlens.engines.opening.measured`.
        """
        from radlens.engines.opening import measured

        # Nothing else of a choice is kept: its engine holds memory.
        return {name: measured(path, **how).calibration for name, path in self.graphs(bundle).items()}

    # Making a model

    @abstractmethod
    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """Return recipes for training by the name of the model and of the preset."""

    @abstractmethod
    def train(
        self, run: Path, *, model: str, preset: str, options: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Train a model, or continue an interrupted training, and return its record.

        Args:
            run: Folder of the run.
            model: Name in `recipes`.
            preset: Name of a preset of the model.
            options: Values by name, of `train_options`.
            report: Told of progress.
        """

    @abstractmethod
    def export(self, run: Path, folder: Path, *, name: str, version: str, report: Progress) -> B:
        """Write the bundle of a finished run.

        Args:
            run: Folder of the run.
            folder: Folder of the bundle; empty or missing.
            name: Name of the model in URLs.
            version: Version as TorchServe takes it, such as ``"1.0"``.
            report: Told of progress.
        """

    def name_of(self, run: Path) -> str:
        """Return the name of the model of a run unless one is given."""
        return run.resolve().name

    # Serving

    @abstractmethod
    def open_service(self, bundle: B, **options: Any) -> BatchService:
        """Return the service of a bundle.

        Args:
            bundle: The model.
            options: ``engine``, ``precision``, ``memory_limit`` in bytes, the clock ``now``, and those of
                `serve_options`.
        """

    def methods(self, manifest: Any) -> Sequence[str]:
        """Return the methods that a model can be explained with."""
        return tuple(manifest.explainers)

    @abstractmethod
    def parameters(self, manifest: Any, kind: str, method: str | None = None) -> Mapping[str, Parameter]:
        """Return the parameters of requests.

        Args:
            manifest: Manifest of the model.
            kind: ``"predict"`` or ``"explain"``.
            method: Method of an explanation; the model's default method if None.
        """

    # Showing results

    @abstractmethod
    def record_tables(self, record: Mapping[str, Any]) -> Sequence[Table | str]:
        """Return the results of a training for the command line: tables, and lines of text."""

    @abstractmethod
    def bundle_tables(self, bundle: B) -> Sequence[Table | str]:
        """Return what an export measured, for the command line."""

    @abstractmethod
    def tables(self, answer: Mapping[str, Any]) -> Sequence[Table | str]:
        """Return a prediction for the command line."""

    def picture(self, answer: Mapping[str, Any]) -> bytes | None:
        """Return a prediction as PNG; None if the family draws none."""
        return None

    def findings(self, answer: Mapping[str, Any], images: Sequence[Image]) -> Findings:
        """Return an answer for its DICOM objects.

        Args:
            answer: Decoded prediction or explanation.
            images: The images that were sent.

        Raises:
            InvalidParameter: The family writes no DICOM objects.
        """
        raise InvalidParameter(f"models of task {self.task} must be asked for other formats than DICOM")

    @abstractmethod
    def files(self, answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
        """Return an explanation as contents of files by name, such as ``map.npy`` and ``overlay.png``."""
