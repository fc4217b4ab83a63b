"""The audit log: whatever happens to a line is found, and a crash loses at most the record that was being written."""

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from radlens import audit
from radlens.audit import AuditLog, Head, records, verify
from radlens.errors import InvalidParameter, ServerError


@pytest.fixture
def log(tmp_path):
    """A log of five records."""
    path = tmp_path / "audit.jsonl"
    for i in range(5):
        AuditLog(path).append({"event": "predict", "request_id": f"r{i}"})
    return path


def edit(path, change):
    """Write the lines that ``change`` makes of the lines of a file."""
    path.write_bytes(b"".join(change(path.read_bytes().splitlines(keepends=True))))


def test_a_log_that_nobody_touched_is_whole(log):
    """Numbers, times and records come back, and the file is its owner's alone."""
    verdict = verify(log)
    assert (verdict.n_lines, verdict.faults, verdict.torn) == (5, (), ())
    found = list(records(log))
    assert [record["seq"] for record in found] == [1, 2, 3, 4, 5]
    assert [record["request_id"] for record in found] == [f"r{i}" for i in range(5)]
    assert all(record["time"].endswith("Z") for record in found)
    assert stat.S_IMODE(log.stat().st_mode) == 0o600


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (
            lambda lines: [*lines[:1], lines[1].replace(b"r1", b"xx"), *lines[2:]],
            r"line 3 \(number 3\) does not follow the line before: that was changed",
        ),
        (lambda lines: [*lines[:1], *lines[2:]], r"line 2 has number 3: line 2 is missing before it"),
        (lambda lines: [*lines[:1], *lines[4:]], r"line 2 has number 5: lines 2 to 4 are missing before it"),
        (lambda lines: lines[2:], r"line 1 has number 3: lines 1 to 2 are missing before it"),
        (lambda lines: [lines[0], lines[2], lines[1], *lines[3:]], r"line 3 has number 2 after number 3: it was moved"),
        (lambda lines: [*lines[:2], lines[1], *lines[2:]], r"line 3 has number 2 after number 2: it was moved or ins"),
        (lambda lines: [*lines[:2], b"{}\n", *lines[2:]], r"line 3 is not a record \(2 bytes\)"),
        (lambda lines: lines[:3], r"the log must hold line 5 with SHA-256 .*, got an end at line 3"),
        (lambda lines: [], r"the log must hold line 5 with SHA-256 .*, got an end at line 0"),
        (lambda lines: [*lines[:4], lines[4][:20]], r"the log must hold line 5 with SHA-256 .*, got an end at line 4"),
        (
            lambda lines: [*lines[:4], lines[4].replace(b"r4", b"xx")],
            r"the log must hold line 5 with SHA-256 .*, got another line",
        ),
    ],
)
def test_what_was_done_to_a_log_is_found(log, change, fault):
    """The place is named, also after further records were written."""
    edit(log, change)
    before = verify(log).faults
    assert any(re.search(fault, found) for found in before), before
    AuditLog(log).append({"event": "later"})
    assert verify(log).faults, "the next record hid it"


def test_a_removed_head_is_told(log):
    """Without it nobody knows whether the end was cut."""
    log.with_name("audit.jsonl.head").unlink()
    assert verify(log).faults == (
        "audit.jsonl.head must hold the last line, got none: whether the end was cut is unknown",
    )


def test_a_log_written_anew_is_found_by_a_line_kept_elsewhere(log):
    """Whoever may write log and head can forge both; a number and a hash on paper find it."""
    known = verify(log).head
    for file in log.parent.iterdir():
        file.unlink()
    for i in range(5):
        AuditLog(log).append({"event": "predict", "request_id": f"forged{i}"})
    assert verify(log).faults == ()
    (fault,) = verify(log, known=Head.parse(str(known))).faults
    assert "got another line" in fault


@pytest.mark.parametrize("n_bytes", [1, 30, 120])
def test_a_torn_line_is_named_and_the_chain_goes_on(log, n_bytes):
    """What a crash left unfinished stays as evidence; the records around it hold."""
    with log.open("ab") as file:
        file.write(log.read_bytes().splitlines()[-1][:n_bytes])
    assert verify(log).faults == ()
    AuditLog(log).append({"event": "after the crash"})
    verdict = verify(log)
    assert verdict.faults == ()
    assert verdict.torn == ("audit.jsonl line 6 was left unfinished by a crash; its record is lost",)
    assert [record["seq"] for record in records(log)] == [1, 2, 3, 4, 5, 6]
    # A torn line does not open a door: what is changed before or in it is found.
    edit(log, lambda lines: [*lines[:4], lines[4].replace(b"r4", b"xx"), *lines[5:]])
    assert verify(log).faults
    edit(log, lambda lines: [*lines[:4], lines[4].replace(b"xx", b"r4"), b"other\n", *lines[6:]])
    assert verify(log).faults == ("audit.jsonl line 6 is not a record (5 bytes)",)


def test_a_line_without_its_end_counts(log):
    """A crash between the record and its end does not lose the record."""
    whole = log.read_bytes()
    log.write_bytes(whole[:-1])
    AuditLog(log).append({"event": "next"})
    assert log.read_bytes().startswith(whole)
    assert (verify(log).faults, verify(log).n_lines) == ((), 6)


