"""Output of a study: one HTML page, tables as CSV, pictures as PNG and numbers as JSON."""

import csv
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from radlens import __version__
from radlens.figures import PictureBlock, Section, StudyContent, Table, study_page
from radlens.figures.study_page import SIMULATED_NOTE

__all__ = ["PAGE", "RESULTS", "Chapter", "StudyReport", "Written", "times_table", "write_study"]

PAGE, RESULTS = "index.html", "results.json"
"""Names of the page and of the file of numbers."""

Written = tuple[str, Sequence[Table | PictureBlock]]
"""Text and blocks of a section."""


@dataclass(frozen=True, eq=False)
class Chapter:
    """A section to be written.

    Attributes:
        heading: heading of the section.
        name: key in ``results.json`` and part of file names.
        write: function that computes the section and fills a mapping for ``results.json``.
    """

    heading: str
    name: str
    write: Callable[[dict[str, Any]], Written]


@dataclass(frozen=True, eq=False)
class StudyReport:
    """Parts of a page besides its sections, as in `radlens.figures.study_page.StudyContent`.

    ``ran``, ``provenance`` and ``warnings`` are functions because they grow with the study: each is called whenever the
    page is written.

    Attributes:
        title: title of the page.
        citation: reference of the paper.
        simulated: whether the images are simulated.
        ran: function that returns the description of the run by topic.
        provenance: function that returns the provenance.
        warnings: function that returns sentences about this run.
        how_to_read: paragraphs on how to read the page.
        limits: paragraphs on the limits of the results.
        published_note: note below tables with published columns if the images are simulated.
    """

    title: str
    citation: str
    simulated: bool
    ran: Callable[[], Mapping[str, str]]
    provenance: Callable[[], Mapping[str, Any]]
    warnings: Callable[[], Sequence[str]] = field(default=lambda: ())
    how_to_read: Sequence[str] = ()
    limits: Sequence[str] = ()
    published_note: str = SIMULATED_NOTE


def write_study(folder: Path, report: StudyReport, chapters: Sequence[Chapter]) -> list[Path]:
    """Compute a study chapter by chapter; after each, the page is rewritten with the other sections marked as missing.

    Args:
        folder: output folder, created if missing.
        report: parts of the page besides its sections.
        chapters: chapters in order.

    Returns:
        The files that were written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sections = [Section(chapter.heading) for chapter in chapters]
    results: dict[str, Any] = {}
    files: list[Path] = []
    for place, chapter in enumerate(chapters):
        own: dict[str, Any] = {}
        text, blocks = chapter.write(own)
        sections[place] = Section(chapter.heading, text, blocks)
        if own:
            results[chapter.name] = own
        files += _write_blocks(folder, f"{place + 1:02d}-{chapter.name}", sections[place])
        _write(folder / RESULTS, json.dumps(_plain(results), indent=2, allow_nan=False) + "\n")
        _write(folder / PAGE, _page(report, sections))
    return [folder / PAGE, folder / RESULTS, *files]


def times_table(seconds: Mapping[str, float]) -> Table:
    """Return a table of the computing time of each stage, earlier runs included."""
    rows: list[Sequence[Any]] = [(stage, _duration(took)) for stage, took in seconds.items()]
    rows.append(("total", _duration(sum(seconds.values()))))
    note = "Time on this machine, summed over interruptions; other programs may have run at the same time."
    return Table("Time", ("Stage", "Time"), rows, note)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{seconds:.1f} s"


def _page(report: StudyReport, sections: Sequence[Section]) -> str:
    return study_page(
        StudyContent(
            title=report.title,
            citation=report.citation,
            created=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
            ran=report.ran(),
            sections=sections,
            provenance={"radlens": __version__, **report.provenance()},
            simulated=report.simulated,
            how_to_read=report.how_to_read,
            limits=report.limits,
            warnings=report.warnings(),
            published_note=report.published_note,
        )
    )


def _write_blocks(folder: Path, stem: str, section: Section) -> list[Path]:
    files = []
    for number, block in enumerate(section.blocks, start=1):
        name = f"{stem}-{number}-{_slug(block.title)}"
        if isinstance(block, Table):
            file = folder / "tables" / f"{name}.csv"
            file.parent.mkdir(exist_ok=True)
            with file.open("w", newline="", encoding="utf-8") as stream:
                csv.writer(stream).writerows([block.columns, *block.rows])
        else:
            file = folder / "figures" / f"{name}.png"
            file.parent.mkdir(exist_ok=True)
            file.write_bytes(block.png)
        files.append(file)
    return files


def _slug(title: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", title.lower()).strip("-")[:40].rstrip("-")


def _write(file: Path, text: str) -> None:
    """Write a file atomically."""
    beside = file.with_name(f"{file.name}.part")
    beside.write_text(text, encoding="utf-8")
    beside.replace(file)


def _plain(value: Any) -> Any:
    """Return values as JSON values; NaN and infinity become null, which JSON can represent."""
    if isinstance(value, Mapping):
        return {str(key): _plain(found) for key, found in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(found) for found in value]
    if isinstance(value, np.ndarray):
        return _plain(value.tolist())
    if isinstance(value, np.generic):
        return _plain(value.item())
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
