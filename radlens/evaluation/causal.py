"""The causal record: which causes in an image the answer of a phantom model depends on.

A model that is right for the wrong reason, for example one that infers the curve from the grid or from the noise level,
still has small errors on simulated phantoms. Changing one cause at a time exposes it: disks, noise, grid, writing,
pixel scale, position and orientation. The record also holds errors and coverages for exposures within and outside the
training range.

`causal_record` measures; `CausalRecord` holds the results and compares them with their criteria.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import as_completed
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import ArrayLike, NDArray

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import causal_phantoms as phantoms
from radlens.evaluation.causal_phantoms import GROUPS, STEP, UNCHANGED_IMAGE, WITHOUT_DISKS, scaled
from radlens.evaluation.cdc import coverage, rmse
from radlens.evaluation.kept import Kept
from radlens.pools import process_pool

__all__ = [
    "MAX_ERROR",
    "PUBLISHED_COVERAGE",
    "Accuracy",
    "CausalRecord",
    "Criterion",
    "Effect",
    "Elasticity",
    "Quantity",
    "Read",
    "Reading",
    "causal_record",
]

PUBLISHED_COVERAGE: Mapping[str, float] = MappingProxyType(
    {"scenario 1": 0.971, "scenario 2": 0.991, "scenario 3": 0.969, "scenario 4": 0.61, "out of distribution": 0.987}
)
"""Coverage of the 95 % interval in Amanova et al. 2022, section 3 and Fig. 2 b. Their out-of-distribution set is the
fifth row of Table 1, which is not measured here."""

ELASTICITIES: Mapping[str, tuple[float, float]] = MappingProxyType(
    {
        "disks": (-1.34, -1.04),
        "noise": (1.04, 1.34),
        "grid": (-0.03, 0.03),
        "writing": (-0.03, 0.03),
        "gain": (-0.03, 0.03),
    }
)
"""Required elasticities; those to disks and noise are the elasticities of the read-out, -1.19 and 1.19, +- 0.15."""

MAX_ERROR = 0.12
"""Largest accepted root mean square of log(predicted / true) of the midpoint, for the demo members; 0.08 for preset
standard."""

COVERAGE = (0.90, 0.98)
"""Required coverage of the 95 % interval in each scenario."""

MIN_WITHIN = 0.95
"""Smallest accepted fraction of points of a curve that stay within the 95 % interval of the unchanged image."""

MIN_WITHOUT_DISKS = 3.0
"""Smallest accepted ratio of the midpoint without disks to that with disks."""

MAX_CHANGE = 0.03
"""Largest accepted relative change of a curve at another pixel scale of the detector."""

MAX_REFUSED = 0.02
"""Largest accepted fraction of refused images among those that show a phantom of the training range."""

MAX_ERROR_RATIO = 1 / 3
"""Largest accepted root mean square error of all points, over that of always predicting the mean curve of the training
range."""

NOTES = (
    "A scenario of Table 1 (Amanova et al. 2022) fixes voltage, mAs and noise. Noise filter, blur, scatter and heel "
    "effect are drawn from the training ranges for each phantom, or have their defaults where the name says so.",
    "Elasticity: log of the ratio of the midpoints at 1.2 and 0.8 times a cause, over the log of the ratio of the "
    "causes; mean over phantoms. Both images have the same noise.",
    "Within: fraction of the points of the curve inside the 95 % interval of the unchanged image. The noise moves with "
    "the phantom; for the turn by 2 degrees, each pixel has the noise of the nearest pixel.",
    "Out of distribution: one parameter of the exposure is changed at a time. Epistemic growth: epistemic uncertainty "
    "relative to the threshold, over that of the same phantom unchanged; geometric mean over phantoms.",
    "Refused: the image gets no verdict. Errors and coverages include every image with a curve, also refused images. "
    "Standard errors are over phantoms.",
)
"""Definitions of the numbers, for readers of a record."""


class Reading(Protocol):
    """A predicted curve; arrays in um of gold, largest diameter first.

    A reading may have an attribute ``assessable``. If it is false, the curve comes without a verdict: the image counts
    as refused, but its curve is still compared.
    """

    @property
    def mean(self) -> NDArray[np.float64]:
        """Thresholds, (12,)."""

    @property
    def interval(self) -> NDArray[np.float64]:
        """Lower and upper ends of the 95 % intervals, (12, 2)."""

    @property
    def epistemic(self) -> NDArray[np.float64]:
        """Standard deviations over the members, (12,)."""


Read = Callable[[NDArray[np.float32], float], Reading | None]
"""``read(pixels, spacing_mm)``: pixels (H, W) float32, attenuation bright; returns None if there is no curve."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True)
class Quantity:
    """A mean over phantoms, or a number derived from such a mean.

    Attributes:
        value: the number; None if no image has one.
        standard_error: standard error over phantoms; None for fewer than two phantoms.
    """

    value: float | None
    standard_error: float | None


