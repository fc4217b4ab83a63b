"""From a bundle to what TorchServe loads: an archive with the handler and the library code it was made with.

Of the library it holds the modules that the handler imports, directly or by way of others, also inside functions. What
makes models and studies stays out, see `_NOT_SERVED`.
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

import radlens
from radlens.errors import BundleError, InvalidParameter, MissingDependency
from radlens.families.cdmam.manifest import Bundle
from radlens.families.classifier.manifest import ClassifierBundle
from radlens.lazy import lazy_names

__all__ = ["FORMS", "archive", "library_files"]

FORMS = {"zip": "zip-store", "directory": "no-archive"}
"""Forms of an archive, as radlens and as the archiver call them. Weights do not compress, so the zip only stores."""

_LIBRARY = Path(radlens.__file__).parent
_HANDLERS = _LIBRARY.parent / "handlers"
_HANDLER = "model_handler.py"
_CONFIGS = {Bundle: "model-config.yaml", ClassifierBundle: "classifier-config.yaml"}
"""How TorchServe runs a model, by its kind."""

_NOT_SERVED = re.compile(r"radlens\.(cli|studies|server|client|notebook)\b|\.(training|export|making)")
"""Modules that no request needs: where functions import them, they are not packed."""

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda)
_MANIFEST = "MAR-INF/MANIFEST.json"


def archive(bundle: Bundle | ClassifierBundle, store: Path, *, form: str = "zip", handlers: Path = _HANDLERS) -> Path:
    """Pack a bundle for TorchServe.

    Args:
        bundle: the model.
        store: the model store; an archive of the same name and version there is replaced.
        form: ``"zip"`` for one ``.mar`` file, ``"directory"`` for TorchServe's no-archive form.
        handlers: folder with the handler, what it imports, ``model-config.yaml`` and ``classifier-config.yaml``.

    Returns:
        ``store/<name>-<version>.mar``, or the directory ``store/<name>-<version>``. The file depends on bundle,
        handlers and library alone: made again it is equal byte for byte.

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
        made = _pack(staged, handlers / _CONFIGS[type(bundle)], manifest.name, manifest.version, form)
        target = store / (f"{name}.mar" if form == "zip" else name)
        if target.is_dir():
            shutil.rmtree(target)
        return Path(shutil.move(made, target))


def library_files(handlers: Path) -> list[Path]:
    """Return what an archive with the handler in ``handlers`` holds of the library: modules, and data beside them."""
    modules: dict[str, Path] = {}
    waiting = [name for file in handlers.glob("*.py") for name in _imported(file)]
    while waiting:
        name = waiting.pop()
        if name in modules or name.partition(".")[0] != _LIBRARY.name:
            continue
        # A package is imported before its modules, and a name of a module comes from that.
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
    """Yield what a file imports, dotted."""
    for node, is_inside in _statements(ast.parse(file.read_text(encoding="utf-8"))):
        for name in _targets(node):
            if not (is_inside and _NOT_SERVED.search(name)):
                yield name


def _statements(node: ast.AST, *, is_inside: bool = False) -> Iterator[tuple[ast.Import | ast.ImportFrom, bool]]:
    """Yield the imports below ``node``, and whether each is inside a function; not those of type checkers."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import | ast.ImportFrom):
            yield child, is_inside
        elif not (isinstance(child, ast.If) and ast.unparse(child.test) == "TYPE_CHECKING"):
            yield from _statements(child, is_inside=is_inside or isinstance(child, _FUNCTIONS))


def _targets(node: ast.Import | ast.ImportFrom) -> Iterator[str]:
    """Yield the modules or names that a statement imports; of a lazy package, see `radlens.lazy`, where they are."""
    for alias in node.names:
        if isinstance(node, ast.ImportFrom):
            origin = _lazy(str(node.module)).get(alias.name)
            yield f"{origin or node.module}.{alias.name}"
            whole = f"{node.module}.{alias.name}"
        else:
            yield alias.name
            whole = alias.name
        if whole != _LIBRARY.name:
            # Any name of a package may be used where it is imported itself.
            yield from (f"{origin}.{name}" for name, origin in _lazy(whole).items())


@cache
def _lazy(module: str) -> dict[str, str]:
    file = _file(module)
    return {} if file is None else dict(lazy_names(file.read_text(encoding="utf-8")))


def _stage(bundle: Bundle | ClassifierBundle, handlers: Path, folder: Path) -> Path:
    """Lay bundle, helpers of the handler and library side by side, as they will lie in the archive."""
    shutil.copytree(bundle.path, folder)
    for file in library_files(handlers):
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
    # The archiver assembles in the folder for temporary files under the model's bare name, where two runs would meet.
    environment = os.environ | {"TMPDIR": str(scratch)}
    try:
        subprocess.run([tool, *arguments, "--force"], check=True, capture_output=True, env=environment)
    except FileNotFoundError as error:
        raise MissingDependency("archives need the package torch-model-archiver") from error
    except subprocess.CalledProcessError as error:
        raise BundleError(f"torch-model-archiver must end with exit code 0, got {error.returncode}") from error
    if form == "directory":
        return scratch / "made" / name
    made = scratch / "made" / f"{name}.mar"
    _forget_time(made)
    return made


def _forget_time(file: Path) -> None:
    """Write an archive again without the times at which it and its files were made, in the order of names."""
    with zipfile.ZipFile(file) as entries:
        contents = {name: entries.read(name) for name in sorted(entries.namelist())}
    manifest = json.loads(contents[_MANIFEST])
    manifest.pop("createdOn", None)
    contents[_MANIFEST] = json.dumps(manifest, indent=2).encode()
    with zipfile.ZipFile(file, "w") as written:
        for name, content in contents.items():
            # An entry without a time is of 1980.
            written.writestr(zipfile.ZipInfo(name), content)
