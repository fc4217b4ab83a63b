"""What a worker starts from: the contents of a registered archive, byte for byte."""

import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from radlens.versions import worker
from radlens.versions.worker import contents, contents_of_zip, listing


@pytest.fixture
def unpacked(tmp_path):
    """A folder with two files."""
    folder = tmp_path / "unpacked"
    (folder / "radlens").mkdir(parents=True)
    (folder / "handler.py").write_text("pass")
    (folder / "radlens" / "errors.py").write_text("x = 1")
    return folder


@pytest.fixture
def archives(unpacked, tmp_path):
    """A folder of registered archives that has it as a zip file."""
    folder = tmp_path / "archives"
    folder.mkdir()
    with zipfile.ZipFile(folder / "a.mar", "w") as archive:
        archive.mkdir("radlens")
        for name in ("radlens/errors.py", "handler.py"):
            archive.write(unpacked / name, name)
    (folder / "a.mar.contents").write_text(contents_of_zip(folder / "a.mar") + "\n")
    return folder


def started(unpacked, archives, script="model_service_worker.py"):
    """Start a worker whose program prints its arguments."""
    program = unpacked.parent / script
    program.write_text("import sys; print('started', *sys.argv[1:])")
    command = [sys.executable, "-I", worker.__file__, sys.executable, archives, program, "--sock-type", "unix"]
    return subprocess.run(command, cwd=unpacked, capture_output=True, text=True, timeout=60, check=False)


def test_what_is_unpacked_is_what_was_packed(unpacked, archives):
    """Whatever the order of the entries; the digest is of names and bytes."""
    assert contents(unpacked) == contents_of_zip(archives / "a.mar")
    assert listing([("a", "1"), ("b", "2")]) == listing([("b", "2"), ("a", "1")])
    assert listing([("a", "1"), ("b", "2")]) != listing([("a", "2"), ("b", "1")])
    (unpacked / "radlens" / "errors.py").rename(unpacked / "errors.py")
    assert contents(unpacked) != contents_of_zip(archives / "a.mar")


def test_a_registered_archive_starts(unpacked, archives):
    """As the worker itself, with all its arguments, and with nothing that somebody else may have compiled."""
    (unpacked / "radlens" / "__pycache__").mkdir()
    (unpacked / "radlens" / "__pycache__" / "errors.pyc").write_bytes(b"compiled")
    (unpacked / "__pycache__").symlink_to(archives)
    found = started(unpacked, archives)
    assert (found.returncode, found.stdout) == (0, "started --sock-type unix\n")
    assert not list(unpacked.rglob("__pycache__"))
    assert list(archives.iterdir())


@pytest.mark.parametrize("change", ["added", "changed", "removed"])
def test_other_contents_do_not_start(unpacked, archives, change):
    """A file more, another byte, a file less."""
    if change == "added":
        (unpacked / "sitecustomize.py").write_text("")
    elif change == "changed":
        (unpacked / "handler.py").write_text("past")
    else:
        (unpacked / "handler.py").unlink()
    found = started(unpacked, archives)
    assert found.returncode == 1
    assert found.stdout.startswith("RuntimeError: what TorchServe unpacked must be a registered archive")


def test_links_do_not_start(unpacked, archives):
    """They may lead anywhere."""
    (unpacked / "link").symlink_to("/etc/passwd")
    found = started(unpacked, archives)
    assert found.returncode == 1
    assert "ValueError: an archive must hold files and folders, got link, which is neither" in found.stderr


def test_other_programs_of_torchserve_start(tmp_path, archives):
    """They load no archive."""
    folder = tmp_path / "elsewhere"
    folder.mkdir()
    assert started(folder, archives, "metric_collector.py").stdout == "started --sock-type unix\n"


def test_the_program_needs_nothing_but_python():
    """It runs where radlens is not installed."""
    text = Path(worker.__file__).read_text()
    assert "import radlens" not in text
    assert "from radlens" not in text
