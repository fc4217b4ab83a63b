"""The modality transformation, from stored values to those of the manufacturer: PS3.3 C.11.1 and C.7.6.16.2.9."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from pydicom import Dataset

from radlens.errors import UnreadableImage
from radlens.images.attributes import Attributes, as_number, described, items, values

__all__ = ["Modality", "modality"]


class Modality(Protocol):
    """A modality transformation."""

    @property
    def rises(self) -> bool | None:
        """Whether its values rise with stored values; None if they do both, or neither."""

    @property
    def limits(self) -> tuple[float, float]:
        """Smallest and largest value it can give (PS3.4 N.2.1.1)."""

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        """Return the values of an array of stored values."""


@dataclass(frozen=True)
class _Rescale:
    slope: float
    intercept: float
    stored_limits: tuple[int, int]

    @property
    def rises(self) -> bool:
        return self.slope > 0

    @property
    def limits(self) -> tuple[float, float]:
        low, high = sorted(self.slope * each + self.intercept for each in self.stored_limits)
        return low, high

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        if (self.slope, self.intercept) == (1.0, 0.0):
            return stored
        with np.errstate(over="ignore"):  # infinite values are reported with the pixels
            return stored.astype(np.float64) * self.slope + self.intercept


@dataclass(frozen=True, eq=False)
class _Table:
    entries: np.ndarray
    first: int
    n_bits: int

    @property
    def rises(self) -> bool | None:
        steps = np.diff(self.entries.astype(np.int64))
        up, down = bool((steps > 0).any()), bool((steps < 0).any())
        return None if up == down else up

    @property
    def limits(self) -> tuple[float, float]:
        return 0.0, 2.0**self.n_bits - 1.0

    def __call__(self, stored: np.ndarray) -> np.ndarray:
        return self.entries[np.clip(stored.astype(np.int64) - self.first, 0, len(self.entries) - 1)]


def modality(dataset: Dataset, stored_limits: tuple[int, int], little_endian: bool) -> Modality:
    """Return the modality transformation of an image; the identity if it states none.

    Args:
        dataset: header.
        stored_limits: smallest and largest value that can be stored.
        little_endian: byte order of the file.

    Raises:
        UnreadableImage: slope or intercept is not a finite number, or the slope is 0, or one of them is missing; the
            table does not fit its descriptor; or there are both.
    """
    rescale = _rescale(dataset, stored_limits)
    tables = items(dataset, "ModalityLUTSequence")
    if not tables:
        return rescale or _Rescale(1.0, 0.0, stored_limits)
    if len(tables) > 1:
        raise UnreadableImage(f"ModalityLUTSequence must have one item, got {len(tables)}")
    if rescale not in (None, _Rescale(1.0, 0.0, stored_limits)):
        raise UnreadableImage("expected ModalityLUTSequence or RescaleSlope and RescaleIntercept, got both")
    return _table(tables[0], stored_limits[0] < 0, little_endian)


def _rescale(dataset: Dataset, stored_limits: tuple[int, int]) -> _Rescale | None:
    attributes = Attributes.of_frame(dataset)
    slope = attributes.number("RescaleSlope", "a finite number other than 0")
    intercept = attributes.number("RescaleIntercept")
    if slope == 0:
        raise UnreadableImage("RescaleSlope must be a finite number other than 0, got 0")
    if slope is None and intercept is None:
        return None
    # Of half a transformation, some readers make nothing and others the whole; it is read where both give the same.
    if slope is None and intercept != 0:
        raise UnreadableImage(f"RescaleSlope must be given with RescaleIntercept {intercept:g}, got no value")
    if intercept is None and slope != 1:
        raise UnreadableImage(f"RescaleIntercept must be given with RescaleSlope {slope:g}, got no value")
    return _Rescale(slope or 1.0, intercept or 0.0, stored_limits)


def _table(item: Dataset, is_signed: bool, little_endian: bool) -> _Table:
    n_entries, first, n_bits = _descriptor(item, is_signed)
    entries = _entries(item, n_entries, n_bits, little_endian)
    if len(entries) != n_entries:
        raise UnreadableImage(f"LUTData must have the {n_entries} entries of LUTDescriptor, got {len(entries)}")
    if int(entries.max()) >= 2**n_bits:
        raise UnreadableImage(f"LUTData must have entries of {n_bits} bits as LUTDescriptor says, got {entries.max()}")
    return _Table(entries, first, n_bits)


def _descriptor(item: Dataset, is_signed: bool) -> tuple[int, int, int]:
    found = values(item, "LUTDescriptor")
    numbers = [as_number(each) for each in found]
    if len(numbers) != 3 or any(each is None or each != round(each) for each in numbers):
        got = f"{len(numbers)} values" if len(numbers) != 3 else "other values"
        raise UnreadableImage(f"LUTDescriptor must be 3 integers, got {got}")
    n_entries, first, n_bits = (int(each) for each in numbers if each is not None)
    if not 8 <= n_bits <= 16:
        raise UnreadableImage(f"LUTDescriptor must state entries of 8 to 16 bits, got {n_bits}")
    # 16 bits each: as US or SS, whatever the pixels are; 65536 entries are written as 0.
    first = first % 2**16 - 2**16 * (is_signed and first % 2**16 >= 2**15)
    return n_entries % 2**16 or 2**16, first, n_bits


def _entries(item: Dataset, n_entries: int, n_bits: int, little_endian: bool) -> np.ndarray:
    found: tuple[Any, ...] = values(item, "LUTData")
    if len(found) == 1 and isinstance(found[0], bytes):
        if len(found[0]) % 2:
            raise UnreadableImage(f"LUTData must be words of 16 bits, got {len(found[0])} bytes")
        words = np.frombuffer(found[0], "<u2" if little_endian else ">u2").astype(np.uint16)
    else:
        numbers = [as_number(each) for each in found]
        if not numbers or any(each is None or each != round(each) for each in numbers):
            raise UnreadableImage(f"LUTData must be integers, got {described(found)}")
        words = np.array([int(each) % 2**16 for each in numbers if each is not None], np.uint16)
    # Entries of 8 bits may be packed in pairs, the first in the low byte; which is told from the length (C.11.1.1.1).
    if n_bits == 8 and n_entries > 1 and len(words) == (n_entries + 1) // 2:
        return words.astype("<u2").view(np.uint8)[:n_entries]
    return words