def test_a_head_behind_the_log_is_a_crash(log):
    """The line was written, the head was not yet; the next record sets it right."""
    head = log.with_name("audit.jsonl.head")
    before = head.read_bytes()
    AuditLog(log).append({"event": "sixth"})
    head.write_bytes(before)
    assert verify(log).faults == ()
    AuditLog(log).append({"event": "seventh"})
    assert (verify(log).faults, verify(log).head.seq) == ((), 7)


def test_rotated_logs_are_one_chain(log):
    """Renamed, or archived elsewhere; a rotated file that is missing is told."""
    old = log.rename(log.with_name("audit-1.jsonl"))
    AuditLog(log).append({"event": "in the new file"})
    assert (verify([old, log]).faults, verify([old, log]).n_lines) == ((), 6)
    (fault,) = verify(log).faults
    assert "lines 1 to 5 are missing" in fault
    last = json.loads(log.read_bytes())["previous"]
    assert verify(log, after=Head(5, last)).faults == ()


_WRITER = """
import sys
from pathlib import Path
from radlens.audit import AuditLog
log = AuditLog(Path(sys.argv[1]), sync=False)
i = 0
while sys.argv[2] == "for ever" or i < int(sys.argv[2]):
    log.append({"event": "predict", "writer": sys.argv[3], "i": i, "padding": "x" * 3000})
    i += 1
"""


def _writer(path, count, name):
    environment = os.environ | {"PYTHONPATH": str(Path(audit.__file__).parents[1])}
    return subprocess.Popen([sys.executable, "-c", _WRITER, path, count, name], env=environment)


def test_several_processes_write_one_chain(tmp_path):
    """Three of them 100 records each, none lost, each in order."""
    path = tmp_path / "audit.jsonl"
    writers = [_writer(path, "100", name) for name in "abc"]
    assert [writer.wait() for writer in writers] == [0, 0, 0]
    assert (verify(path).faults, verify(path).n_lines) == ((), 300)
    for name in "abc":
        assert [record["i"] for record in records(path) if record["writer"] == name] == list(range(100))


def test_killed_writers_leave_a_log_that_goes_on(tmp_path):
    """SIGKILL at any moment, several times; no fault, and no record that was told as written is lost."""
    path = tmp_path / "audit.jsonl"
    for i in range(5):
        writer = _writer(path, "for ever", str(i))
        while not path.exists() or not any(record.get("writer") == str(i) for record in records(path)):
            time.sleep(0.01)
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        assert verify(path).faults == ()
    AuditLog(path).append({"event": "after"})
    assert verify(path).faults == ()
    for i in range(5):
        mine = [record["i"] for record in records(path) if record.get("writer") == str(i)]
        assert mine == list(range(len(mine)))


def test_a_full_disk_leaves_no_part_of_a_record(log, monkeypatch):
    """The error names the file, and the log is whole."""
    real = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: real(descriptor, content[:10]))
    with pytest.raises(OSError, match=r"No space left on device.*audit\.jsonl"):
        AuditLog(log).append({"event": "too much"})
    monkeypatch.undo()
    assert (verify(log).faults, verify(log).torn, verify(log).n_lines) == ((), (), 5)


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"seq": 1}, "fields of a record must not be seq, time, previous, torn_before, got seq"),
        ({"x": object()}, "values of a record must be JSON"),
        ({"x": float("nan")}, "values of a record must be JSON"),
        ({"x": "y" * 70000}, "a record must take at most 65536 bytes, got 70"),
    ],
)
def test_wrong_records_are_refused(log, record, message):
    """And the log is as it was."""
    with pytest.raises(InvalidParameter, match=message):
        AuditLog(log).append(record)
    assert (verify(log).faults, verify(log).n_lines) == ((), 5)


def test_missing_logs_are_named(tmp_path):
    """By their name."""
    with pytest.raises(ServerError, match=r"an audit log must be a file, and nothing\.jsonl is missing"):
        verify(tmp_path / "nothing.jsonl")


@pytest.mark.parametrize("text", ["", "1", "x:" + "0" * 64, "1:" + "0" * 63, "1:" + "G" * 64])
def test_heads_have_one_form(text):
    """Number and hash."""
    with pytest.raises(InvalidParameter, match="a head must be SEQ:SHA256"):
        Head.parse(text)


def test_a_line_of_brackets_stops_neither_writers_nor_verification(tmp_path):
    """It is JSON that is nested too deeply to be read; whoever can write the file could else stop the log."""
    file = tmp_path / "audit.jsonl"
    log = AuditLog(file)
    log.append({"event": "one"})
    with file.open("ab") as stream:
        stream.write(b"[" * 50_000 + b"\n")
    log.append({"event": "two"})
    assert [each["event"] for each in records(file)] == ["one", "two"]
    assert any("is not a record" in fault for fault in verify(file).faults)


def test_a_log_that_is_rotated_away_is_told(tmp_path):
    """Between the rotation and the next record; who forwards records tries again in place of ending."""
    with pytest.raises(ServerError, match=r"audit log must be a file, and audit.jsonl is missing"):
        next(records(tmp_path / "audit.jsonl"))
