"""docs/methods.md holds what the methods say of themselves."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from radlens import explainers
from radlens.explainers import Explainer
from radlens.explainers.ranges import ranges_of

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(scope="module")
def script() -> dict[str, Any]:
    """The names of docs/methods.py."""
    return runpy.run_path(str(DOCS / "methods.py"))


def test_the_page_is_up_to_date(script):
    """`python docs/methods.py` writes it."""
    assert (DOCS / "methods.md").read_text(encoding="utf-8") == script["render"](), "run python docs/methods.py"


@pytest.mark.parametrize("name", explainers.names())
def test_every_method_and_parameter_has_a_row(script, name):
    """Also parameters that a method has from its base class."""
    page = script["render"]()
    assert f"\n| `{name}` | {explainers.get(name).title} | " in page
    if explainers.get(name).for_classes:
        section = page.partition(f": `{name}`\n")[2].partition("\n#")[0]
        assert all(f"\n| `{parameter}` | " in section for parameter in ranges_of(explainers.get(name)))


def test_a_parameter_must_be_described(script):
    """A method whose docstring leaves one out has no place in the table."""

    class Silent(Explainer):
        """Say nothing."""

    with pytest.raises(ValueError, match="the docstring of Silent must say what n_steps is"):
        script["_said"](Silent, "n_steps")
