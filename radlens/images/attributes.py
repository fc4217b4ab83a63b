"""Values of DICOM attributes, checked: PS3.5 section 6.2; attributes of a frame in functional groups: PS3.3 C.7.6.16.

Hospital files hold attributes that are empty, of another value representation or with several values. Each message
names the attribute, what is expected and what came. It quotes numbers, but no text, which may identify a patient.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

from pydicom import Dataset
from pydicom.multival import MultiValue
from pydicom.sequence import Sequence

from radlens.errors import UnreadableImage

__all__ = ["Attributes", "described", "items", "values"]

# float() and int() of Python also take "1_0", " 5" and "infinity".
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


@dataclass(frozen=True, eq=False)
class Attributes:
    """Attributes of an image with one frame.

    Attributes:
        places: data sets in which an attribute of the frame can be, each with its name in messages.
    """

    places: tuple[tuple[str, Dataset], ...]

    @classmethod
    def of_image(cls, dataset: Dataset) -> Attributes:
        """Return the attributes of the data set alone, as the image pixel module has them."""
        return cls((("the data set", dataset),))

    @classmethod
    def of_frame(cls, dataset: Dataset) -> Attributes:
        """Return the attributes of the only frame: those of the data set and those of its functional groups.

        Raises:
            UnreadableImage: the functional groups are not sequences, or those of several frames.
        """
        found = [("the data set", dataset)]
        for keyword in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
            groups = items(dataset, keyword)
            if len(groups) > 1:
                what = "a single frame" if keyword.startswith("Per") else "one item in SharedFunctionalGroupsSequence"
                raise UnreadableImage(f"expected {what}, got {len(groups)}")
            found += [(keyword, macro) for group in groups for macro in _macros(group, keyword)]
        return cls(tuple(found))

    def values(self, keyword: str) -> tuple[Any, ...]:
        """Return the values of an attribute; none if it is missing or empty.

        Raises:
            UnreadableImage: the value cannot be decoded, or differs between the places.
        """
        stated = [(place, found) for place, dataset in self.places if (found := values(dataset, keyword))]
        for place, found in stated[1:]:
            if _comparable(found) != _comparable(stated[0][1]):
                raise UnreadableImage(
                    f"{keyword} must be stated alike wherever it is, got {described(stated[0][1])} in {stated[0][0]} "
                    f"and {described(found)} in {place}"
                )
        return stated[0][1] if stated else ()

    def number(self, keyword: str, expected: str = "one finite number") -> float | None:
        """Return the only value of an attribute as a finite number; None if it is missing or empty.

        Raises:
            UnreadableImage: the attribute has several values, or one that is not a finite number.
        """
        found = self.values(keyword)
        if not found:
            return None
        number = as_number(found[0])
        if len(found) > 1 or number is None or not math.isfinite(number):
            raise UnreadableImage(f"{keyword} must be {expected}, got {described(found)}")
        return number

    def integer(
        self, keyword: str, allowed: Collection[int] | None = None, expected: str = "one integer"
    ) -> int | None:
        """Return the only value of an attribute as an integer; None if it is missing or empty.

        Raises:
            UnreadableImage: the attribute has several values, or one that is not an integer, or not in ``allowed``.
        """
        number = self.number(keyword, expected)
        if number is None:
            return None
        if number != int(number) or (allowed is not None and int(number) not in allowed):
            raise UnreadableImage(f"{keyword} must be {expected}, got {number:g}")
        return int(number)

    def required(self, keyword: str, allowed: Collection[int] | None = None, expected: str = "one integer") -> int:
        """Return the only value of an attribute as an integer.

        Raises:
            UnreadableImage: the attribute is missing or empty, has several values, or one that is not an integer, or
                not in ``allowed``.
        """
        found = self.integer(keyword, allowed, expected)
        if found is None:
            raise UnreadableImage(f"{keyword} must be {expected}, got no value")
        return found

    def term(self, keyword: str, allowed: Collection[str]) -> str | None:
        """Return the only value of an attribute, a term that the standard defines; None if it is missing or empty.

        Raises:
            UnreadableImage: the attribute has several values, or one that is not in ``allowed``.
        """
        found = self.values(keyword)
        if not found:
            return None
        if len(found) > 1 or found[0] not in allowed:
            got = described(found) if len(found) > 1 or not isinstance(found[0], str) else "another term"
            raise UnreadableImage(f"{keyword} must be {' or '.join(allowed)}, got {got}")
        return str(found[0])


def values(dataset: Dataset, keyword: str) -> tuple[Any, ...]:
    """Return the values of an attribute of one data set, texts without padding; none if it is missing or empty.

    Raises:
        UnreadableImage: pydicom cannot decode the value.
    """
    try:
        value = dataset.get(keyword)
    # pydicom decodes on access, and damaged bytes can raise an exception of any type; its message quotes the bytes.
    except Exception:
        raise UnreadableImage(f"{keyword} must have a value of its kind, got bytes that cannot be decoded") from None
    if isinstance(value, Sequence):
        return (value,) if len(value) else ()
    found = value if isinstance(value, MultiValue | list | tuple) else (value,)
    stripped = [each.strip(" \0") if isinstance(each, str) else each for each in found]
    # An empty value among others counts: "0.1\" is not one number.
    return tuple(stripped) if any(each not in (None, "", b"") for each in stripped) else ()


def items(dataset: Dataset, keyword: str) -> tuple[Dataset, ...]:
    """Return the items of a sequence; none if it is missing or empty.

    Raises:
        UnreadableImage: the attribute is not a sequence.
    """
    found = values(dataset, keyword)
    if found and not isinstance(found[0], Sequence):
        raise UnreadableImage(f"{keyword} must be a sequence, got {described(found)}")
    return tuple(found[0]) if found else ()


def as_number(value: Any) -> float | None:
    """Return a value as a number, NaN and infinities included; None if it is not a number."""
    if isinstance(value, str):
        return float(value) if _NUMBER.fullmatch(value) else None
    try:
        return None if isinstance(value, bytes | Sequence) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def described(found: tuple[Any, ...]) -> str:
    """Return what a message may say of values: their number, or the number that the only one is."""
    if len(found) != 1:
        return f"{len(found)} values" if found else "no value"
    number = as_number(found[0])
    if number is not None:
        return f"{number:g}"
    if isinstance(found[0], Sequence):
        return "a sequence"
    return "bytes" if isinstance(found[0], bytes) else "text that is not a number"


def _macros(group: Dataset, place: str) -> list[Dataset]:
    """Return the items of all functional group macros: each attribute of a frame stands in one of them."""
    try:
        return [item for element in group if element.VR == "SQ" for item in element.value]
    except Exception:  # as in `values`
        raise UnreadableImage(f"{place} must hold functional groups, got bytes that cannot be decoded") from None


def _comparable(found: tuple[Any, ...]) -> list[Any]:
    return [each if (number := as_number(each)) is None else number for each in found]
