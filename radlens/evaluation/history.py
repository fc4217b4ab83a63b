"""Constancy: the contrast-detail curves of one unit over time in one table, compared with a baseline.

The table is CSV with one row per curve, in order of time, and the columns `COLUMNS`.
"""

import csv
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from radlens.errors import InvalidInput, InvalidParameter
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

__all__ = [
    "COLUMNS",
    "DEFAULT_BASELINE",
    "READ_OUT",
    "Baseline",
    "Record",
    "added",
    "baseline",
    "history_text",
    "parse_history",
    "record_of",
]

DEFAULT_BASELINE = 5
"""Number of curves, from the first, whose mean is the baseline."""

READ_OUT = "read-out"
"""Model name in the record of an automated read-out."""

_IDENTITY = ("time", "time_of", "station_name", "device_serial_number", "images", "n_images")
_MODEL = ("model", "version", "bundle_hash", "assessable")
_PARTS = ("threshold", "lower", "upper")

COLUMNS = (
    *_IDENTITY,
    *_MODEL,
    *(f"{part}_{diameter:.2f}_um" for diameter in CDC_DIAMETERS_MM for part in _PARTS),
)
"""Columns of the table.

``time`` is the ISO 8601 time of the event ``time_of``, ``acquisition`` or ``result``. ``images`` are SOP Instance UIDs,
or SHA-256 hashes of files without a UID, separated by spaces. ``assessable`` is always ``true``. Thresholds and the
ends of their 95 % intervals are in um of gold, by diameter in mm.
"""


@dataclass(frozen=True, eq=False)
class Record:
    """One curve of a unit.

    Attributes:
        time: Time of the acquisition if known, otherwise of the result; without a time zone it counts as UTC.
        time_of: Event to which the time refers.
        station_name: Station name of the images; empty if unknown.
        device_serial_number: Serial number of the device; empty if unknown.
        images: SOP Instance UID of each image, or the SHA-256 hash of a file without a UID.
        model: Name of the model, or `READ_OUT`.
        version: Version of the model; version of radlens for a read-out.
        bundle_hash: Hash of the bundle of the model; empty for a read-out.
        mean_um: (12,) thresholds, um of gold, diameters as in ``CDC_DIAMETERS_MM``.
        interval_um: (12, 2) lower and upper ends of the 95 % intervals, um of gold.

    Raises:
        InvalidInput: there is no image, an identifier contains a space, or the thresholds are not finite, positive and
            inside their intervals.
    """

    time: datetime
    time_of: Literal["acquisition", "result"]
    station_name: str
    device_serial_number: str
    images: tuple[str, ...]
    model: str
    version: str
    bundle_hash: str
    mean_um: NDArray[np.float64]
    interval_um: NDArray[np.float64]

    def __post_init__(self) -> None:
        if not self.images or not all(re.fullmatch(r"\S+", image) for image in self.images):
            raise InvalidInput(f"images must be at least one identifier without spaces, got {self.images}")
        if self.mean_um.shape != (12,) or self.interval_um.shape != (12, 2):
            shapes = f"{self.mean_um.shape} and {self.interval_um.shape}"
            raise InvalidInput(f"thresholds and intervals must have shapes (12,) and (12, 2), got {shapes}")
        low, mean, high = self.interval_um[:, 0], self.mean_um, self.interval_um[:, 1]
        is_right = (low > 0) & (low <= mean) & (mean <= high) & np.isfinite(high)  # nan compares as False
        if not is_right.all():
            i = int(is_right.argmin())
            raise InvalidInput(
                "thresholds must be finite, positive and inside their intervals, "
                f"got {mean[i]:g} in {low[i]:g} to {high[i]:g}"
            )

    @property
    def moment(self) -> datetime:
        """The time with a time zone, for sorting and for axes."""
        return self.time if self.time.tzinfo else self.time.replace(tzinfo=UTC)

    @property
    def source(self) -> str:
        """Model, version and the start of the bundle hash as one text."""
        return f"{self.model} {self.version}" + (f" ({self.bundle_hash[:12]})" if self.bundle_hash else "")


@dataclass(frozen=True, eq=False)
class Baseline:
    """Reference with which later curves are compared.

    Attributes:
        mean_um: (12,) mean thresholds of the first curves, um of gold.
        interval_um: (12, 2) means of the lower and of the upper ends of their 95 % intervals, um of gold: the range in
            which a single curve of the same precision is expected.
        n_curves: Number of curves in the means.
    """

    mean_um: NDArray[np.float64]
    interval_um: NDArray[np.float64]
    n_curves: int

    def outside(self, record: Record) -> NDArray[np.bool_]:
        """Return whether a curve lies outside the interval of the baseline at each diameter, (12,) bool."""
        return (record.mean_um < self.interval_um[:, 0]) | (record.mean_um > self.interval_um[:, 1])


def record_of(result: Any) -> Record:
    """Return the record of a result, given as the JSON values that ``radlens predict`` and ``radlens read-out`` write.

    Raises:
        InvalidInput: the document has another format, the result is not assessable, or its images are of several units.
    """
    if not isinstance(result, Mapping) or not isinstance(result.get("prediction") or result.get("read_out"), Mapping):
        raise InvalidInput("a result must come from `radlens predict` or `radlens read-out`, got another document")
    if result.get("assessable", True) is not True:
        reasons = "; ".join(str(reason) for reason in result.get("reasons") or ["no reason is given"])
        raise InvalidInput(f"a result must be assessable, got one that is not: {reasons}")
    found = result.get("prediction") or result["read_out"]
    if "mean_um" not in found:
        raise InvalidInput("a result must hold a contrast-detail curve, got one without thresholds")
    try:
        return _record(result, found)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(f"a result must be complete, got one that is damaged ({type(error).__name__})") from None


