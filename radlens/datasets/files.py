"""Tables and images of a data set, with errors that name the file but not the patient.

Names in messages are relative to the root of the data set. ``<patient>`` replaces the identifier of a patient in a
path; the line of the table then identifies the file.
"""

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TextIO, TypeVar

import numpy as np
import PIL.Image

from radlens import images
from radlens.errors import DatasetError, InvalidInput
from radlens.images.image import require_readable_size
from radlens.images.pillow import quiet_pillow

__all__ = ["Root", "Row", "mask_box"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """One record of a table.

    Attributes:
        table: file name of the table.
        line: line number in the file; the header is line 1.
        values: values by column, without surrounding white space.
    """

    table: str
    line: int
    values: Mapping[str, str]

    @property
    def where(self) -> str:
        """Name of the row in messages: table and line."""
        return f"{self.table} line {self.line}"

    def text(self, column: str) -> str:
        """Return a value that must not be empty.

        Raises:
            DatasetError: the value is empty.
        """
        if not self.values[column]:
            raise DatasetError(f"{self.where}: {column!r} is empty")
        return self.values[column]

    def choice(self, column: str, choices: Mapping[str, _T]) -> _T:
        """Return the entry of ``choices`` for the value of a column.

        Raises:
            DatasetError: the value is not in ``choices``. The message does not quote it: where columns are shifted, the
                value may identify a patient.
        """
        if self.values[column] not in choices:
            raise DatasetError(f"{self.where}: {column!r} must be one of {', '.join(choices)}")
        return choices[self.values[column]]


@dataclass(frozen=True)
class Root:
    """Root folder of a data set on the user's disk.

    Raises:
        DatasetError: the folder is missing or empty.
    """

    path: Path

    def __post_init__(self) -> None:
        if not self.path.is_dir():
            raise DatasetError("the data set's root must be a folder that exists")
        if not any(self.path.iterdir()):
            raise DatasetError("the data set's root must hold the data set, got an empty folder")

    def name(self, path: Path, patient_id: str = "") -> str:
        """Return ``path`` relative to the root, with the patient replaced by ``<patient>``."""
        name = path.relative_to(self.path).as_posix()
        if not patient_id:
            return name
        # A short identifier, such as "10", also occurs inside longer numbers.
        return re.sub(rf"(?<![A-Za-z0-9]){re.escape(patient_id)}(?![A-Za-z0-9])", "<patient>", name)

    def require_folder(self, path: Path) -> Path:
        """Return ``path`` if it is a folder.

        Raises:
            DatasetError: the folder is missing.
        """
        if not path.is_dir():
            raise DatasetError(f"missing folder {self.name(path)}")
        return path

    def require_file(self, path: Path, patient_id: str = "", where: str = "") -> Path:
        """Return ``path`` if it is a file.

        Args:
            path: path of the file.
            patient_id: identifier that is replaced in the message.
            where: name of the row that lists the file.

        Raises:
            DatasetError: the file is missing.
        """
        if not path.is_file():
            listed = f", listed in {where}" if where else ""
            raise DatasetError(f"missing file {self.name(path, patient_id)}{listed}")
        return path

    def table(self, name: str, columns: Sequence[str]) -> list[Row]:
        """Read a table of comma separated values (RFC 4180), in UTF-8.

        Raises:
            DatasetError: the file or a column is missing, a row is shorter or longer than the header, the table is
                empty, or the file is not text.
        """
        path = self.require_file(self.path / name)
        try:
            # utf-8-sig: tables saved by Excel start with a byte order mark.
            with path.open(newline="", encoding="utf-8-sig") as stream:
                return _rows(name, stream, columns)
        except (UnicodeDecodeError, csv.Error) as error:
            raise DatasetError(f"{name}: expected comma separated text ({type(error).__name__})") from None

    def image(self, path: Path, patient_id: str = "") -> images.Image:
        """Read an image file of a format that `radlens.images` supports.

        Raises:
            DatasetError: the file is missing or unreadable.
        """
        data = self.require_file(path, patient_id).read_bytes()
        try:
            return images.read(data)
        except InvalidInput as error:
            raise DatasetError(f"{self.name(path, patient_id)}: {error}") from None

    def picture(self, path: Path) -> np.ndarray:
        """Read an 8 bit grey or colour picture as ``(h, w)`` float32 luma (ITU-R BT.601), 0 to 255.

        Raises:
            DatasetError: the file is missing or unreadable.
        """
        self.require_file(path)
        try:
            with quiet_pillow("picture"), PIL.Image.open(path) as picture:
                require_readable_size(picture.height, picture.width)
                return np.asarray(picture.convert("RGB").convert("L"), dtype=np.float32)
        except InvalidInput as error:
            raise DatasetError(f"{self.name(path)}: {error}") from None


def mask_box(mask: np.ndarray) -> tuple[int, int, int, int]:
    """Return the smallest half-open box around a mask ``(h, w)``.

    Raises:
        InvalidInput: the mask is empty.
    """
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not rows.size:
        raise InvalidInput("mask must have at least one pixel, got an empty mask")
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def _rows(name: str, stream: TextIO, columns: Iterable[str]) -> list[Row]:
    # strict: a quote that is not closed, as in a truncated file, is an error.
    reader = csv.reader(stream, strict=True)
    header = [column.strip() for column in next(reader, [])]
    missing = [column for column in columns if column not in header]
    if missing:
        raise DatasetError(f"{name}: missing column {', '.join(map(repr, missing))}")
    # line_num is the last line of a record; a record with line breaks inside its fields starts earlier.
    rows, line = [], reader.line_num + 1
    for record in reader:
        if record:
            rows.append(_row(name, line, header, record))
        line = reader.line_num + 1
    if not rows:
        raise DatasetError(f"{name}: expected at least one row below the header, got none")
    return rows


def _row(name: str, line: int, header: list[str], record: list[str]) -> Row:
    if len(record) != len(header):
        raise DatasetError(f"{name} line {line}: expected {len(header)} fields, got {len(record)}")
    return Row(name, line, dict(zip(header, (value.strip() for value in record), strict=True)))
