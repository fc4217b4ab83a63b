"""A study as a self-contained HTML page without files, scripts or network access."""

import io
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from PIL import Image

from radlens.errors import InvalidInput
from radlens.figures.html import environment, flattened

__all__ = ["SIMULATED_NOTE", "Cell", "PictureBlock", "Section", "StudyContent", "Table", "study_page"]

Cell = str | float | None
"""Value of a cell of a table; None is shown as a dash."""

_CSS_PIXELS_PER_INCH = 100
"""CSS pixels per inch of a figure: `radlens.figures.charts.PAGE_WIDTH` then fills the page, with text of equal size."""

_DPI = 150  # for a picture that does not state its resolution

_NUMBER = re.compile(r"[<>≤≥±+−-]?\s?\d|–$")
SIMULATED_NOTE = "Paper: images of patients. Here: simulated images; the two columns are not directly comparable."
"""Note below a table that compares images of patients with simulated images."""

_NOT_COMPUTED = "not computed yet"


@dataclass(frozen=True)
class Table:
    """A table.

    Attributes:
        title: title above the table.
        columns: headings of the columns; the first column names the rows.
        rows: rows with one cell per column; floats are shown with three significant digits.
        note: text below the table.
        published: indices of the columns with numbers from a paper, which are shaded.

    Raises:
        InvalidInput: there is no column, a row has another number of cells, or an index is out of range.
    """

    title: str
    columns: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    note: str = ""
    published: Collection[int] = ()

    def __post_init__(self) -> None:
        n = len(self.columns)
        if n == 0:
            raise InvalidInput(f"table {self.title!r} must have at least one column, got none")
        if odd := next((row for row in self.rows if len(row) != n), None):
            raise InvalidInput(f"every row of table {self.title!r} must have {n} cells, got {len(odd)}")
        if not all(0 <= place < n for place in self.published):
            raise InvalidInput(f"published columns of table {self.title!r} must be in [0, {n}), got {self.published}")


@dataclass(frozen=True, eq=False)
class PictureBlock:
    """A picture.

    Attributes:
        title: title above the picture.
        png: picture as PNG.
        caption: text below the picture that explains it.
    """

    title: str
    png: bytes
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Section:
    """A part of the study, in the order of the paper.

    Attributes:
        heading: short heading.
        text: paragraphs, separated by empty lines.
        blocks: tables and pictures, in order.
        missing: missing results, one text each; a section without text and blocks is missing as a whole.
    """

    heading: str
    text: str = ""
    blocks: Sequence[Table | PictureBlock] = ()
    missing: Sequence[str] = ()

    @property
    def gaps(self) -> Sequence[str]:
        """Texts about missing results; empty for a complete section."""
        return self.missing or (() if self.text or self.blocks else (_NOT_COMPUTED,))


@dataclass(frozen=True, eq=False)
class StudyContent:
    """Content of the page. All texts are escaped, so they may come from untrusted sources.

    Attributes:
        title: title of the page.
        citation: reference of the paper.
        created: date and time of the page.
        ran: description of the run by topic, such as data, models and preset; one sentence each.
        sections: sections in the order of the paper.
        provenance: JSON values; nested mappings become dotted names.
        simulated: whether the images are simulated; false for a data set of patients.
        how_to_read: paragraphs on how to read the page.
        limits: paragraphs on the limits of the results.
        warnings: sentences about this run.
        published_note: note below tables with published columns if the images are simulated.
    """

    title: str
    citation: str
    created: str
    ran: Mapping[str, str]
    sections: Sequence[Section]
    provenance: Mapping[str, Any]
    simulated: bool = True
    how_to_read: Sequence[str] = ()
    limits: Sequence[str] = ()
    warnings: Sequence[str] = field(default=())
    published_note: str = SIMULATED_NOTE


def study_page(content: StudyContent) -> str:
    """Return the page as HTML: a column of 1000 pixels on a screen, narrower on a phone, A4 in print.

    Raises:
        InvalidInput: a picture is not a PNG.
    """
    gaps = [(i, section.heading, gap) for i, section in enumerate(content.sections, 1) for gap in section.gaps]
    n_complete = sum(not section.gaps for section in content.sections)
    page = environment()
    page.filters |= {"css_width": _css_width, "paragraphs": _paragraphs, "cell": _cell_text, "numeric": _is_numeric}
    page.tests["table"] = lambda block: isinstance(block, Table)
    return page.get_template("study.html.j2").render(
        content=content,
        gaps=gaps,
        n_complete=n_complete,
        provenance=list(flattened(content.provenance)),
        simulated_note=content.published_note,
    )


def _paragraphs(text: str) -> list[str]:
    return [part.strip() for part in text.split("\n\n") if part.strip()]


def _css_width(png: bytes) -> int:
    with Image.open(io.BytesIO(png)) as picture:
        # PNG stores pixels per metre, so that Pillow returns slightly less than the resolution of the figure.
        return round(picture.width / picture.info.get("dpi", (_DPI, _DPI))[0] * _CSS_PIXELS_PER_INCH)


def _cell_text(cell: Cell) -> str:
    if cell is None:
        return "–"
    return f"{cell:#.3g}" if isinstance(cell, float) else str(cell)


def _is_numeric(table: Table, place: int) -> bool:
    """Return whether a column contains only numbers, which are aligned to the right."""
    return place > 0 and all(_NUMBER.match(_cell_text(row[place])) for row in table.rows)
