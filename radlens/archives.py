"""From a bundle to what TorchServe loads: an archive with the handler and the library code it was made with."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import radlens
from radlens.bundles import StoredBundle
from radlens.errors import BundleError, InvalidParameter, MissingDependency
from radlens.extras import install
from radlens.families import family_of

__all__ = ["FORMS", "archive"]

FORMS = {"zip": "zip-store", "directory": "no-archive"}
"""Forms of an archive, as radlens and as the archiver call them. Weights do not compress, so the zip only stores."""

_LIBRARY = Path(radlens.__file__).parent
_HANDLERS = _LIBRARY.parent / "handlers"
_HANDLER = "model_handler.py"
_CONFIG = "model-config.yaml"
"""How TorchServe runs a model, as its family says."""


def archive(bundle: StoredBundle[Any], store: Path, *, form: str = "zip", handlers: Path = _HANDLERS) -> Path:
    """Pack a bundle for TorchServe.

    Args:
        bundle: the model.
        store: the model store; an archive of the same name and version there is replaced.
        form: ``"zip"`` for one ``.mar`` file, ``"directory"`` for TorchServe's no-archive form.
        handlers: folder with the handler and what it imports.

    Returns:
        ``store/<name>-<version>.mar``, or the directory ``store/<name>-<version>``.

    Raises:
        InvalidParameter: unknown form.
        MissingDependency: the archiver is not installed.
        BundleError: the handler is not there, or the archiver failed.
    """
    if form not in FORMS:
        raise InvalidParameter(f"form must be one of {', '.join(FORMS)}, got {form!r}")
    if not (handlers / _HANDLER).is_file():
        raise BundleError(f"the folder of handlers must hold {_HANDLER}, which is missing")
    manifest = bundle.manifest
    name = f"{manifest.name}-{manifest.version}"
    store.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as scratch:
        staged = _stage(bundle, handlers, Path(scratch) / "staged")
        config = Path(scratch) / _CONFIG
        config.write_text(family_of(manifest.task).worker.as_yaml(), encoding="utf-8")
        made = _pack(staged, config, manifest.name, manifest.version, form)
        target = store / (f"{name}.mar" if form == "zip" else name)
        if target.is_dir():
            shutil.rmtree(target)
        return Path(shutil.move(made, target))


def _stage(bundle: StoredBundle[Any], handlers: Path, folder: Path) -> Path:
    """Lay bundle, helpers of the handler and library side by side, as they will lie in the archive."""
    without_caches = shutil.ignore_patterns("__pycache__", "*.pyc")
    shutil.copytree(bundle.path, folder)
    shutil.copytree(_LIBRARY, folder / "radlens", ignore=without_caches)
    for file in handlers.glob("*.py"):
        if file.name != _HANDLER:
            shutil.copy2(file, folder)
    shutil.copy2(handlers / _HANDLER, folder.parent)
    return folder


def _pack(staged: Path, config: Path, name: str, version: str, form: str) -> Path:
    scratch = staged.parent
    options = {
        "model-name": name,
        "version": version,
        "handler": scratch / _HANDLER,
        "config-file": config,
        "extra-files": staged,
        "export-path": scratch / "made",
        "archive-format": FORMS[form],
    }
    (scratch / "made").mkdir()
    arguments = [text for option, value in options.items() for text in (f"--{option}", str(value))]
    tool = Path(sys.executable).with_name("torch-model-archiver")
    # The archiver assembles in the folder for temporary files under the model's bare name, where two runs would meet.
    environment = os.environ | {"TMPDIR": str(scratch)}
    try:
        subprocess.run([tool, *arguments, "--force"], check=True, capture_output=True, env=environment)
    except FileNotFoundError as error:
        raise MissingDependency(f"archives need the package torch-model-archiver: {install('serve')}") from error
    except subprocess.CalledProcessError as error:
        raise BundleError(f"torch-model-archiver must end with exit code 0, got {error.returncode}") from error
    return scratch / "made" / (f"{name}.mar" if form == "zip" else name)
