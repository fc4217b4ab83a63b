"""Files of answers, and the trust card of an explanation as a table."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from radlens.cli.console import err, table
from radlens.dicom import possible, write
from radlens.errors import InvalidParameter
from radlens.families import family_of
from radlens.images import read
from radlens.wire import array_to_json

__all__ = ["print_trust", "write_dicom", "write_explanation", "write_prediction"]


def write_prediction(answer: dict[str, Any], file: Path) -> None:
    """Write a prediction as JSON, or as the picture of its family, depending on the suffix of ``file``.

    Raises:
        InvalidParameter: The family does not draw predictions.
    """
    if file.suffix.lower() == ".json":
        content: bytes | None = (json.dumps(answer, indent=2, default=array_to_json) + "\n").encode()
    else:
        content = family_of(answer["task"]).picture(answer)
    if content is None:
        raise InvalidParameter(f"--output must be .json for models of task {answer['task']}, which draw no picture")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)


def write_explanation(answer: dict[str, Any], data: bytes, folder: Path, *, prefix: str = "") -> list[Path]:
    """Write the files of an explanation, such as map, picture and overlay.

    Args:
        answer: Decoded explanation.
        data: Contents of the explained image file.
        folder: Folder of the files; created if it is missing.
        prefix: Prefix of the file names.

    Returns:
        The written files.
    """
    contents = family_of(answer["task"]).files(answer, read(data))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{prefix}{name}" for name in contents]
    for file, content in zip(files, contents.values(), strict=True):
        file.write_bytes(content)
    return files


def write_dicom(answer: dict[str, Any], images: Sequence[bytes], folder: Path) -> list[Path]:
    """Write every DICOM object that an answer has, such as ``capture.dcm`` and ``report.dcm``.

    Args:
        answer: Decoded prediction or explanation.
        images: Contents of the image files.
        folder: Folder of the files; created if it is missing.

    Returns:
        The written files.
    """
    found = family_of(answer["task"]).findings(answer, [read(data) for data in images])
    names = list(possible(found))
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{name}.dcm" for name in names]
    for file, content in zip(files, write(found, names), strict=True):
        file.write_bytes(content)
    return files


def print_trust(answer: dict[str, Any]) -> None:
    """Print the trust card of an explanation on stderr, if there is one."""
    if "trust" not in answer:
        return
    card = answer["trust"]
    delta = card["convergence_delta"]
    rows = [
        ("deletion", f"{card['deletion']:.4f}", "0 to 1, low is good"),
        ("insertion", f"{card['insertion']:.4f}", "0 to 1, high is good"),
        ("infidelity", f"{card['infidelity']:.3g}", f"0 is perfect, no map has {card['infidelity_of_no_map']:.3g}"),
        *(
            []
            if delta is None
            else [("convergence delta", f"{delta:.3g}", "the map's sum minus the change of the score")]
        ),
        *_randomised(card["randomisation"]),
        *_planted(card.get("planted_causes")),
        *_causal(card.get("causal")),
    ]
    table(["measure", "value", "meaning"], rows, title="Trust card", console=err)


def _randomised(stored: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return rows for the similarity of the maps after randomising the whole network, from the bundle."""
    said = "all weights random; 0 is good"
    measures = {name: (stored or {}).get(name) for name in ("spearman", "ssim")}
    return [
        (f"randomised, {name}", "none" if values[-1] is None else f"{values[-1]:.3f}", said)
        for name, values in measures.items()
        if values
    ]


def _planted(known: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return rows for what is known of the method: how often it pointed at planted causes."""
    return [
        (
            f"planted cause, {cause}",
            f"{found['n_hits']} of {found['n']}",
            f"{found['low']:.0%} to {found['high']:.0%} of maps of the method point at it, "
            f"{found['best_baseline_rate']:.0%} of the best baseline's ({found['best_baseline']})",
        )
        for cause, found in (known or {}).get("causes", {}).items()
    ]


def _causal(record: dict[str, Any] | None) -> list[tuple[str, str, str]]:
    """Return a row for the causal record of the model."""
    if not record:
        return []
    lesion, control = record["lesion"], record["control"]
    beside = f"; {control['fall']:.2f} without healthy tissue" if control else ""
    said = f"images whose score fell without the lesion, by {lesion['fall']:.2f} log-odds on average{beside}"
    return [("lesion removed", f"{lesion['n_lowered']} of {lesion['n']}", said)]
