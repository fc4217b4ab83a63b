"""``radlens methods``: the methods of explanation and their parameters, as the methods or a model state them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from radlens.cli.console import examples, note, show

if TYPE_CHECKING:
    from radlens.families import Table
    from radlens.service.parameters import Parameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens methods",
    "radlens methods --method occlusion",
    "radlens methods model_store/bundles/cdmam-1.0",
)


def command(
    bundle: Annotated[
        Path | None, typer.Argument(metavar="BUNDLE", exists=True, help="Bundle or archive; by default all methods.")
    ] = None,
    method: Annotated[str | None, typer.Option(help="Only this method.")] = None,
) -> None:
    """List methods with their parameters, ranges and defaults.

    With a bundle, these are the parameters of requests to its model: its own defaults, and the limits of a server.
    """
    if bundle is None:
        show(_registered(method))
        return
    from radlens.families import family_of
    from radlens.local import open_bundle_at

    with open_bundle_at(bundle) as opened:
        manifest = opened.manifest
        family = family_of(manifest.task)
        asked = family.methods(manifest) if method is None else (method,)
        show(_table(name, _title(name), family.parameters(manifest, "explain", name)) for name in asked)
        if not asked:
            note("the model has no explanations")
        for name, reason in getattr(manifest, "refused", {}).items():
            if method is None:
                note(f"not {name}: {reason}")


def _registered(method: str | None) -> Iterator[Table]:
    """Yield a table for each method of this library."""
    from radlens import explainers
    from radlens.service.parameters import method_parameters

    for name in explainers.names() if method is None else (method,):
        kind = explainers.get(name)
        words = {"score": "score", "unit": "unit of the score", "image": "unit of the image"}
        described = explainers.create(name).described(**words)
        below = f"{described['meaning']}; unit: {described['unit']}; asks for {', '.join(kind.needs)}"
        yield _table(name, kind.title, method_parameters(name, {}), below)


def _table(name: str, title: str, parameters: Mapping[str, Parameter], below: str = "") -> Table:
    from radlens.families import Table

    rows = [(each, escape(str(found.default)), escape(found.expected)) for each, found in parameters.items()]
    heading = name if title == name else f"{name}: {title}"
    return Table(heading, ("parameter", "default", "must be"), rows, escape(below))


def _title(name: str) -> Any:
    from radlens import explainers

    return explainers.get(name).title if name in explainers.names() else name