@dataclass(frozen=True)
class Criterion:
    """A quantity and its accepted range.

    Attributes:
        name: name of the quantity.
        value: measured value; None if it could not be measured.
        standard_error: standard error over phantoms; None for fewer than two.
        low: smallest accepted value; None for no bound.
        high: largest accepted value; None for no bound.
        holds: whether the value lies in the range, ends included; false without a value.
    """

    name: str
    value: float | None
    standard_error: float | None
    low: float | None
    high: float | None
    holds: bool

    @classmethod
    def of(cls, name: str, quantity: Quantity, low: float | None = None, high: float | None = None) -> Criterion:
        """Compare a quantity with its range."""
        value = quantity.value
        holds = value is not None and (low is None or value >= low) and (high is None or value <= high)
        return cls(name, value, quantity.standard_error, low, high, holds)


@dataclass(frozen=True)
class Elasticity:
    """Elasticity of the midpoint to a cause: the power of the cause with which the midpoint changes.

    Attributes:
        predicted: elasticity of the model.
        true: elasticity of the expected read-out of the same phantoms; 0 for causes that do not change it.
        n: number of phantoms with a curve for both images.
    """

    predicted: Quantity
    true: float
    n: int


@dataclass(frozen=True)
class Effect:
    """Effect of a change of the image on the curve.

    Attributes:
        n: number of phantoms.
        refused: fraction of the changed images that get no verdict.
        within: fraction of the points within the 95 % interval of the unchanged image.
        ratio: midpoint over that of the unchanged image, geometric mean over phantoms.
        ratio_range: smallest and largest ratio; None without any.
        largest_change: largest relative change of any point of any curve; None without any.
        largest_midpoint_change: largest relative change of any midpoint; None without any.
    """

    n: int
    refused: float
    within: Quantity
    ratio: Quantity
    ratio_range: tuple[float, float] | None
    largest_change: float | None
    largest_midpoint_change: float | None


@dataclass(frozen=True)
class Accuracy:
    """Errors for one kind of phantoms, over the images with a curve; None if no image has a curve.

    Attributes:
        n: number of phantoms.
        refused: fraction of images that get no verdict.
        rms_log_error: root mean square of log(predicted / true) of the midpoint.
        log_error: mean of log(predicted / true) of the midpoint.
        log_error_deviation: standard deviation of log(predicted / true) of the midpoint.
        rmse_um: root mean square error of all points, um of gold.
        reference_rmse_um: root mean square error of always predicting the mean curve of the training range, um of gold.
        coverage: fraction of true thresholds within their 95 % interval.
        width: mean width of the interval over the threshold.
        epistemic: mean epistemic uncertainty over the threshold.
        epistemic_growth: ratio of ``epistemic`` to that of the unchanged phantoms; None for unchanged phantoms.
    """

    n: int
    refused: float
    rms_log_error: Quantity
    log_error: Quantity
    log_error_deviation: float | None
    rmse_um: float | None
    reference_rmse_um: float | None
    coverage: Quantity
    width: float | None
    epistemic: float | None
    epistemic_growth: Quantity | None = None


