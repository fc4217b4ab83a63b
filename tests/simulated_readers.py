"""A key of a reader study, and files of answers of simulated readers with a known effect."""

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from radlens.evaluation.reader_answers import ANSWERS_FORMAT, KEY_FORMAT
from radlens.evaluation.reader_study import CRITERIA

METHODS = {"cam": "CAM", "shap": "SHAP", "lime": "LIME"}

STUDY = "0123abcd"

Score = Callable[[str, str, str], int | None]
"""Score of a reader for a lesion, a criterion and a method; None for no answer."""


def make_key(n_lesions: int = 4, **changes: Any) -> dict[str, Any]:
    """Return a key with two variants, as `radlens study make` writes it."""
    lesions = [f"l{i}" for i in range(n_lesions)]
    pictures = {f"{lesion}-{method}": {"lesion": lesion, "method": method} for lesion in lesions for method in METHODS}
    pages = [{"lesion": lesion, "pictures": [f"{lesion}-{method}" for method in METHODS]} for lesion in lesions]
    return {
        "format": KEY_FORMAT,
        "version": 1,
        "study": STUDY,
        "criteria": dict(CRITERIA),
        "methods": {name: {"title": title} for name, title in METHODS.items()},
        "lesions": [{"lesion": lesion, "label": ("benign", "malignant")[i % 2]} for i, lesion in enumerate(lesions)],
        "pictures": pictures,
        "variants": {"A": pages, "B": pages[::-1]},
    } | changes


def make_answers(key: dict[str, Any], reader: str, score: Score, variant: str = "A", **changes: Any) -> dict[str, Any]:
    """Return the answers of one reader, as the questionnaire saves them."""
    answers = [
        {"picture": picture, "criterion": criterion, "score": found, "at": "2026-01-01T10:00:00.000Z"}
        for picture, place in key["pictures"].items()
        for criterion in key["criteria"]
        if (found := score(place["lesion"], criterion, place["method"])) is not None
    ]
    return {
        "format": ANSWERS_FORMAT,
        "version": 1,
        "study": key["study"],
        "variant": variant,
        "reader": reader,
        "session": f"session of {reader}",
        "started": "2026-01-01T10:00:00.000Z",
        "saved": "2026-01-01T11:00:00.000Z",
        "answers": answers,
    } | changes


def reader_with_effect(effect: dict[str, float], seed: int) -> Score:
    """Return a reader whose scores are the effect of each method plus noise, rounded."""
    rng = np.random.default_rng(seed)
    return lambda lesion, criterion, method: int(np.clip(np.rint(effect[method] + rng.normal(0, 0.7)), -4, 4))


def encoded(document: Any) -> bytes:
    """Return a document as the bytes of a file."""
    return json.dumps(document).encode()
