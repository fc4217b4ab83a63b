"""The card of a model: what an archive says of itself, as Markdown."""

from collections.abc import Iterator, Mapping
from typing import Any

from radlens.versions.stored import Inspection

__all__ = ["card"]


def card(found: Inspection, sha256: str, signature: str) -> str:
    """Return the card of an archive.

    Args:
        found: The archive.
        sha256: Digest of the archive.
        signature: Sentence on its signature.
    """
    bundle = dict(found.bundle or {})
    lines = [
        f"# {found.stored.name} {found.stored.version}",
        "",
        f"- archive: {found.stored.archive}, SHA-256 {sha256}",
        f"- signature: {signature}",
        f"- bundle: {found.bundle_hash or 'none'}",
    ]
    files = bundle.pop("files", {})
    for name in ("task", "explainers"):
        value = bundle.pop(name, None)
        lines.append(f"- {name}: {', '.join(value) if isinstance(value, list) else value}")
    for name in ("name", "version", "format_version"):
        bundle.pop(name, None)
    for title, value in bundle.items():
        lines += ["", f"## {title.replace('_', ' ')}", "", *_lines(value)]
    if files:
        lines += ["", "## files", "", "| file | SHA-256 |", "|---|---|"]
        lines += [f"| {name} | {each} |" for name, each in sorted(files.items())]
    return "\n".join(lines) + "\n"


def _lines(value: Any, depth: int = 0) -> Iterator[str]:
    indent = "  " * depth
    if isinstance(value, Mapping) and value:
        for name, each in value.items():
            if isinstance(each, Mapping | list) and not _is_short(each):
                yield f"{indent}- {name}:"
                yield from _lines(each, depth + 1)
            else:
                yield f"{indent}- {name}: {_text(each)}"
    elif isinstance(value, list) and not _is_short(value):
        for each in value:
            if isinstance(each, Mapping | list) and not _is_short(each):
                yield f"{indent}-"
                yield from _lines(each, depth + 1)
            else:
                yield f"{indent}- {_text(each)}"
    else:
        yield f"{indent}{_text(value)}"


def _is_short(value: Any) -> bool:
    return (
        isinstance(value, list) and len(_text(value)) <= 100 and not any(isinstance(v, Mapping | list) for v in value)
    )


def _text(value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(_text(each) for each in value)
    return f"{value:.6g}" if isinstance(value, float) else str(value)
