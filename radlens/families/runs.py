"""Training runs: what the families share of their folders."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from radlens.errors import TrainingError
from radlens.families.base import RECORD

__all__ = ["claim", "write_record"]

_RECIPE = "preset.json"


def claim(folder: Path, recipe: Mapping[str, Any]) -> None:
    """Write the recipe into a new run.

    Args:
        folder: Folder of the run.
        recipe: JSON values.

    Raises:
        TrainingError: The folder holds a run of another recipe.
    """
    file, text = folder / _RECIPE, json.dumps(recipe, indent=2)
    if not file.exists():
        file.write_text(text, encoding="utf-8")
    elif file.read_text(encoding="utf-8") != text:
        raise TrainingError("the folder holds a run of another recipe; choose an empty one or delete it")


def write_record(folder: Path, record: Mapping[str, Any]) -> None:
    """Replace the record of a run atomically: an interruption must not leave a part of it."""
    draft = folder / f"{RECORD}.tmp"
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / RECORD)
