"""Debian's DICOM tools, which others wrote: dciodvfy of dicom3tools, and dsrdump, dcmdump and dcmp2pgm of DCMTK."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest

needs_dicom3tools = pytest.mark.skipif(
    shutil.which("dciodvfy") is None, reason="needs dciodvfy: apt-get install dicom3tools"
)
needs_dcmtk = pytest.mark.skipif(
    any(shutil.which(tool) is None for tool in ("dsrdump", "dcmdump", "dcmp2pgm")),
    reason="needs dsrdump, dcmdump and dcmp2pgm: apt-get install dcmtk",
)


def complaints(content: bytes, folder: Path) -> set[str]:
    """Return the errors that dciodvfy finds in a DICOM file."""
    file = folder / "checked.dcm"
    file.write_bytes(content)
    done = subprocess.run(["dciodvfy", "-new", str(file)], capture_output=True, check=False)
    lines = (done.stdout + done.stderr).decode(errors="replace").splitlines()
    assert any(re.match(r"[A-Z]\w+$", line) for line in lines), f"dciodvfy must name the IOD, got {lines[:3]}"
    return {line for line in lines if line.startswith(("Error", "Abort"))}


def printed(tool: str, content: bytes, folder: Path, *options: str) -> str:
    """Return what a tool of DCMTK prints of a DICOM file; it must not complain."""
    file = folder / "printed.dcm"
    file.write_bytes(content)
    done = subprocess.run([tool, *options, str(file)], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout.decode("utf-8", errors="replace")