@dataclass(frozen=True)
class CausalRecord:
    """Causes and errors of the curves of a model.

    Attributes:
        n: number of phantoms whose causes were changed.
        n_coverage: number of phantoms of each group.
        seed: seed of the phantoms.
        spacing_mm: pixel spacing, mm.
        max_error: largest accepted root mean square of the log error of the midpoint.
        elasticities: elasticity by cause: disks, noise, grid, writing, gain.
        effects: effect by change of the image.
        groups: accuracy by kind of phantom: random exposures, the scenarios.
        outside: accuracy by change that leaves the training range.
        notes: definitions of the numbers.
    """

    n: int
    n_coverage: int
    seed: int
    spacing_mm: float
    max_error: float
    elasticities: Mapping[str, Elasticity]
    effects: Mapping[str, Effect]
    groups: Mapping[str, Accuracy]
    outside: Mapping[str, Accuracy]
    notes: tuple[str, ...] = NOTES

    @property
    def criteria(self) -> tuple[Criterion, ...]:
        """Every quantity with an accepted range."""
        return tuple(_criteria(self))

    @property
    def holds(self) -> bool:
        """Whether all criteria hold."""
        return all(criterion.holds for criterion in self.criteria)

    def as_json(self) -> dict[str, Any]:
        """Return the record as JSON values, with the criteria and the published coverages for readers."""
        found = asdict(self) | {"notes": list(self.notes)}
        criteria = [asdict(criterion) for criterion in self.criteria]
        return found | {"criteria": criteria, "published_coverage": dict(PUBLISHED_COVERAGE)}

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> CausalRecord:
        """Return the record from the values of `as_json`.

        Raises:
            KeyError, TypeError, ValueError: the values are not those of a causal record.
        """
        return cls(
            n=int(values["n"]),
            n_coverage=int(values["n_coverage"]),
            seed=int(values["seed"]),
            spacing_mm=float(values["spacing_mm"]),
            max_error=float(values["max_error"]),
            elasticities={name: _restored(Elasticity, each) for name, each in values["elasticities"].items()},
            effects={name: _restored(Effect, each) for name, each in values["effects"].items()},
            groups={name: _restored(Accuracy, each) for name, each in values["groups"].items()},
            outside={name: _restored(Accuracy, each) for name, each in values["outside"].items()},
            notes=tuple(str(note) for note in values["notes"]),
        )


def causal_record(
    read: Read,
    *,
    n: int,
    seed: int = 0,
    n_coverage: int | None = None,
    spacing_mm: float = 0.07,
    max_error: float = MAX_ERROR,
    n_workers: int = 1,
    folder: Path | None = None,
    identity: str = "",
    on_progress: Progress | None = None,
) -> CausalRecord:
    """Measure a model on fresh simulated phantoms.

    A phantom with all its changes has 28 images; each of the ``n_coverage`` phantoms of the nine groups has one. The
    simulation of an image takes half a second, in addition to the time of ``read``.

    Args:
        read: the model; for several workers it must be picklable, for example an object that opens its model on first
            use.
        n: number of phantoms whose causes are changed, at least 2.
        seed: seed of the phantoms.
        n_coverage: number of phantoms of each group, at least 2; ``n`` by default.
        spacing_mm: pixel spacing of all images, mm.
        max_error: largest accepted root mean square of the log error of the midpoint.
        n_workers: number of processes, each with one torch thread; with 1 everything runs in this process.
        folder: folder for the readings of each phantom, from which an interrupted measurement resumes.
        identity: identity of the model; readings of other models in ``folder`` are ignored.
        on_progress: called as ``on_progress(stage, done, total)``, in images.

    Raises:
        InvalidParameter: there are too few phantoms or workers.
        InvalidInput: a curve does not consist of 12 positive, finite thresholds.
    """
    n_coverage = n if n_coverage is None else n_coverage
    for name, value, least in (("n", n, 2), ("n_coverage", n_coverage, 2), ("n_workers", n_workers, 1)):
        if value < least:
            raise InvalidParameter(f"{name} must be at least {least}, got {value}")
    tasks = _tasks(n, n_coverage)
    kept = _kept(folder, json.dumps([identity, seed, spacing_mm]))
    found = kept.load()
    report = on_progress or (lambda stage, done, total: None)
    done, total = sum(task.n_images for task in tasks if task in found), sum(task.n_images for task in tasks)
    report(_STAGE, done, total)
    missing = [task for task in tasks if task not in found]
    for task, readings in _measured(read, missing, seed, spacing_mm, n_workers):
        kept.add(task, readings)
        found[task] = readings
        done += task.n_images
        report(_STAGE, done, total)
    changed = [found[task] for task in tasks if task.is_changed]
    groups = {name: [found[task] for task in tasks if task.group == name] for name in GROUPS}
    reference = phantoms.mean_curve(seed, spacing_mm)
    return CausalRecord(
        n=n,
        n_coverage=n_coverage,
        seed=seed,
        spacing_mm=spacing_mm,
        max_error=max_error,
        elasticities={cause: _elasticity(changed, cause) for cause in phantoms.CAUSES},
        effects={name: _effect(changed, name) for name in _EFFECTS},
        groups={name: _accuracy(its, UNCHANGED_IMAGE, reference) for name, its in groups.items()},
        outside={name: _accuracy(changed, name, reference) for name in phantoms.OUTSIDE},
    )