def added(history: Sequence[Record], record: Record, *, again: bool = False) -> list[Record]:
    """Return the history with one more curve, in order of time.

    Args:
        history: Curves of one unit.
        record: The new curve.
        again: Whether images of the new curve may already be in the history.

    Raises:
        InvalidInput: the curve is of another unit, or of an image that is already in the history.
    """
    for name, words in (("station_name", "station"), ("device_serial_number", "serial number")):
        known = next((value for each in history if (value := getattr(each, name))), "")
        given = getattr(record, name)
        if known and given and known != given:
            raise InvalidInput(f"the history is of the unit with {words} {known}, got a result of {words} {given}")
    repeated = sorted(set(record.images) & {image for each in history for image in each.images})
    if repeated and not again:
        raise InvalidInput(f"an image counts once, got one that is already in the history: {repeated[0]}")
    return sorted([*history, record], key=lambda each: each.moment)


def baseline(history: Sequence[Record], n: int = DEFAULT_BASELINE) -> Baseline:
    """Return the mean of the first ``n`` curves, or of all curves if there are fewer.

    Raises:
        InvalidParameter: ``n`` is below 1.
        InvalidInput: the history is empty.
    """
    if n < 1:
        raise InvalidParameter(f"baseline must be at least 1 curve, got {n}")
    if not history:
        raise InvalidInput("a history must hold at least one curve, got none")
    first = history[:n]
    mean = np.mean([record.mean_um for record in first], axis=0)
    return Baseline(mean, np.mean([record.interval_um for record in first], axis=0), len(first))


def history_text(history: Sequence[Record]) -> str:
    """Return a history as CSV."""
    stream = io.StringIO()
    writer = csv.writer(stream)
    writer.writerow(COLUMNS)
    writer.writerows(_row(record) for record in history)
    return stream.getvalue()


def parse_history(text: str) -> list[Record]:
    """Return the curves of a history, in order of time.

    Raises:
        InvalidInput: the columns are different, or a line is damaged; the message names the line.
    """
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    records = []
    try:
        header = tuple(next(reader, ()))
        if header != COLUMNS:
            shown = ", ".join(header[:3]) or "no line"
            raise InvalidInput(f"a history must begin with the {len(COLUMNS)} columns of radlens, got {shown}")
        for row in reader:
            records.append(_parsed(row, reader.line_num))
    except csv.Error as error:
        raise InvalidInput(f"line {reader.line_num} of the history must be CSV, got {error}") from None
    return sorted(records, key=lambda record: record.moment)


def _record(result: Mapping[str, Any], found: Mapping[str, Any]) -> Record:
    if not np.array_equal(found["diameters_mm"], CDC_DIAMETERS_MM):
        raise InvalidInput(f"a curve must have the {len(CDC_DIAMETERS_MM)} diameters of CDMAM 3.4, got others")
    stated = result["provenance"]
    images = [image for image in result.get("images") or [stated["input"]] if image.get("counts", True)]
    acquired = sorted(str(image["acquired"]) for image in images if image.get("acquired"))
    model = {"model": READ_OUT, "version": stated["libraries"]["radlens"]} if "read_out" in result else stated
    return Record(
        time=datetime.fromisoformat(acquired[0] if acquired else stated["time"]),
        time_of="acquisition" if acquired else "result",
        station_name=_shared(images, "station_name", "station"),
        device_serial_number=_shared(images, "device_serial_number", "serial number"),
        images=tuple(str(image.get("sop_instance_uid") or image["sha256"]) for image in images),
        model=str(model["model"]),
        version=str(model["version"]),
        bundle_hash=str(model.get("bundle_hash") or ""),
        mean_um=np.array(found["mean_um"], dtype=np.float64),
        interval_um=np.array(found["interval_um"], dtype=np.float64),
    )


def _shared(images: Sequence[Mapping[str, Any]], name: str, words: str) -> str:
    values = sorted({str(image[name]) for image in images if image.get(name)})
    if len(values) > 1:
        raise InvalidInput(f"the images of a result must be of one unit, got {words} {', '.join(values)}")
    return values[0] if values else ""


def _row(record: Record) -> list[str]:
    numbers = np.column_stack([record.mean_um, record.interval_um])
    return [
        *(record.time.isoformat(), record.time_of, record.station_name, record.device_serial_number),
        *(" ".join(record.images), str(len(record.images))),
        *(record.model, record.version, record.bundle_hash, "true"),
        *(repr(value) for value in numbers.ravel().tolist()),  # repr of a float survives writing and reading
    ]


def _parsed(row: Sequence[str], line: int) -> Record:
    if len(row) != len(COLUMNS):
        raise InvalidInput(f"line {line} of the history must have {len(COLUMNS)} columns, got {len(row)}")
    fields = dict(zip(COLUMNS, row, strict=True))
    try:
        if fields["time_of"] not in ("acquisition", "result") or fields["assessable"].lower() != "true":
            raise ValueError
        images = tuple(fields["images"].split())
        if int(fields["n_images"]) != len(images):
            raise ValueError
        numbers = np.array([float(value) for value in row[len(_IDENTITY) + len(_MODEL) :]]).reshape(12, 3)
        return Record(
            time=datetime.fromisoformat(fields["time"]),
            time_of="acquisition" if fields["time_of"] == "acquisition" else "result",
            images=images,
            mean_um=numbers[:, 0],
            interval_um=numbers[:, 1:],
            **{name: fields[name] for name in ("station_name", "device_serial_number", *_MODEL[:3])},
        )
    except ValueError as error:
        why = f": {error}" if isinstance(error, InvalidInput) else ""
        raise InvalidInput(f"line {line} of the history must be a curve, got one that is damaged{why}") from None
