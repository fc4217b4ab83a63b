"""What `pip install radlens` without any extra can do: the import of every package of an extra fails here."""

import os
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest
from simulated_readers import encoded, make_answers, make_key, reader_with_effect

import radlens
from radlens.cli.app import EXTRA_OF
from radlens.extras import EXTRAS
from radlens.images import to_npy

LIBRARY = str(Path(radlens.__file__).parents[1])

BLOCKED = sorted({package.module.partition(".")[0] for packages in EXTRAS.values() for package in packages})
"""Modules of the extras."""

BLOCK = f"""
import sys

class Without:
    def __init__(self, finder):
        self.finder = finder
    def __getattr__(self, name):
        return getattr(self.finder, name)
    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in {BLOCKED} else self.finder.find_spec(name, path, target)

sys.meta_path[:] = map(Without, sys.meta_path)
"""
"""What finds modules, without these."""

COMMANDS = (
    *(
        "simulate",
        "train",
        "export",
        "bundle",
        "parity",
        "engines",
        "methods",
        "overlap",
        "serve",
        "predict",
        "read-out",
        "explain",
        "report",
        "companion",
        "study",
    ),
    *("figures", "evaluate", "reproduce", "reliability", "demo", "history", "models", "doctor", "node"),
    *("audit", "keys", "sbom", "sign"),
)


def run(code: str, *arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run code in a process of its own that has the core alone."""
    command = [sys.executable, "-c", BLOCK + code, *arguments]
    environment = {**os.environ, "PYTHONPATH": LIBRARY}
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=300, check=False
    )


def command_line(*arguments: str, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the command line in such a process."""
    return run("from radlens.cli import main\nmain()", *arguments, folder=folder)


def succeeded(done: subprocess.CompletedProcess[str]) -> str:
    """Return what a process printed that has to end well."""
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_blocked_packages_are_those_of_extras():
    """The list above holds what is named in the promise."""
    named = {"torch", "ts", "onnxruntime", "openvino", "monai", "captum", "ray", "weasyprint", "skimage", "sklearn"}
    assert named < set(BLOCKED)


@pytest.mark.slow
def test_help_of_every_command():
    """`radlens --help` and the help of each command need nothing else; every command is asked."""
    code = f"""
from typer.testing import CliRunner
from radlens.cli import app
import typer.main
assert sorted(typer.main.get_command(app).commands) == {sorted(COMMANDS)}
for command in {[[], *([name] for name in COMMANDS)]}:
    result = CliRunner().invoke(app, [*command, "--help"])
    assert result.exit_code == 0, (command, result.output)
    print(result.output)
"""
    printed = succeeded(run(code))
    assert printed.count("Usage:") == 1 + len(COMMANDS)


def test_images_client_and_figures(tmp_path):
    """An image is read, a client opened, and map, overlay, curve and Secondary Capture drawn."""
    code = """
import io
import numpy as np
import radlens
from radlens import figures, images
from radlens.maps import UpsampledMap

image = radlens.read(np.linspace(0, 1, 300 * 260).reshape(300, 260).astype(np.float32))
values = np.random.default_rng(0).normal(size=(300, 260))
shown = UpsampledMap(values, np.ones((300, 260), np.int64), 1)
assert figures.overlay(image.pixels, shown).shape[2] == 3
assert figures.save(figures.figure_map(shown, spacing_mm=None, title="map", label="")).startswith(b"\\x89PNG")
assert figures.method_title("saliency") == "saliency"
with radlens.Client("http://127.0.0.1:1") as client:
    print(client.url)
"""
    assert "127.0.0.1:1" in succeeded(run(code, folder=tmp_path))


def test_phantoms_are_simulated_and_read_out(tmp_path):
    """`radlens simulate` writes a DICOM phantom that `radlens.read` reads."""
    succeeded(command_line("simulate", "phantom.dcm", folder=tmp_path))
    printed = succeeded(run("import radlens\nprint(radlens.read('phantom.dcm').pixels.ndim)", folder=tmp_path))
    assert printed.strip() == "2"


def test_a_reader_study_is_scored(tmp_path):
    """Whoever runs a study needs no network to score it."""
    key = make_key()
    (tmp_path / "key.json").write_bytes(encoded(key))
    for i in range(3):
        answers = make_answers(key, f"r{i}", reader_with_effect({"cam": 1.0, "shap": 0.0, "lime": -1.0}, i))
        (tmp_path / f"{i}.json").write_bytes(encoded(answers))
    printed = succeeded(
        command_line("study", "score", "0.json", "1.json", "2.json", "--key", "key.json", "-o", "o", folder=tmp_path)
    )
    assert "3 readers" in printed
    assert (tmp_path / "o" / "tables.csv").exists()


@pytest.mark.parametrize("arguments", [("predict",), ("explain", "-o", "out")])
def test_server_is_asked(tmp_path, arguments):
    """Commands that ask a server get as far as the network."""
    (tmp_path / "image.npy").write_bytes(to_npy(np.zeros((300, 300), np.float32)))
    done = command_line(arguments[0], "image.npy", *arguments[1:], "--server", "http://127.0.0.1:1", folder=tmp_path)
    assert done.returncode == 5
    assert "a server must listen at http://127.0.0.1:1, got no connection" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "extra"),
    [
        (("predict", "image.npy", "--local"), "explain"),
        (("explain", "image.npy", "-o", "out", "--local"), "explain"),
        (("engines",), "explain"),
        (("parity", "."), "explain"),
        (("train", "run", "--preset", "demo"), "explain"),
        (("evaluate", ".", "-o", "out"), "explain"),
        (("figures", "image.npy", "-o", "out"), "explain"),
        (("reproduce", "byra", "-o", "out"), "explain"),
        (("study", "make", "out", "--run", ".", "--methods", "cam,shap"), "explain"),
        (("serve",), "serve"),
        (("node", "check"), "node"),
    ],
)
def test_missing_extra_is_named(tmp_path, arguments, extra):
    """A command that needs more says which extra brings it, in one line, with exit code 4."""
    (tmp_path / "image.npy").write_bytes(to_npy(np.zeros((300, 300), np.float32)))
    (tmp_path / "config.properties").write_text("")
    archive = tmp_path / "model_store" / "m" / "MAR-INF"
    archive.mkdir(parents=True)
    (archive / "MANIFEST.json").write_text('{"model": {"modelName": "m", "modelVersion": "1.0"}}')
    done = command_line(*arguments, folder=tmp_path)
    assert (done.returncode, f"pip install 'radlens[{extra}]'" in done.stderr) == (4, True), done.stderr
    assert "Traceback" not in done.stderr