_STAGE = "reading phantoms"
_EFFECTS = (phantoms.OFFSET, WITHOUT_DISKS, *phantoms.PHANTOM_LIKE, *phantoms.COMPRESSED)


class _Task(NamedTuple):
    """A phantom to read, unchanged or with all its changes."""

    group: str
    k: int
    is_changed: bool

    @property
    def n_images(self) -> int:
        return phantoms.N_VARIANTS if self.is_changed else 1


@dataclass(frozen=True)
class _Curve:
    mean: list[float]
    interval: list[list[float]]
    epistemic: list[float]
    assessable: bool = True


@dataclass(frozen=True)
class _Readings:
    """Curves of the images of one phantom by name, None for images without a curve, and the known true curves."""

    curves: Mapping[str, _Curve | None]
    true: Mapping[str, list[float]]


def _tasks(n: int, n_coverage: int) -> list[_Task]:
    """Return the phantoms to read; changed phantoms also count among the random exposures."""
    random, *scenarios = GROUPS
    return [
        *(_Task(random, k, k < n) for k in range(max(n, n_coverage))),
        *(_Task(group, k, False) for group in scenarios for k in range(n_coverage)),
    ]


def _measured(
    read: Read, tasks: Sequence[_Task], seed: int, spacing_mm: float, n_workers: int
) -> Iterator[tuple[_Task, _Readings]]:
    """Yield the readings of each task, in any order."""
    if n_workers == 1:
        for task in tasks:
            yield task, _measure(read, task, seed, spacing_mm)
        return
    with process_pool(n_workers, _start_worker, read) as pool:
        waiting = {pool.submit(_measure_in_worker, task, seed, spacing_mm): task for task in tasks}
        try:
            for future in as_completed(waiting):
                yield waiting[future], future.result()
        finally:
            pool.shutdown(cancel_futures=True)


def _start_worker(read: Read) -> None:
    import torch

    # The workers already use all cores; more threads would compete for them.
    torch.set_num_threads(1)
    _WORKER["read"] = read


def _measure_in_worker(task: _Task, seed: int, spacing_mm: float) -> _Readings:
    return _measure(_WORKER["read"], task, seed, spacing_mm)


_WORKER: dict[str, Read] = {}
"""The model of a worker process: it is sent once per process and not with every task."""


def _measure(read: Read, task: _Task, seed: int, spacing_mm: float) -> _Readings:
    phantom = phantoms.draw(task.group, task.k, seed=seed, spacing_mm=spacing_mm)
    images = phantoms.variants(phantom) if task.is_changed else [phantoms.Image(UNCHANGED_IMAGE, phantom.image())]
    curves = {image.name: _curve(read(image.pixels, spacing_mm)) for image in images}
    return _Readings(curves, phantoms.true_curves(phantom, curves.keys()))


def _curve(reading: Reading | None) -> _Curve | None:
    if reading is None:
        return None
    shapes = {"mean": (12,), "interval": (12, 2), "epistemic": (12,)}
    arrays = {name: np.asarray(getattr(reading, name), np.float64) for name in shapes}
    for name, shape in shapes.items():
        if arrays[name].shape != shape or not np.isfinite(arrays[name]).all():
            raise InvalidInput(f"{name} of a curve must be {shape} finite values, got {arrays[name].shape}")
    if arrays["mean"].min() <= 0:
        raise InvalidInput(f"mean of a curve must be positive, got {arrays['mean'].min():g}")
    assessable = bool(getattr(reading, "assessable", True))
    return _Curve(**{name: array.tolist() for name, array in arrays.items()}, assessable=assessable)


