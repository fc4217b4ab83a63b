"""The grey page that replaces a curve or a map of an image that cannot be judged."""

from __future__ import annotations

import io
from collections.abc import Sequence
from textwrap import wrap

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image

__all__ = ["figure_not_assessable"]

_WIDTH = 78
_MOST_LINES = 16


def figure_not_assessable(
    reasons: Sequence[str],
    title: str = "Not assessable",
    sentence: str = "There is no verdict and no map for this image.",
) -> NDArray[np.uint8]:
    """Return a grey page with the reasons why an image cannot be judged, (h, w, 3) uint8.

    Args:
        reasons: one sentence for each reason.
        title: title of the page.
        sentence: sentence between title and reasons.
    """
    lines = [line for reason in reasons for line in wrap(f"- {reason}", _WIDTH, subsequent_indent="  ")]
    if len(lines) > _MOST_LINES:
        lines = [*lines[: _MOST_LINES - 1], "  ..."]
    figure = Figure(figsize=(8, 4.5), dpi=100, facecolor="#8a8a8a")
    figure.text(0.05, 0.88, title, fontsize=20, weight="bold", color="white")
    figure.text(0.05, 0.80, sentence, fontsize=11, color="white")
    figure.text(0.05, 0.74, "\n".join(lines), fontsize=10, color="white", va="top", family="monospace")
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", facecolor=figure.get_facecolor())
    buffer.seek(0)
    with Image.open(buffer) as picture:
        return np.asarray(picture.convert("RGB"))
