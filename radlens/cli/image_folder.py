"""Folders of images of the training kind, for commands with ``--images DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from radlens.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    import numpy as np

    from radlens.datasets import ModelInput

__all__ = ["image_files", "prepared_file"]


def image_files(folder: Path, least: int, remedy: str = "") -> list[Path]:
    """Return the files of a folder and its subfolders, hidden ones excepted, sorted.

    Args:
        folder: the folder.
        least: least number of files.
        remedy: what else the user may do about too few, for the message.

    Raises:
        InvalidParameter: there are fewer.
    """
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    if len(files) < least:
        raise InvalidParameter(f"--images must hold at least {least} images{remedy}, got {len(files)}")
    return files


def prepared_file(file: Path, model_input: ModelInput) -> np.ndarray:
    """Return an image as a network gets it, ``(c, h, w)`` float32.

    Raises:
        InvalidInput: the file is no image.
    """
    from radlens.images import read

    try:
        return model_input.prepare(read(file.read_bytes()).pixels).pixels
    except InvalidInput as error:
        raise InvalidInput(f"every file of --images must be an image, got {file.name}: {error}") from error
