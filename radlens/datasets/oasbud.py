"""OASBUD, raw ultrasonic echoes of breast lesions: Piotrzkowska-Wroblewska et al., Medical Physics 44:6105-6109, 2017.

One MATLAB file (zenodo.org/records/545928) holds the struct array ``data`` of 100 lesions in 78 women, with the fields
``id``, ``rf1``, ``rf2``, ``roi1``, ``roi2``, ``birads`` and ``class`` (0 benign, 1 malignant). ``rf1`` and ``rf2`` are
the echoes of two orthogonal scans, one column of samples per scan line; ``roi1`` and ``roi2`` are the outlines on the
same grid. Field order, the two values of ``class``, the repeated ``id`` and the B-mode reconstruction with its 50 dB
follow the reader for TensorFlow Datasets, which follows the authors' script (github.com/tensorflow/datasets, pull
request 2428). That reader takes the Hilbert transform across the scan lines; here it is taken along them, as MATLAB's
``hilbert`` does.
"""

from collections.abc import Iterator, Mapping
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy import signal
from scipy.io import loadmat

from radlens.datasets.case import Case, Dataset, Label, Sample
from radlens.datasets.files import Root, mask_box
from radlens.errors import DatasetError, InvalidInput

__all__ = ["APERTURE_MM", "DYNAMIC_RANGE_DB", "SAMPLING_HZ", "SOUND_SPEED_MM_S", "b_mode", "open_oasbud"]

DYNAMIC_RANGE_DB = 50.0
"""Dynamic range in dB: echoes weaker than the strongest by at least this much are black."""

SAMPLING_HZ = 40e6
"""Sampling rate of the SonixTouch Research scanner in Hz; from other sources, as the file does not state it."""

SOUND_SPEED_MM_S = 1.54e6
"""Speed of sound in soft tissue, mm/s."""

APERTURE_MM = 38.0
"""Width of the L14-5/38 transducer in mm, with evenly spaced scan lines; the file does not state it."""

_FILE = "OASBUD.mat"
_FIELDS = ("id", "rf1", "rf2", "roi1", "roi2", "birads", "class")
_LABELS: dict[str, Label] = {"0": "benign", "1": "malignant"}
_DAMAGED = (ValueError, TypeError, KeyError, IndexError, OSError, NotImplementedError, MemoryError)
"""Exceptions of SciPy for unreadable files; `NotImplementedError` for MATLAB files of version 7.3."""


def open_oasbud(root: str | Path) -> Dataset:
    """Open OASBUD: two scans per lesion, as B-mode images with one box and one mask each.

    The file is read once and cached in memory. Spacing follows from the sampling rate and the width of the transducer,
    so pixels are not square.

    Args:
        root: folder that holds ``OASBUD.mat``.

    Raises:
        DatasetError: the file or a field is missing, the file is damaged, or a class is neither 0 nor 1.
    """
    files = Root(Path(root))
    path = files.require_file(files.path / _FILE)
    lesions = _lesions(path)
    return Dataset(
        "oasbud", tuple(case for number in range(len(lesions)) for case in _cases(path, number, lesions[number]))
    )


def b_mode(echoes: np.ndarray, *, dynamic_range_db: float = DYNAMIC_RANGE_DB) -> np.ndarray:
    """Return the B-mode image of raw echoes: envelope, logarithmic compression and clipping to the dynamic range.

    Args:
        echoes: ``(samples, lines)``, any real dtype.
        dynamic_range_db: displayed range below the strongest echo in dB, above 0.

    Returns:
        ``(samples, lines)`` float32: 255 for the strongest echo, 0 for echoes weaker by the dynamic range or more.

    Raises:
        InvalidInput: the dynamic range is not above 0, or the echoes are not ``(samples, lines)``, not finite or all
            zero.
    """
    if not dynamic_range_db > 0:
        raise InvalidInput(f"dynamic_range_db must be above 0, got {dynamic_range_db}")
    if echoes.ndim != 2 or not echoes.size:
        raise InvalidInput(f"echoes must be (samples, lines), got shape {echoes.shape}")
    values = echoes.astype(np.float64)
    if not np.isfinite(values).all():
        raise InvalidInput("echoes must be finite, got NaN or infinity")
    envelope = np.abs(signal.hilbert(values, axis=0))
    if not envelope.max() > 0:
        raise InvalidInput("expected echoes, got zeros only")
    weakest = 10 ** (-dynamic_range_db / 20)
    decibel = 20 * np.log10(np.maximum(envelope / envelope.max(), weakest))
    return (255 * (1 + decibel / dynamic_range_db)).astype(np.float32)


def _cases(path: Path, number: int, lesion: Mapping[str, Any]) -> Iterator[Case]:
    label = _LABELS.get(_text(lesion["class"]).removesuffix(".0"))  # MATLAB stores numbers as doubles by default
    if label is None:
        raise DatasetError(f"{_FILE} lesion {number + 1}: class must be 0 or 1")
    for scan in (1, 2):
        yield Case(
            patient_id=_text(lesion["id"]),
            image_id=f"lesion-{number + 1}-scan-{scan}",
            label=label,
            name=f"{_FILE} lesion {number + 1} scan {scan}",
            paths=(path,),
            loader=partial(_load, path, number, scan, label),
            view=f"scan {scan}",
            spacing_mm=_spacing_mm(np.shape(lesion[f"rf{scan}"])),
            birads=_text(lesion["birads"]) or None,
        )


def _load(path: Path, number: int, scan: int, label: Label) -> Sample:
    lesion = _lesions(path)[number]
    echoes, mask = lesion[f"rf{scan}"], lesion[f"roi{scan}"] > 0
    pixels = b_mode(echoes)
    if mask.shape != pixels.shape:
        raise InvalidInput(f"expected roi{scan} of shape {pixels.shape} like rf{scan}, got {mask.shape}")
    return Sample(pixels, (mask_box(mask),), (mask,), (label,), _spacing_mm(pixels.shape))


def _spacing_mm(shape: tuple[int, ...]) -> tuple[float, float] | None:
    if len(shape) != 2 or not shape[1]:
        return None
    # The echo travels to the reflector and back, hence the factor 2.
    return SOUND_SPEED_MM_S / (2 * SAMPLING_HZ), APERTURE_MM / shape[1]


def _lesions(path: Path) -> list[dict[str, Any]]:
    # Part of the cache key, so that a file that was replaced is read again.
    status = path.stat()
    return _read(path, status.st_mtime_ns, status.st_size)


@lru_cache(maxsize=1)
def _read(path: Path, modified_ns: int, size: int) -> list[dict[str, Any]]:
    try:
        content = loadmat(path, variable_names=["data"])
    except _DAMAGED as error:
        raise DatasetError(f"{_FILE}: expected a complete MATLAB file of version 5 ({type(error).__name__})") from None
    records = content.get("data")
    if records is None:
        raise DatasetError(f"{_FILE}: missing variable 'data'")
    names = {name.lower(): name for name in records.dtype.names or ()}
    missing = [field for field in _FIELDS if field not in names]
    if missing:
        raise DatasetError(f"{_FILE}: missing field {', '.join(map(repr, missing))} of 'data'")
    if not records.size:
        raise DatasetError(f"{_FILE}: expected at least one lesion, got none")
    return [{field: record[names[field]] for field in _FIELDS} for record in records.ravel()]


def _text(value: Any) -> str:
    found = np.asarray(value).ravel()
    return str(found[0]).strip() if found.size else ""