def test_extra_of_a_command_is_named(tmp_path):
    """Training takes more than the first package that is missing."""
    done = command_line("train", "run", "--preset", "demo", folder=tmp_path)
    assert "everything that `radlens train` needs: pip install 'radlens[train]'" in done.stderr


def test_extras_of_commands_are_known():
    """Commands and extras that are named exist."""
    extras = tomllib.loads((Path(LIBRARY) / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert set(EXTRA_OF) <= set(COMMANDS)
    assert set(EXTRA_OF.values()) <= set(extras)


def test_doctor_examines_a_core_alone(tmp_path):
    """It says that no engine computes here, and how to get one."""
    done = command_line("doctor", folder=tmp_path)
    assert done.returncode == 1, done.stderr
    assert "- engines: pip install 'radlens[explain,cpu]'" in done.stdout
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    "code",
    [
        "radlens.load(folder)",
        "radlens.explain(None, None, 'saliency')",
        "from radlens import engines",
        "from radlens import graphs",
        "from radlens import explainers",
        "from radlens.networks import create_classifier",
        "import radlens.families; radlens.families.load(folder)",
        "from radlens.evaluation import deletion",
    ],
)
def test_library_names_the_extra(code):
    """From a notebook as well: MissingDependency, not ImportError."""
    caught = f"""
import json, pathlib, tempfile
import radlens
from radlens.errors import MissingDependency
folder = pathlib.Path(tempfile.mkdtemp())
(folder / "bundle.json").write_text(json.dumps({{"format_version": 2, "task": "cdmam-cdc", "files": {{}}}}))
try:
    {code}
except MissingDependency as error:
    print(error)
"""
    assert "pip install 'radlens[explain]'" in succeeded(run(caught))
