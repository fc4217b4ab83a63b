"""Two versions of a model asked the same: what differs in numbers, judgements, maps and time."""

import hashlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from radlens.client import Client
from radlens.errors import InvalidInput, InvalidParameter, ServerError

__all__ = ["SAMPLES", "shadow", "stored_samples", "warm"]

SAMPLES = "samples"
"""Folder of the working directory with a folder of images for each model."""

_NOT_COMPARED = ("provenance", "warnings", "reasons")
"""Fields of an answer that are not results, or compared by themselves."""


def stored_samples(folder: Path) -> list[Path]:
    """Return the images in a folder, by name.

    Raises:
        InvalidParameter: There are none.
    """
    found = sorted(path for path in (folder.iterdir() if folder.is_dir() else ()) if path.is_file())
    if not found:
        raise InvalidParameter(
            f"the versions are compared on images in {folder}, got none there; put some there, name another folder "
            "with --samples, or leave the comparison out with --no-shadow"
        )
    return found


def warm(client: Client, version: str, sample: Path, n_workers: int) -> None:
    """Send an image to all workers of a version at the same time, so that none answers for the first time later.

    Raises:
        ServerError: The version does not answer.
    """
    with ThreadPoolExecutor(n_workers) as pool:
        list(pool.map(lambda _: client.predict(sample, version=version), range(n_workers)))


def shadow(
    client: Client,
    old: str,
    new: str,
    samples: Sequence[Path],
    *,
    maps: bool = True,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[str, Any]:
    """Ask two versions about each sample; answers of the new one reach no client.

    Args:
        client: Client of the model.
        old: Version that clients are answered by.
        new: Version that is compared with it.
        samples: Images.
        maps: Whether to compare explanations, with the model's default method.
        on_progress: Callback with the numbers of finished samples and of all.

    Returns:
        ``{"model", "old", "new", "bundle_hash", "samples": [...], "failed", "judged_differently"}``. Each sample has
        ``sha256`` (file names may name patients), ``time_s`` of both, ``largest_difference`` (``field``, ``old``,
        ``new``, ``relative``: of the largest magnitude of the field), ``differs`` (fields of text and truth values that
        differ, such as a verdict), and with ``maps`` ``map`` (``correlation``: Pearson's, None where a map is constant;
        ``largest_difference``, relative to the largest magnitude of the old map). A sample that a version refuses has
        ``error`` in place of numbers; one that the new version alone refuses counts as ``failed``.
    """
    rows = []
    for i, sample in enumerate(samples):
        rows.append(_compared(client, old, new, sample, maps=maps))
        if on_progress is not None:
            on_progress(i + 1, len(samples))
    hashes = {row["bundle_hash"] for row in rows if row["bundle_hash"]}
    return {
        "model": client.model,
        "old": old,
        "new": new,
        "bundle_hash": hashes.pop() if len(hashes) == 1 else None,
        "samples": rows,
        "failed": sum(row["failed"] for row in rows),
        "judged_differently": sum(bool(row["differs"]) for row in rows),
    }


def _compared(client: Client, old: str, new: str, sample: Path, *, maps: bool) -> dict[str, Any]:
    row: dict[str, Any] = {"sha256": hashlib.sha256(sample.read_bytes()).hexdigest(), "time_s": {}, "error": {}}
    answers: dict[str, dict[str, Any]] = {}
    for version in (old, new):
        begin = time.perf_counter()
        try:
            answers[version] = client.predict(sample, version=version)
        except (InvalidInput, ServerError) as error:
            row["error"][version] = str(error)
        row["time_s"][version] = round(time.perf_counter() - begin, 4)
    row["failed"] = new in row["error"] and old not in row["error"]
    row["bundle_hash"] = answers[new]["provenance"]["bundle_hash"] if new in answers else None
    row["differs"] = ["error"] if len(row["error"]) == 1 else []
    if len(answers) < 2:
        return row
    before, after = (dict(_leaves(_results(answers[version]))) for version in (old, new))
    row["largest_difference"] = _largest(before, after)
    row["differs"] += sorted(name for name in before.keys() | after.keys() if _is_told(before, after, name))
    if maps:
        row["map"] = _compared_maps(client, old, new, sample)
        refused = row["map"].get("error", {})
        row["failed"] = row["failed"] or (new in refused and old not in refused)
    return row


def _compared_maps(client: Client, old: str, new: str, sample: Path) -> dict[str, Any]:
    row: dict[str, Any] = {"time_s": {}}
    found = {}
    for version in (old, new):
        begin = time.perf_counter()
        try:
            answer = client.explain(sample, version=version)
            # There is no map of an image that the model cannot judge.
            if (answer.get("explanation") or {}).get("map") is not None:
                found[version] = np.asarray(answer["explanation"]["map"], np.float64)
        except (InvalidInput, ServerError) as error:
            row.setdefault("error", {})[version] = str(error)
        row["time_s"][version] = round(time.perf_counter() - begin, 4)
    if len(found) == 2 and found[old].shape == found[new].shape:
        before, after = found[old].ravel(), found[new].ravel()
        varies = before.std() > 0 and after.std() > 0
        row["correlation"] = float(np.corrcoef(before, after)[0, 1]) if varies else None
        row["largest_difference"] = _relative(float(np.abs(after - before).max()), float(np.abs(before).max()))
    return row


def _results(answer: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in answer.items() if name not in _NOT_COMPARED}


def _leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the numbers, arrays and texts of an answer by dotted name; a list of numbers is one array."""
    if isinstance(value, Mapping):
        for key, each in value.items():
            yield from _leaves(each, f"{name}.{key}" if name else str(key))
    elif isinstance(value, list) and not _is_numeric(value):
        for i, each in enumerate(value):
            yield from _leaves(each, f"{name}[{i}]")
    else:
        yield name, value


def _is_numeric(value: Any) -> bool:
    if isinstance(value, list):
        return bool(value) and all(_is_numeric(each) for each in value)
    return isinstance(value, int | float | np.ndarray) and not isinstance(value, bool)


def _is_told(before: Mapping[str, Any], after: Mapping[str, Any], name: str) -> bool:
    """Return whether a field is in one answer alone, or is not a number and differs."""
    if name not in before or name not in after:
        return True
    return not (_is_numeric(before[name]) and _is_numeric(after[name])) and before[name] != after[name]


def _largest(before: Mapping[str, Any], after: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the numbers that differ most, relative to the largest magnitude of their field; None without numbers."""
    found: list[dict[str, Any]] = []
    for name in before.keys() & after.keys():
        if not (_is_numeric(before[name]) and _is_numeric(after[name])):
            continue
        old, new = (np.atleast_1d(np.asarray(each[name], np.float64)) for each in (before, after))
        if old.shape != new.shape or not old.size:
            continue
        change = np.abs(new - old)
        at = np.unravel_index(np.nanargmax(change) if not np.isnan(change).all() else 0, change.shape)
        relative = _relative(float(change[at]), float(np.nanmax(np.abs(old))))
        found.append({"field": name, "old": float(old[at]), "new": float(new[at]), "relative": relative})
    # Ties by name, so that a report does not depend on the order of a set.
    return max(found, key=lambda each: (each["relative"], each["field"]), default=None)


def _relative(change: float, scale: float) -> float:
    if change == 0.0:
        return 0.0
    return change / scale if scale > 0 and math.isfinite(change) else math.inf
