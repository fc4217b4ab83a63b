"""The application: its commands, and the exit codes of errors.

Commands import NumPy, networks and figures when they run, so that ``--help`` answers at once.
"""

from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from radlens import __version__
from radlens.cli import (
    audit,
    bundle,
    companion,
    demo,
    doctor,
    engines,
    evaluate,
    explain,
    export,
    figures,
    history,
    keys,
    methods,
    models,
    node,
    overlap,
    parity,
    predict,
    read_out,
    reliability,
    report,
    reproduce,
    sbom,
    serve,
    sign,
    simulate,
    study,
    train,
)
from radlens.cli.console import examples, fail, flowing, note
from radlens.errors import MissingDependency, RadlensError, exit_code
from radlens.extras import install, missing

__all__ = ["app", "main"]

EXTRA_OF = {
    "train": "train",
    "export": "serve",
    "bundle": "train",
    "companion": "train",
    "serve": "serve",
    "models": "serve",
    "sign": "serve",
    "demo": "serve",
    "evaluate": "studies",
    "overlap": "studies",
    "figures": "studies",
    "reproduce": "studies",
    "reliability": "studies",
    "study": "studies",
    "node": "node",
}
"""Extra that installs the packages of a command, if it needs more than the core and ``explain``."""

INTERRUPTED = 130
"""Exit code after Ctrl-C: 128 + SIGINT, the convention of shells."""


class _Group(TyperGroup):
    """Command group that turns errors into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        try:
            return super().invoke(ctx)
        except (RadlensError, ModuleNotFoundError) as error:
            known = missing(error.name) if isinstance(error, ModuleNotFoundError) else error
            if known is None:
                raise
            if isinstance(known, MissingDependency) and (extra := EXTRA_OF.get(ctx.invoked_subcommand)):
                note(f"everything that `radlens {ctx.invoked_subcommand}` needs: {install(extra)}")
            fail(str(known))
            raise typer.Exit(exit_code(known)) from None
        except OSError as error:
            if error.filename is None:
                raise
            fail(f"{error.filename}: {error.strerror}")
            raise typer.Exit(1) from None
        except KeyboardInterrupt:
            fail("interrupted")
            raise typer.Exit(INTERRUPTED) from None


app = typer.Typer(
    cls=_Group,
    name="radlens",
    help="Medical-image models served with their explanations.",
    epilog=examples(
        "radlens simulate phantom.dcm",
        "radlens serve",
        "radlens predict phantom.dcm",
        "radlens explain phantom.dcm --method omig --upsample 500 -o out/",
        "radlens report phantom.dcm -o report.html",
    ),
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(value: bool) -> None:
    if value:
        typer.echo(f"radlens {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Medical-image models served with their explanations."""


for _module in (
    simulate,
    train,
    export,
    bundle,
    parity,
    engines,
    serve,
    predict,
    read_out,
    explain,
    methods,
    report,
    figures,
    evaluate,
    reproduce,
    overlap,
    reliability,
    demo,
    doctor,
    sign,
    sbom,
):
    _name, _help = _module.__name__.rpartition(".")[2].replace("_", "-"), flowing(_module.command.__doc__)
    app.command(_name, help=_help, epilog=_module.EPILOG)(_module.command)
for _group in (audit.app, companion.app, history.app, keys.app, models.app, node.app, study.app):
    for _each in _group.registered_commands:
        _each.help = _each.help or flowing(_each.callback.__doc__ if _each.callback else None)
    app.add_typer(_group)


def main() -> None:
    """Run the command line of this process."""
    app()
