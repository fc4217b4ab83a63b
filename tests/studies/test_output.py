"""The files of a study."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from radlens.figures import PictureBlock, Table, save_small
from radlens.studies.output import Chapter, StudyReport, times_table, write_study


def report(**changes: Any) -> StudyReport:
    """Return what a page says besides its sections."""
    fields: dict[str, Any] = {
        "title": "A study",
        "citation": "Somebody",
        "simulated": True,
        "ran": dict,
        "provenance": lambda: {"seed": 0},
    }
    return StudyReport(**(fields | changes))


def figure() -> PictureBlock:
    """Return a picture."""
    return PictureBlock("Fig. 1: a Picture!", save_small(Figure(figsize=(1, 1))))


def test_the_page_grows_with_the_study(tmp_path: Path) -> None:
    """After each chapter the page is there, with a gap for what is not; an interruption leaves it so."""

    def first(results: dict[str, Any]) -> Any:
        results["auc"] = np.float64(0.5)
        return "The first text.", [Table("Table 1", ("name", "value"), [("a", 1.5), ("b", None)]), figure()]

    def second(results: dict[str, Any]) -> Any:
        page = (tmp_path / "index.html").read_text()
        assert "The first text." in page
        assert "not computed yet" in page
        raise KeyboardInterrupt

    chapters = [Chapter("One", "one", first), Chapter("Two", "two", second)]
    with pytest.raises(KeyboardInterrupt):
        write_study(tmp_path, report(), chapters)
    assert json.loads((tmp_path / "results.json").read_text()) == {"one": {"auc": 0.5}}
    files = write_study(tmp_path, report(), [chapters[0], Chapter("Two", "two", lambda _: ("The second text.", []))])
    page = (tmp_path / "index.html").read_text()
    assert "not computed yet" not in page
    assert "The second text." in page
    names = [str(file.relative_to(tmp_path)) for file in files]
    assert names == [
        "index.html",
        "results.json",
        "tables/01-one-1-table-1.csv",
        "figures/01-one-2-fig-1-a-picture.png",
    ]
    assert (tmp_path / names[2]).read_text().splitlines() == ["name,value", "a,1.5", "b,"]
    assert (tmp_path / names[3]).read_bytes() == figure().png
    assert not list(tmp_path.rglob("*.part"))


def test_results_are_json(tmp_path: Path) -> None:
    """Arrays become lists, paths of numbers keep their values, what is no number is null."""

    def write(results: dict[str, Any]) -> Any:
        results |= {"a": np.array([1.0, np.nan]), "b": (np.int64(3), float("inf")), 4: {"c": [True, None, "x"]}}
        return "text", []

    write_study(tmp_path, report(), [Chapter("One", "one", write)])
    expected = {"one": {"a": [1.0, None], "b": [3, None], "4": {"c": [True, None, "x"]}}}
    assert json.loads((tmp_path / "results.json").read_text()) == expected


def test_times_are_readable() -> None:
    """Minutes from a minute on; the last row is the sum."""
    table = times_table({"maps": 59.44, "graphs": 3605.2})
    assert table.rows == [("maps", "59.4 s"), ("graphs", "60 min 05 s"), ("total", "61 min 05 s")]
