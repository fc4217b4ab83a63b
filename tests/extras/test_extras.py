"""Extras: the table of the library and that of pyproject.toml, and the error that names an extra."""

import re
import tomllib
from pathlib import Path

import pytest

from radlens.errors import MissingDependency
from radlens.extras import EXTRAS, install, is_there, missing, named, require

PROJECT = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    """Return the names of packages in requirements, extras of radlens itself left out."""
    found = {re.split(r"[\[<>=~;, ]", text)[0] for text in requirements}
    return found - {"radlens"}


@pytest.mark.parametrize("extra", EXTRAS)
def test_table_is_that_of_the_project(extra):
    """Each extra holds the packages that pyproject.toml names for it."""
    assert {package.distribution for package in EXTRAS[extra]} == names(PROJECT["optional-dependencies"][extra])


def test_core_holds_no_package_of_an_extra():
    """`pip install radlens` brings neither torch nor TorchServe, nor any other package of an extra."""
    assert not names(PROJECT["dependencies"]) & {package.distribution for each in EXTRAS.values() for package in each}


def test_runtimes_that_exclude_each_other_are_in_different_extras():
    """Onnxruntime and onnxruntime-gpu are imported under one name: no extra brings both."""
    both = {"onnxruntime", "onnxruntime-gpu"}
    assert all(len(both & names(requirements)) < 2 for requirements in PROJECT["optional-dependencies"].values())


def test_install_names_extras():
    """The command can be pasted into a shell."""
    assert install("serve", "cpu") == "pip install 'radlens[serve,cpu]'"


@pytest.mark.parametrize(
    ("module", "distribution", "extra"),
    [
        ("sklearn.metrics", "scikit-learn", "explain"),
        ("ts", "torchserve", "serve"),
        ("onnxruntime", "onnxruntime", "cpu"),
    ],
)
def test_missing_module_is_named_with_its_extra(module, distribution, extra):
    """A submodule counts as its package; of two extras with one module the CPU's is named."""
    assert str(missing(module)) == (
        f"this needs the package {distribution}, which is not installed: pip install 'radlens[{extra}]'"
    )


@pytest.mark.parametrize("module", [None, "", "nothing_like_it"])
def test_other_modules_are_not_ours(module):
    """A module of no extra has no error of radlens."""
    assert missing(module) is None


def test_failed_imports_are_renamed():
    """Inside `named`, a package of an extra becomes MissingDependency; another module stays what it was."""
    with pytest.raises(MissingDependency, match=r"package monai, .* pip install 'radlens\[train\]'"), named():
        raise ModuleNotFoundError(name="monai.networks")
    with pytest.raises(ModuleNotFoundError, match="nothing_like_it"), named():
        import nothing_like_it  # noqa: F401 (it is missing)


def test_require_looks_without_importing(monkeypatch):
    """What is there passes; what is not is named."""
    monkeypatch.setattr("radlens.extras.is_there", lambda module: module != "captum")
    require("torch", "onnx")
    with pytest.raises(MissingDependency, match="package captum"):
        require("torch", "captum")


def test_modules_are_found():
    """A package, a module in it, and neither."""
    assert is_there("json.decoder")
    assert not is_there("json.nothing")
    assert not is_there("nothing_like_it.at_all")
