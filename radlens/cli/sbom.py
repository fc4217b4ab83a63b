"""``radlens sbom``: every installed package with version and licence, as a bill of materials."""

import json
from pathlib import Path
from typing import Annotated

import typer

from radlens.cli.console import examples, note, table

__all__ = ["EPILOG", "command"]

EPILOG = examples("radlens sbom -o sbom.json", "radlens sbom --licences")


def command(
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write there instead of on stdout.")
    ] = None,
    licences: Annotated[bool, typer.Option("--licences", help="Print a table of licences instead.")] = False,
) -> None:
    """Print the bill of materials of this installation: CycloneDX 1.6 JSON, from the metadata of the packages.

    It holds Python packages. What they carry inside, such as the Java libraries of TorchServe, is in SECURITY.md.
    """
    from radlens import sbom

    if licences:
        table(["package", "version", "licence"], sbom.licences())
        return
    text = json.dumps(sbom.bill(), indent=1)
    if output is None:
        typer.echo(text)
    else:
        output.write_text(text + "\n", encoding="utf-8")
        note(f"wrote {output}")
