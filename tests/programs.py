"""Programs of Debian that some tests ask: they are skipped without them, and fail where all must be there."""

import os
import shutil
from pathlib import Path

import pytest

ALL_PROGRAMS = "RADLENS_ALL_PROGRAMS"
"""Environment variable that `.ci/run` sets to 1: a program that is missing is then an error."""


def missing_programs(programs: dict[str, str]) -> str | None:
    """Return which of some programs are missing and how to get them; None if all are there.

    Args:
        programs: package of each program; a program is a name, or a file with its absolute path.
    """
    packages = {program: package for program, package in programs.items() if not _is_there(program)}
    if not packages:
        return None
    return f"needs {', '.join(packages)}: apt-get install {' '.join(sorted(set(packages.values())))}"


def _is_there(program: str) -> bool:
    if Path(program).is_absolute():
        return Path(program).exists()
    return shutil.which(program, path=f"{os.environ.get('PATH', '')}:/usr/sbin") is not None


def needs(programs: dict[str, str]) -> pytest.MarkDecorator:
    """Return the mark of tests that ask some programs; the argument is that of `missing_programs`."""
    reason = missing_programs(programs)
    return pytest.mark.skipif(reason is not None and os.environ.get(ALL_PROGRAMS) != "1", reason=reason or "")