_FORMAT = 1
"""Version of the phantoms and changes; readings of other versions are ignored."""


def _kept(folder: Path | None, identity: str) -> Kept[_Task, _Readings]:
    """Return the readings of former runs, one line per phantom."""

    def read(values: Any) -> tuple[_Task, _Readings]:
        curves = {name: None if curve is None else _Curve(**curve) for name, curve in values["curves"].items()}
        return _Task(*values["task"]), _Readings(curves, values["true"])

    return Kept(folder, "causal", f"{_FORMAT} {identity}", lambda task, found: {"task": task, **asdict(found)}, read)


def _elasticity(found: Sequence[_Readings], cause: str) -> Elasticity:
    more, less = scaled(cause, 1 + STEP), scaled(cause, 1 - STEP)
    width = math.log((1 + STEP) / (1 - STEP))
    pairs = _pairs(found, more, less)
    values = [math.log(_midpoint(high.mean) / _midpoint(low.mean)) / width for high, low in pairs]
    true = [
        math.log(_midpoint(each.true[more]) / _midpoint(each.true[less])) / width for each in found if more in each.true
    ]
    return Elasticity(_mean(values), float(np.mean(true)) if true else 0.0, len(values))


def _effect(found: Sequence[_Readings], name: str) -> Effect:
    pairs = _pairs(found, name, UNCHANGED_IMAGE)
    ratios = [_midpoint(new.mean) / _midpoint(old.mean) for new, old in pairs]
    changes = [np.abs(np.array(new.mean) / np.array(old.mean) - 1).max() for new, old in pairs]
    return Effect(
        n=len(found),
        refused=_refused(found, name),
        within=_mean([coverage([old.interval], [new.mean]) for new, old in pairs]),
        ratio=_geometric_mean(ratios),
        ratio_range=(min(ratios), max(ratios)) if ratios else None,
        largest_change=float(max(changes)) if pairs else None,
        largest_midpoint_change=max(abs(ratio - 1) for ratio in ratios) if ratios else None,
    )


def _accuracy(found: Sequence[_Readings], name: str, reference: NDArray[np.float64]) -> Accuracy:
    read = [(curve, each.true[name]) for each in found if (curve := each.curves[name]) is not None]
    growth = None if name == UNCHANGED_IMAGE else _geometric_mean(_growths(found, name))
    refused = _refused(found, name)
    if not read:
        none = Quantity(None, None)
        return Accuracy(len(found), refused, none, none, None, None, None, none, None, None, growth)
    mean, true = np.array([curve.mean for curve, _ in read]), np.array([true for _, true in read])
    interval = np.array([curve.interval for curve, _ in read])
    errors = np.log(mean.mean(axis=1) / true.mean(axis=1))
    return Accuracy(
        n=len(found),
        refused=refused,
        rms_log_error=_root_mean_square(errors),
        log_error=_mean(errors),
        log_error_deviation=float(errors.std(ddof=1)) if len(errors) > 1 else None,
        rmse_um=rmse(mean, true),
        reference_rmse_um=rmse(reference, true),
        coverage=_mean([coverage(ends[None], curve[None]) for ends, curve in zip(interval, true, strict=True)]),
        width=float(np.mean((interval[..., 1] - interval[..., 0]) / mean)),
        epistemic=float(np.mean([_relative_epistemic(curve) for curve, _ in read])),
        epistemic_growth=growth,
    )


def _pairs(found: Sequence[_Readings], first: str, second: str) -> list[tuple[_Curve, _Curve]]:
    """Return the curves of two images of each phantom for which both exist."""
    return [
        (a, b) for each in found if (a := each.curves[first]) is not None and (b := each.curves[second]) is not None
    ]


def _growths(found: Sequence[_Readings], name: str) -> list[float]:
    parts = [(_relative_epistemic(new), _relative_epistemic(old)) for new, old in _pairs(found, name, UNCHANGED_IMAGE)]
    return [new / old for new, old in parts if new > 0 and old > 0]


