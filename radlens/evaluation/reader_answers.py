"""Answers and key of a reader study, as JSON files: Katzmann et al. 2021, section 3.4.

Requirements:

- An answer names a picture by a code, and only the key says which lesion and method the code stands for.
- Whatever cannot be scored is left out and named; the rest is scored.
- A reader counts once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from radlens.errors import InvalidInput
from radlens.evaluation.reader_study import HIGHEST, LOWEST

__all__ = [
    "ANSWERS_FORMAT",
    "KEY_FORMAT",
    "VERSION",
    "Readings",
    "Sheet",
    "StudyKey",
    "collect_readings",
    "read_sheet",
    "read_study_key",
]

ANSWERS_FORMAT = "radlens reader study: answers"
"""Field ``format`` of the file that a questionnaire saves."""

KEY_FORMAT = "radlens reader study: key"
"""Field ``format`` of a key."""

VERSION = 1
"""Version of both formats."""

_READER = re.compile(r"\w[\w .-]{0,39}")
"""Names of readers: letters, digits, spaces, dots and hyphens, as in the questionnaire."""

_SHOWN = 5
"""Largest number of codes that a message lists."""


@dataclass(frozen=True)
class StudyKey:
    """Key of a study.

    Attributes:
        study: identifier of the study, which its answers repeat.
        criteria: names of the criteria.
        methods: names of the methods; the first one is compared with the others.
        titles: title of each method.
        lesions: names of the lesions.
        labels: class of each lesion.
        variants: names of the variants.
        pictures: place of each picture in ``lesions`` and in ``methods``, by its code.
    """

    study: str
    criteria: tuple[str, ...]
    methods: tuple[str, ...]
    titles: Mapping[str, str]
    lesions: tuple[str, ...]
    labels: tuple[str, ...]
    variants: tuple[str, ...]
    pictures: Mapping[str, tuple[int, int]]

    @property
    def n_answers(self) -> int:
        """Number of answers of a complete questionnaire."""
        return len(self.pictures) * len(self.criteria)


@dataclass(frozen=True, eq=False)
class Sheet:
    """Answers of one file.

    Attributes:
        file: name of the file.
        reader: name of the reader.
        variant: variant of the questionnaire.
        session: random text that the page drew when the reader began; empty if the file has none.
        saved: time in ISO 8601 when the file was saved; empty if the file has none.
        scores: ``(n_lesions, n_criteria, n_methods)``; NaN where an answer is missing.
        left_out: sentences on answers that cannot be scored.
    """

    file: str
    reader: str
    variant: str
    session: str
    saved: str
    scores: np.ndarray
    left_out: tuple[str, ...]

    @property
    def n_answers(self) -> int:
        """Number of answers that can be scored."""
        return int(np.isfinite(self.scores).sum())


@dataclass(frozen=True, eq=False)
class Readings:
    """Answers of all readers.

    Attributes:
        key: key of the study.
        sheets: one sheet per reader, by name.
        left_out: sentences on files and answers that were left out, and on missing answers.
    """

    key: StudyKey
    sheets: tuple[Sheet, ...]
    left_out: tuple[str, ...]

    @property
    def scores(self) -> np.ndarray:
        """``(n_readers, n_lesions, n_criteria, n_methods)``; NaN where an answer is missing."""
        return np.stack([sheet.scores for sheet in self.sheets])

    def of_variant(self, variant: str) -> np.ndarray:
        """Return ``(n_readers,)`` bool: whether a reader has a variant."""
        return np.array([sheet.variant == variant for sheet in self.sheets], dtype=bool)


def read_study_key(content: bytes) -> StudyKey:
    """Read a key.

    Raises:
        InvalidInput: the file is not a key of a version that is known here, or it is damaged.
    """
    document = _document(content, KEY_FORMAT, "key")
    try:
        lesions = tuple(str(each["lesion"]) for each in document["lesions"])
        methods = tuple(document["methods"])
        key = StudyKey(
            study=str(document["study"]),
            criteria=tuple(document["criteria"]),
            methods=methods,
            titles={name: str(each["title"]) for name, each in document["methods"].items()},
            lesions=lesions,
            labels=tuple(str(each["label"]) for each in document["lesions"]),
            variants=tuple(document["variants"]),
            pictures={
                code: (lesions.index(each["lesion"]), methods.index(each["method"]))
                for code, each in document["pictures"].items()
            },
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InvalidInput(
            "the key must hold study, criteria, methods, lesions, variants and pictures, got a damaged file"
        ) from error
    every = {(i, j) for i in range(len(key.lesions)) for j in range(len(key.methods))}
    if not every or len(key.pictures) != len(every) or set(key.pictures.values()) != every or not key.criteria:
        raise InvalidInput(
            f"the key must name one picture for each of {len(key.lesions)} lesions and {len(key.methods)} methods, got "
            f"{len(key.pictures)} pictures"
        )
    return key


def read_sheet(file: str, content: bytes, key: StudyKey) -> Sheet:
    """Read the answers of one file.

    Args:
        file: name of the file, for messages.
        content: content of the file.
        key: key of the study.

    Raises:
        InvalidInput: the file does not hold answers to this study.
    """
    document = _document(content, ANSWERS_FORMAT, "file of answers")
    study, reader, variant = (document.get(name) for name in ("study", "reader", "variant"))
    if study != key.study:
        raise InvalidInput(f"answers must be to study {key.study}, got {_text(study)}")
    if not (isinstance(reader, str) and _READER.fullmatch(reader.strip())):
        raise InvalidInput(f"reader must be 1 to 40 letters, digits, spaces, dots or hyphens, got {_text(reader)}")
    if variant not in key.variants:
        raise InvalidInput(f"variant must be one of {', '.join(key.variants)}, got {_text(variant)}")
    if not isinstance(document.get("answers"), list):
        raise InvalidInput("answers must be a list, got a damaged file")
    scores, left_out = _scored(document["answers"], key)
    session, saved = (document.get(name) for name in ("session", "saved"))
    return Sheet(
        file,
        reader.strip(),
        variant,
        session if isinstance(session, str) else "",
        saved if isinstance(saved, str) else "",
        scores,
        left_out,
    )


def collect_readings(files: Sequence[tuple[str, bytes]], key: StudyKey) -> Readings:
    """Read the answers of all readers, and leave out what cannot be scored.

    Of several files of one reader, the one that was saved last counts.

    Args:
        files: name and content of each file.
        key: key of the study.

    Raises:
        InvalidInput: no file can be scored.
    """
    sheets, left_out = [], []
    for name, content in files:
        try:
            sheets.append(read_sheet(name, content, key))
        except InvalidInput as error:
            left_out.append(f"{name}: left out, {error}")
    kept, repeated = _once(sheets)
    left_out += repeated
    for sheet in kept:
        left_out += [f"{sheet.file}: {sentence}" for sentence in sheet.left_out]
        if missing := key.n_answers - sheet.n_answers:
            left_out.append(f"{sheet.file}: {missing} of {key.n_answers} answers of reader {sheet.reader} are missing")
    for sheet in [each for each in kept if not each.n_answers]:
        kept.remove(sheet)
        left_out.append(f"{sheet.file}: left out, no answer of reader {sheet.reader} can be scored")
    if not kept:
        raise InvalidInput("; ".join(["at least one file of answers must be readable, got none", *left_out]))
    return Readings(key, tuple(sorted(kept, key=lambda sheet: sheet.reader.casefold())), tuple(left_out))


def _once(sheets: Sequence[Sheet]) -> tuple[list[Sheet], list[str]]:
    """Return one sheet per reader and per session, and sentences on the others."""
    kept: list[Sheet] = []
    left_out: list[str] = []
    for sheet in sorted(sheets, key=lambda each: (each.saved, each.n_answers), reverse=True):
        later = next((each for each in kept if _same_reader(each, sheet)), None)
        if later is None:
            kept.append(sheet)
        elif not _same_session(later, sheet):
            left_out.append(
                f"{sheet.file}: left out, reader {sheet.reader} has another questionnaire, {later.file}, which was "
                'saved last; if they are two persons, give one of them another name in its field "reader"'
            )
        elif later.reader.casefold() == sheet.reader.casefold():
            left_out.append(
                f"{sheet.file}: left out, reader {sheet.reader} saved this questionnaire again in {later.file}"
            )
        else:
            left_out.append(
                f"{sheet.file}: left out, it is the questionnaire of {later.file} under another name, {sheet.reader}"
            )
    return kept, left_out


def _same_reader(first: Sheet, second: Sheet) -> bool:
    return first.reader.casefold() == second.reader.casefold() or _same_session(first, second)


def _same_session(first: Sheet, second: Sheet) -> bool:
    return bool(first.session) and first.session == second.session


def _scored(answers: list[Any], key: StudyKey) -> tuple[np.ndarray, tuple[str, ...]]:
    """Return the scores of a questionnaire, and sentences on what has none."""
    given: dict[tuple[str, str], list[int]] = {}
    damaged, unknown, outside = 0, [], []
    for answer in answers:
        if not isinstance(answer, dict) or not {"picture", "criterion", "score"} <= answer.keys():
            damaged += 1
            continue
        picture, criterion, score = answer["picture"], answer["criterion"], answer["score"]
        if not (isinstance(picture, str) and picture in key.pictures and criterion in key.criteria):
            unknown.append(f"{_text(picture)} {_text(criterion)}")
        elif isinstance(score, bool) or not isinstance(score, int) or not LOWEST <= score <= HIGHEST:
            outside.append(f"{picture} {criterion} has {_text(score)}")
        else:
            given.setdefault((picture, criterion), []).append(score)
    scores = np.full((len(key.lesions), len(key.criteria), len(key.methods)), np.nan)
    twice, contrary = [], []
    for (picture, criterion), found in given.items():
        lesion, method = key.pictures[picture]
        if len(set(found)) > 1:
            contrary.append(f"{picture} {criterion} has {', '.join(str(each) for each in found)}")
            continue
        scores[lesion, key.criteria.index(criterion), method] = found[0]
        if len(found) > 1:
            twice.append(f"{picture} {criterion}")
    sentences = (
        (damaged and [f"{damaged}"], "answers without picture, criterion and score are left out"),
        (unknown, "answers to pictures or criteria that the key does not know are left out"),
        (outside, f"scores that are not whole numbers from {LOWEST} to {HIGHEST} are left out"),
        (contrary, "questions with several different answers are left out"),
        (twice, "questions have the same answer more than once, which counts once"),
    )
    return scores, tuple(f"{text}: {_listed(found)}" for found, text in sentences if found)


def _listed(found: Sequence[str]) -> str:
    shown = ", ".join(found[:_SHOWN])
    return f"{shown} and {len(found) - _SHOWN} more" if len(found) > _SHOWN else shown


def _document(content: bytes, expected: str, what: str) -> dict[str, Any]:
    try:
        document = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        raise InvalidInput(f"a {what} must be JSON, got another or a damaged file") from None
    if not isinstance(document, dict) or document.get("format") != expected:
        found = document.get("format") if isinstance(document, dict) else None
        raise InvalidInput(f"a {what} must have the format {expected!r}, got {_text(found)}")
    if document.get("version") != VERSION:
        raise InvalidInput(f"a {what} must have version {VERSION}, got {_text(document.get('version'))}")
    return document


def _text(value: object) -> str:
    """Return a value of a file for a message, short and on one line."""
    text = "nothing" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
