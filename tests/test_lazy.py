"""Packages whose names are imported on use."""

import subprocess
import sys

import pytest

from radlens import datasets, evaluation, figures, phantoms

LAZY = (datasets, evaluation, figures, phantoms)


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_every_public_name_is_there(package):
    """What `__all__` promises can be imported."""
    assert package.__all__
    for name in package.__all__:
        assert getattr(package, name) is not None


@pytest.mark.parametrize("package", LAZY, ids=lambda package: package.__name__)
def test_other_names_are_an_error(package):
    """As of any module."""
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'tea_leaves'"):
        _ = package.tea_leaves


def test_names_are_not_hidden_by_modules():
    """A function is itself, also after the module of the same name was imported."""
    code = (
        "import radlens.figures.study_page, radlens.figures.figure_map, radlens.figures as f\n"
        "print(callable(f.study_page), callable(f.figure_map))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True True\n"


def test_a_name_takes_what_it_needs():
    """One picture does not import the tables of studies."""
    code = (
        "import sys; from radlens.figures import overlay; "
        "print('radlens.figures.maps' in sys.modules, 'radlens.figures.study_tables' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == "True False\n"