def _relative_epistemic(curve: _Curve) -> float:
    return float(np.mean(np.array(curve.epistemic) / np.array(curve.mean)))


def _refused(found: Sequence[_Readings], name: str) -> float:
    judged = [curve for each in found if (curve := each.curves[name]) is not None and curve.assessable]
    return 1 - len(judged) / len(found)


def _midpoint(curve: Sequence[float]) -> float:
    return float(np.mean(curve))


def _mean(values: ArrayLike) -> Quantity:
    array = np.asarray(values, np.float64)
    if not array.size:
        return Quantity(None, None)
    return Quantity(float(array.mean()), float(array.std(ddof=1)) / math.sqrt(array.size) if array.size > 1 else None)


def _geometric_mean(values: Sequence[float]) -> Quantity:
    found = _mean(np.log(values))
    if found.value is None:
        return found
    mean, error = math.exp(found.value), found.standard_error
    return Quantity(mean, None if error is None else mean * error)


def _root_mean_square(values: NDArray[np.float64]) -> Quantity:
    """Return the root mean square; its standard error follows to first order from that of the mean square."""
    found = _mean(values**2)
    assert found.value is not None, "values must not be empty"
    root, error = math.sqrt(found.value), found.standard_error
    return Quantity(root, None if error is None else error / (2 * root) if root else 0.0)


def _criteria(record: CausalRecord) -> Iterator[Criterion]:
    for cause, (low, high) in ELASTICITIES.items():
        yield Criterion.of(f"elasticity to {_CAUSE_TITLES[cause]}", record.elasticities[cause].predicted, low, high)
    effects = record.effects
    offset = Quantity(effects[phantoms.OFFSET].largest_midpoint_change, None)
    yield Criterion.of(f"{phantoms.OFFSET}: largest change of the midpoint", offset, high=MAX_CHANGE)
    ratios = effects[WITHOUT_DISKS].ratio_range
    smallest = Quantity(None if ratios is None else ratios[0], None)
    yield Criterion.of(f"{WITHOUT_DISKS}: smallest ratio of the midpoints", smallest, low=MIN_WITHOUT_DISKS)
    for name in phantoms.PHANTOM_LIKE:
        yield Criterion.of(f"{name}: points within the interval", effects[name].within, low=MIN_WITHIN)
    yield Criterion.of("the same phantom: share refused", _pooled(effects, phantoms.PHANTOM_LIKE), high=MAX_REFUSED)
    for name in phantoms.COMPRESSED:
        change = Quantity(effects[name].largest_change, None)
        yield Criterion.of(f"{name}: largest change of a point", change, high=MAX_CHANGE)
    yield Criterion.of("other pixel scales: share refused", _pooled(effects, phantoms.COMPRESSED), high=MAX_REFUSED)
    random = record.groups[GROUPS[0]]
    yield Criterion.of("rms log error of the midpoint", random.rms_log_error, high=record.max_error)
    yield Criterion.of("error over that of the mean curve", _over_reference(random), high=MAX_ERROR_RATIO)
    for name in phantoms.SCENARIO_GROUPS:
        yield Criterion.of(f"{name}: coverage", record.groups[name].coverage, *COVERAGE)


_CAUSE_TITLES = {
    "disks": "disk contrast",
    "noise": "noise",
    "grid": "grid gold",
    "writing": "writing",
    "gain": "gain",
}


def _pooled(effects: Mapping[str, Effect], names: Sequence[str]) -> Quantity:
    return Quantity(float(np.mean([effects[name].refused for name in names])), None)


def _over_reference(found: Accuracy) -> Quantity:
    if found.rmse_um is None or found.reference_rmse_um is None:
        return Quantity(None, None)
    return Quantity(found.rmse_um / found.reference_rmse_um, None)


def _restored(kind: type[Any], values: Mapping[str, Any]) -> Any:
    """Return an object of ``kind`` from its fields as JSON values."""
    fields = {
        name: Quantity(**value) if isinstance(value, Mapping) else tuple(value) if isinstance(value, list) else value
        for name, value in values.items()
    }
    return kind(**fields)
