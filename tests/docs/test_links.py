"""README and documentation lead to what exists: files, headings, and pages that texts of the library name."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

PAGES = [
    ROOT / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
    *ROOT.glob("export/*/README.md"),
    ROOT / "model_store" / "README.md",
]
"""Pages whose links are followed."""

NAMED = [file for folder in ("radlens", "handlers", "tests", "benchmarks") for file in (ROOT / folder).rglob("*.py")]
"""Files whose texts may name a page."""

README_LINES = 200
"""Most lines of README: what radlens is, and where the rest is said."""


def links(page: Path) -> list[str]:
    """Return the targets of a page's links and pictures, those outside of the repository left out."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    found = re.findall(r"\]\(([^)\s]+)\)", text)
    return [target for target in found if not re.match(r"[a-z]+:", target)]


def anchors(page: Path) -> set[str]:
    """Return the anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"), flags=re.M | re.S)
    headings = re.findall(r"^#+ (.+)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    """To a file of the repository, and to a heading of it."""
    for target in links(page):
        name, _, anchor = target.partition("#")
        file = (page.parent / name).resolve() if name else page
        assert file.exists(), target
        assert not anchor or anchor in anchors(file), target


def test_every_page_is_linked():
    """Each file of docs/ that is for readers is reached from README, directly or by other pages."""
    reached, waiting = set(), [ROOT / "README.md"]
    while waiting:
        page = waiting.pop()
        if page in reached or not page.is_file():
            continue
        reached.add(page)
        if page.suffix == ".md":
            waiting += [(page.parent / target.partition("#")[0]).resolve() for target in links(page)]
    for_readers = {file for file in (ROOT / "docs").iterdir() if file.suffix in {".md", ".ipynb", ".png", ".jpg"}}
    assert for_readers - reached == set()


def test_pages_that_texts_name_exist():
    """Help, docstrings and comments name pages as docs/NAME."""
    named = {
        (str(file.relative_to(ROOT)), name)
        for file in NAMED
        for name in re.findall(r"\bdocs/[\w-]+\.(?:md|ipynb|png|jpg)\b", file.read_text(encoding="utf-8"))
    }
    assert {where for where in named if not (ROOT / where[1]).exists()} == set()
    assert ("radlens/cli/bundle.py", "docs/models.md") in named


def test_the_readme_is_short():
    """Its first lines say what radlens is."""
    lines = (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    assert len(lines) <= README_LINES
    assert lines[0] == "# radlens"
    assert lines[2].startswith("radlens serves medical-image models")
