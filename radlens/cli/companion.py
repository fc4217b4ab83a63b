"""``radlens companion``: training of the networks that methods need beside a classifier."""

import typer

from radlens.cli import companion_generators, companion_proposer
from radlens.cli.console import flowing

__all__ = ["app"]

app = typer.Typer(
    name="companion",
    help="Train a network that a method needs beside a classifier, for radlens export --companion.",
    no_args_is_help=True,
)
for _name, _module in {"generators": companion_generators, "proposer": companion_proposer}.items():
    app.command(_name, help=flowing(_module.command.__doc__), epilog=_module.EPILOG)(_module.command)
