"""Archives for TorchServe, with a bundle, the handler and the library code that serves the model.

An archive holds the modules of the library that the handler imports, directly or through other modules, at top level or
inside functions. Modules for training, export and studies are left out (`_NOT_SERVED`).
"""

import ast
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import radlens
from radlens.bundles import StoredBundle
from radlens.errors import BundleError, InvalidParameter, MissingDependency
from radlens.extras import install
from radlens.families import FOLDERS, family_of
from radlens.lazy import lazy_names

__all__ = ["FORMS", "archive", "library_files"]

FORMS = {"zip": "zip-store", "directory": "no-archive"}
"""Forms of an archive in radlens, and their names in the archiver. The zip is uncompressed: weights do not compress."""

_LIBRARY = Path(radlens.__file__).parent
_HANDLERS = _LIBRARY.parent / "handlers"
_HANDLER = "model_handler.py"
_CONFIG = "model-config.yaml"
"""File with the settings of TorchServe's workers, which the family of a model defines."""

_NOT_SERVED = re.compile(r"radlens\.(cli|studies|server|client|notebook)\b|\.(training|export|making|recipes)")
"""Modules that requests do not need, and that are not packed if only functions import them."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MANIFEST = "MAR-INF/MANIFEST.json"


def archive(bundle: StoredBundle[Any], store: Path, *, form: str = "zip", handlers: Path = _HANDLERS) -> Path:
    """Pack a bundle for TorchServe.

    Args:
        bundle: bundle of the model.
        store: model store; an archive of the same name and version is replaced.
        form: ``"zip"`` for one ``.mar`` file, ``"directory"`` for TorchServe's no-archive form.
        handlers: folder with the handler and the modules beside it.

    Returns:
        ``store/<name>-<version>.mar``, or the directory ``store/<name>-<version>``. The file depends on bundle,
        handlers and library alone, so packing the same sources again gives the same bytes.

    Raises:
        InvalidParameter: The form is unknown.
        MissingDependency: The archiver is not installed.
        BundleError: The handler is missing, or the archiver failed.
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


def library_files(handlers: Path, task: str | None = None) -> list[Path]:
    """Return the files of the library that an archive holds: modules, and the data files in their packages.

    Args:
        handlers: Folder with the handler and the modules beside it.
        task: Task of the model, whose family is packed without the other families; None to pack no family.
    """
    modules: dict[str, Path] = {}
    waiting = [name for file in handlers.glob("*.py") for name in _imported(file)]
    if task is not None:
        # The registry imports families by name, so the search for import statements does not find them.
        waiting.append(f"{FOLDERS[task]}.family")
    while waiting:
        name = waiting.pop()
        if name in modules or name.partition(".")[0] != _LIBRARY.name:
            continue
        # Importing a module imports its package first, and a name may belong to the module before the last dot.
        waiting.append(name.rpartition(".")[0])
        if file := _file(name):
            modules[name] = file
            waiting += _imported(file)
    packages = [file.parent for file in modules.values() if file.name == "__init__.py"]
    data = [file for folder in packages for file in folder.iterdir() if file.is_file() and file.suffix != ".py"]
    return sorted([*modules.values(), *data])


def _file(module: str) -> Path | None:
    """Return the file of a module of the library; None for a name that is not a module."""
    path = _LIBRARY.parent.joinpath(*module.split("."))
    return next((file for file in (path / "__init__.py", path.with_suffix(".py")) if file.is_file()), None)


def _imported(file: Path) -> Iterator[str]:
    """Yield the dotted names that a file imports, except imports inside functions that requests do not need."""
    for node, is_inside in _statements(ast.parse(file.read_text(encoding="utf-8"))):
        for name in _targets(node):
            if not (is_inside and _NOT_SERVED.search(name)):
                yield name


def _statements(node: ast.AST, *, is_inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports below ``node``, and whether each is inside a function; skip imports for type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, is_inside
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _statements(child, is_inside=is_inside or isinstance(child, _FUNCTIONS))


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the modules or names that a statement imports; lazy names (`radlens.lazy`) with their modules."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            origin = _lazy(str(node.module)).get(alias.name)
            yield f"{origin or node.module}.{alias.name}"
            whole = f"{node.module}.{alias.name}"
        else:
            yield alias.name
            whole = alias.name
        if whole != _LIBRARY.name:
            # The importer of a lazy package may use any of its names.
            yield from (f"{origin}.{name}" for name, origin in _lazy(whole).items())


@cache
def _lazy(module: str) -> dict[str, str]:
    file = _file(module)
    return {} if file is None else dict(lazy_names(file.read_text(encoding="utf-8")))


def _stage(bundle: StoredBundle[Any], handlers: Path, folder: Path) -> Path:
    """Copy bundle, library and the modules beside the handler to a folder with the layout of the archive."""
    shutil.copytree(bundle.path, folder)
    for file in library_files(handlers, bundle.manifest.task):
        copy = folder / file.relative_to(_LIBRARY.parent)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
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
    # The archiver works in TMPDIR under the bare name of the model, where two runs would collide.
    environment = os.environ | {"TMPDIR": str(scratch)}
    try:
        subprocess.run([tool, *arguments, "--force"], check=True, capture_output=True, env=environment)
    except FileNotFoundError as error:
        raise MissingDependency(f"archives need the package torch-model-archiver: {install('serve')}") from error
    except subprocess.CalledProcessError as error:
        raise BundleError(f"torch-model-archiver must end with exit code 0, got {error.returncode}") from error
    if form == "directory":
        return scratch / "made" / name
    made = scratch / "made" / f"{name}.mar"
    _forget_time(made)
    return made


def _forget_time(file: Path) -> None:
    """Rewrite an archive without timestamps, with its entries sorted by name, so that it can be reproduced."""
    with zipfile.ZipFile(file) as entries:
        contents = {name: entries.read(name) for name in sorted(entries.namelist())}
    manifest = json.loads(contents[_MANIFEST])
    manifest.pop("createdOn", None)
    contents[_MANIFEST] = json.dumps(manifest, indent=2).encode()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in contents.items():
            # ZipInfo without a time stores 1980-01-01.
            written.writestr(zipfile.ZipInfo(name), content)
