"""The command line ``radlens``: one file for each command."""

from radlens.cli.app import app, main

__all__ = ["app", "main"]
