"""The store of the files that tests share."""

import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from made_once import UNUSED_S, made, tidy


def test_it_is_made_once_for_all_that_ask(tmp_path):
    """Four ask at the same time: one makes, the others wait, and all get the same files."""
    calls = []

    def make(folder):
        calls.append(folder)
        time.sleep(0.2)
        (folder / "file").write_text("made")

    with ThreadPoolExecutor(4) as pool:
        folders = list(pool.map(lambda _: made("thing", make, store=tmp_path), range(4)))
    assert len(calls) == 1
    assert len(set(folders)) == 1
    assert (folders[0] / "file").read_text() == "made"


def test_half_of_it_is_never_seen(tmp_path):
    """What a maker left behind when it failed is made anew."""

    def fail(folder):
        (folder / "half").touch()
        raise KeyboardInterrupt

    def make(folder):
        (folder / "whole").touch()

    with pytest.raises(KeyboardInterrupt):
        made("thing", fail, store=tmp_path)
    assert [file.name for file in made("thing", make, store=tmp_path).iterdir()] == ["whole"]


def test_other_parameters_are_other_files(tmp_path):
    """The name tells them apart."""
    first, second = (made(name, lambda folder: (folder / "file").touch(), store=tmp_path) for name in ("a", "b"))
    assert first != second


@pytest.mark.parametrize(("fresh", "left"), [(False, ["new"]), (True, [])])
def test_old_files_are_removed(tmp_path, fresh, left):
    """Those that nobody used for a week, or all of them."""
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
    then = time.time() - UNUSED_S - 60
    os.utime(tmp_path / "old", (then, then))
    tidy(fresh=fresh, store=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == left
