"""``radlens demo``: what it makes anew; `.ci/run` runs the whole."""

import os

import pytest

from radlens.cli.demo import is_stale


@pytest.mark.parametrize(("made_at", "stale"), [(None, True), (100, True), (200, False), (300, False)])
def test_an_archive_is_made_anew_when_a_source_is_newer(tmp_path, made_at, stale):
    """Missing or older than any of its sources."""
    sources = [tmp_path / "old", tmp_path / "new"]
    for source, at in zip(sources, (50, 200), strict=True):
        source.touch()
        os.utime(source, (at, at))
    made = tmp_path / "made"
    if made_at is not None:
        made.touch()
        os.utime(made, (made_at, made_at))
    assert is_stale(made, sources) == stale


def test_without_trained_members_there_is_no_demo(run):
    """The run to serve is named where it is missing."""
    result = run("demo", "--members", "nothing")
    assert result.exit_code == 6
    assert result.stderr.splitlines()[-1] == "error: a training run must hold training.json, which is missing"
