"""Help, exit codes and errors of the application."""

import subprocess
import sys

import pytest

from radlens import __version__, errors
from radlens.cli import app, train

COMMANDS = (
    *("simulate", "train", "export", "serve", "predict", "read-out", "explain", "report", "figures", "reliability"),
    "demo",
)


def test_help_lists_every_command(run):
    """``radlens --help`` names all commands and shows examples."""
    result = run("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in (*COMMANDS, "history", "models"))
    assert "$ radlens explain phantom.dcm --method omig --upsample 500 -o out/" in result.stdout


@pytest.mark.parametrize(
    "command",
    [[name] for name in COMMANDS]
    + [
        ["models", "register"],
        ["models"],
        ["node"],
        ["node", "run"],
        ["history"],
        ["history", "add"],
        ["history", "show"],
    ],
)
def test_each_command_has_help_with_examples(run, command):
    """Each command says what it does; those of the first level show examples."""
    result = run(*command, "--help")
    assert result.exit_code == 0
    assert f"Usage: radlens {command[0]}" in result.stdout
    assert len(command) > 1 or f"$ radlens {command[0]}" in result.stdout


def test_version(run):
    """``--version`` prints the version."""
    result = run("--version")
    assert (result.exit_code, result.stdout) == (0, f"radlens {__version__}\n")


def test_help_imports_nothing_heavy():
    """The application can be asked for help before torch, NumPy and matplotlib are imported."""
    check = "import sys, radlens.cli; print([m for m in ('torch', 'numpy', 'matplotlib', 'httpx') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert found.stdout == "[]\n"


def test_unknown_command_is_a_usage_error(run):
    """What is no command ends with 2."""
    result = run("predcit")
    assert result.exit_code == 2
    assert "No such command 'predcit'" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidParameter("n_steps must be at least 1, got 0"), 2),
        (errors.UnreadableImage("image must be grey, got RGB"), 2),
        (errors.BundleError("bundle must hold weights.pt, which is missing"), 3),
        (errors.MissingDependency("engine onnxruntime needs the package onnxruntime"), 4),
        (errors.ServerError("a server must listen, got no connection"), 5),
        (errors.TrainingError("the folder holds a run of another recipe"), 6),
    ],
)
def test_errors_are_one_line_and_an_exit_code(run, monkeypatch, error, code):
    """Each branch of the error tree has its exit code, and its message stands alone on stderr."""

    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr("radlens.families.cdmam.training.train", fails)
    result = run("train", "folder", "--preset", "demo")
    assert result.exit_code == code
    assert result.stderr.splitlines()[-1] == f"error: {error}"
    assert "Traceback" not in result.stderr
    assert result.stdout == ""


def test_markup_in_a_message_is_shown_as_it_is(run, monkeypatch):
    """A message with square brackets loses nothing."""

    def fails(*arguments, **options):
        raise errors.InvalidInput("shape must be [250, 250], got [red]")

    monkeypatch.setattr("radlens.families.cdmam.training.train", fails)
    assert "error: shape must be [250, 250], got [red]" in run("train", "folder", "--preset", "demo").stderr


def test_ctrl_c_ends_with_130(run, monkeypatch):
    """An interruption is no crash."""

    def interrupted(*arguments, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr("radlens.families.cdmam.training.train", interrupted)
    result = run("train", "folder", "--preset", "demo")
    assert result.exit_code == 130
    assert result.stderr.splitlines()[-1] == "error: interrupted"


def test_a_file_that_cannot_be_written_is_named(run, tmp_path):
    """Errors of the file system are one line too."""
    (tmp_path / "file").touch()
    result = run("simulate", "file/phantom.npy", "--spacing", "2")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == "error: file: File exists"


def test_other_errors_of_the_system_are_not_hidden(run, monkeypatch):
    """An OSError that is about no file is a defect, and shows where it comes from."""

    def fails(*arguments, **options):
        raise OSError("out of sockets")

    monkeypatch.setattr("radlens.families.cdmam.training.train", fails)
    assert isinstance(run("train", "folder", "--preset", "demo").exception, OSError)


def test_the_console_script_is_the_application():
    """``radlens.cli:main`` runs what the tests run."""
    assert app.info.name == "radlens"
    assert train.command in [info.callback for info in app.registered_commands]
