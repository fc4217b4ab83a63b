"""``radlens history``: curves of one unit over time, compared with a baseline."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, note, out, table, warn
from radlens.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from radlens.evaluation.history import Baseline, Record

__all__ = ["app"]

app = typer.Typer(
    name="history",
    help="Keep the contrast-detail curves of one unit, and compare them with a baseline.",
    epilog=examples(
        "radlens predict phantom.dcm -o prediction.json",
        "radlens history add unit-1.csv prediction.json",
        "radlens history show unit-1.csv --baseline 5 -o constancy/",
    ),
    no_args_is_help=True,
)

HistoryArgument = Annotated[Path, typer.Argument(metavar="HISTORY.csv", dir_okay=False, help="Table of one unit.")]


@app.command()
def add(
    history: HistoryArgument,
    results: Annotated[
        list[Path],
        typer.Argument(
            metavar="RESULT.json...", exists=True, dir_okay=False, help="Results of `radlens predict` or `read-out`."
        ),
    ],
    again: Annotated[bool, typer.Option("--again", help="Accept images that are already in the history.")] = False,
) -> None:
    """Add results to a history, which is created if it is missing.

    A result must be assessable, come from the unit of the history (station name and device serial number, if known),
    and have new images. If a result is refused, the history stays unchanged.
    """
    from radlens.evaluation.history import added, history_text, record_of

    records = _read(history) if history.exists() else []
    n_before = len(records)
    for file in results:
        try:
            record = record_of(_document(file))
            records = added(records, record, again=again)
        except InvalidInput as error:
            raise InvalidInput(f"{file.name}: {error}") from None
        if not (record.station_name or record.device_serial_number):
            warn([f"{file.name} does not state its unit, so it cannot be compared with that of the history"])
        if record.time_of == "result":
            warn([f"{file.name} does not state when its image was acquired; the time of the result is used"])
    _replace(history, history_text(records))
    note(f"added {len(records) - n_before} to {history}; curves in it: {len(records)}")


@app.command()
def show(
    history: Annotated[
        Path, typer.Argument(metavar="HISTORY.csv", exists=True, dir_okay=False, help="Table of one unit.")
    ],
    baseline: Annotated[
        str,
        typer.Option(metavar="N|first", help="Curves whose mean is the baseline: the first N, or the first one."),
    ] = "5",
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder for constancy.csv and constancy.png.")
    ] = None,
) -> None:
    """Compare the thresholds at the four limited diameters with a baseline and with the European limits.

    The baseline is the mean of the first curves; its interval extends from the mean of their lower ends to the mean of
    their upper ends. An exclamation mark follows a threshold outside the interval.
    """
    from radlens.evaluation import history as histories

    n = _n_baseline(baseline)
    records = _read(history)
    if not records:
        raise InvalidInput(f"{history.name} must hold at least one curve, got none")
    found = histories.baseline(records, n)
    if len(records) < n:
        warn([f"the baseline is the mean of {len(records)} curves instead of {n}, because the history has no more"])
    sources = dict.fromkeys(record.source for record in records)
    if len(sources) > 1:
        warn([f"curves of several models or read-outs are compared: {', '.join(sources)}"])
    _print(records, found)
    if output is not None:
        for file in _written(records, found, output, history):
            note(f"wrote {file}")


def _n_baseline(text: str) -> int:
    if text == "first":
        return 1
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 10_000):
        raise InvalidParameter(f"--baseline must be a number of curves of at least 1, or first, got {text!r}")
    return int(text)


def _document(file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except ValueError:
        raise InvalidInput("a result must be JSON, got another file") from None


def _read(file: Path) -> list[Record]:
    from radlens.evaluation.history import parse_history

    try:
        return parse_history(file.read_bytes().decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise InvalidInput(f"{file.name}: a history must be text in UTF-8, got another file") from None
    except InvalidInput as error:
        raise InvalidInput(f"{file.name}: {error}") from None


def _replace(file: Path, text: str) -> None:
    """Replace a file atomically; a link stays a link, and the file keeps its permissions."""
    file = file.resolve()
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{os.getpid()}.part")
    try:
        with part.open("x", encoding="utf-8", newline="") as stream:
            stream.write(text)
            stream.flush()
            os.fsync(stream.fileno())
        if file.exists():
            shutil.copymode(file, part)
        part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _print(records: Sequence[Record], found: Baseline) -> None:
    limited = _limited()
    rows = []
    for record in records:
        outside = found.outside(record)
        marks = ["[bold red]![/]" if outside[i] else " " for i, _ in limited]
        numbers = [f"{record.mean_um[i]:.3f} {mark}" for (i, _), mark in zip(limited, marks, strict=True)]
        rows.append((f"{record.time:%Y-%m-%d}", *numbers, str(len(record.images)), record.model))
    ends = (("baseline", found.mean_um), ("lower end", found.interval_um[:, 0]), ("upper end", found.interval_um[:, 1]))
    rows += [(name, *(f"{values[i]:.3f}  " for i, _ in limited), "", "") for name, values in ends]
    columns = ["date", *(f"{diameter:.2f} mm" for _, diameter in limited), "images", "by"]
    unit = _unit(records)
    table(columns, rows, title=f"Thresholds, µm of gold{f': {unit}' if unit else ''}")
    n_outside = sum(any(found.outside(record)[i] for i, _ in limited) for record in records)
    out.print(f"{n_outside} of {len(records)} curves lie outside the baseline's interval (!) at a limited diameter.")


def _limited() -> list[tuple[int, float]]:
    """Return index and diameter of the points of a curve that have limits."""
    from radlens.evaluation import LIMITS_UM
    from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

    return [(CDC_DIAMETERS_MM.index(diameter), diameter) for diameter in LIMITS_UM]


def _unit(records: Sequence[Record]) -> str:
    station = next((record.station_name for record in records if record.station_name), "")
    serial = next((record.device_serial_number for record in records if record.device_serial_number), "")
    return ", ".join([*([station] if station else []), *([f"serial number {serial}"] if serial else [])])


def _written(records: Sequence[Record], found: Baseline, folder: Path, history: Path) -> Iterable[Path]:
    from radlens.figures import figure_history, save

    folder.mkdir(parents=True, exist_ok=True)
    numbers, picture = folder / "constancy.csv", folder / "constancy.png"
    if numbers.resolve() == history.resolve():
        raise InvalidParameter("--output must be a folder whose constancy.csv is not the history itself")
    with numbers.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows(_lines(records, found))
    yield numbers
    picture.write_bytes(save(figure_history(records, found, title=_unit(records) or None)))
    yield picture


def _lines(records: Sequence[Record], found: Baseline) -> Iterable[Sequence[str]]:
    from radlens.evaluation import LIMITS_UM

    yield (
        *("time", "diameter_mm", "threshold_um", "lower_um", "upper_um"),
        *("baseline_um", "baseline_lower_um", "baseline_upper_um", "is_outside", "acceptable_um", "achievable_um"),
        *("n_images", "model", "version", "bundle_hash"),
    )
    for record in records:
        for i, diameter in _limited():
            values = (record.mean_um[i], *record.interval_um[i], found.mean_um[i], *found.interval_um[i])
            yield (
                *(record.time.isoformat(), f"{diameter:.2f}", *(f"{value:.6g}" for value in values)),
                *(str(bool(found.outside(record)[i])).lower(), *(f"{limit:g}" for limit in LIMITS_UM[diameter])),
                *(str(len(record.images)), record.model, record.version, record.bundle_hash),
            )
