"""What commands print with."""

import io

import pytest
from rich.console import Console

from radlens.cli import console
from radlens.cli.console import LoggedProgress, stages


@pytest.fixture
def log(monkeypatch):
    """What is printed where stderr is a file."""
    stream = io.StringIO()
    monkeypatch.setattr(console, "err", Console(file=stream, width=200))
    return stream


def told(stream):
    """Return the lines without the time of day."""
    return [line.split(" ", 1)[1] for line in stream.getvalue().splitlines()]


def test_logs_get_a_line_now_and_then(log):
    """Never two within the interval; the rest is estimated from what was done since the stage began."""
    seconds = iter([0.0, 0.0, 29.0, 31.0, 40.0, 62.0, 100.0])
    progress = LoggedProgress(30.0, lambda: next(seconds))
    for done in (0, 25, 30, 40, 60):
        progress("training", done, 100)
    progress("exporting", 1, None, "reliability 0.9")
    assert told(log) == [
        "training: 30 of 100, 30%, about 72 s left",
        "training: 60 of 100, 60%, about 41 s left",
        "exporting: 1 of ?, reliability 0.9",
    ]


@pytest.mark.parametrize(("left", "said"), [(29.4, "29 s"), (95.0, "2 min"), (7260.0, "2 h 1 min")])
def test_what_is_left_is_said_in_fitting_units(log, left, said):
    """Seconds, minutes, hours."""
    seconds = iter([0.0, 0.0, left])
    progress = LoggedProgress(1.0, lambda: next(seconds))
    progress("work", 0, 2)
    progress("work", 1, 2)
    assert told(log) == [f"work: 1 of 2, 50%, about {said} left"]


def broken_off():
    """Do one stage and a part of another."""
    with stages("waiting") as report:
        for done in range(101):
            report("work", done, 100)
        report("more work", 1, 3)
        raise KeyError


def test_short_work_is_one_line_a_stage(log):
    """How far each came, also where it was broken off."""
    with pytest.raises(KeyError):
        broken_off()
    assert told(log) == ["work: 100 of 100", "more work: 1 of 3"]
