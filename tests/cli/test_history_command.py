"""``radlens history add`` and ``show``."""

import csv
import io
import json
import os
import stat

import pydicom
import pytest
from results import prediction, read_out

from radlens.evaluation.history import parse_history
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom


@pytest.fixture
def write(tmp_path):
    """Write a result and return its name."""

    def write(name, result):
        (tmp_path / name).write_text(json.dumps(result))
        return name

    return write


@pytest.fixture
def unit(run, write):
    """A history of six curves, the last of which is worse."""
    names = [write(f"p{i}.json", prediction(i, 1.2 if i == 6 else 1.0)) for i in range(1, 7)]
    result = run("history", "add", "unit.csv", *names)
    assert result.exit_code == 0, result.stderr
    assert result.stderr == "added 6 to unit.csv; curves in it: 6\n"
    return "unit.csv"


def curves(tmp_path):
    """Return the curves of the history."""
    return parse_history((tmp_path / "unit.csv").read_bytes().decode())


def test_results_are_added(run, unit, write, tmp_path):
    """Predictions and read-outs, in the order of time."""
    result = run("history", "add", unit, write("r.json", read_out()))
    assert result.stderr == "added 1 to unit.csv; curves in it: 7\n"
    assert sorted(record.model for record in curves(tmp_path)) == ["cdmam"] * 6 + ["read-out"]


def test_what_predict_writes_can_be_added(run, bundle, tmp_path):
    """The answer of the service as it is, with the unit and the day of its image."""
    image = simulate(SCENARIOS["1"], Layout.with_margin(0, 0.1))
    dataset = pydicom.dcmread(io.BytesIO(to_dicom(image)))
    dataset.StationName, dataset.AcquisitionDate = "MG2", "20260708"
    dataset.save_as(tmp_path / "phantom.dcm")
    assert run("predict", "phantom.dcm", "--bundle", bundle.path, "-o", "prediction.json").exit_code == 0
    added = run("history", "add", "unit.csv", "prediction.json")
    assert added.exit_code == 0, added.stderr
    (record,) = curves(tmp_path)
    answer = json.loads((tmp_path / "prediction.json").read_text())
    assert record.mean_um.tolist() == answer["prediction"]["mean_um"]
    assert record.images == (dataset.SOPInstanceUID,)
    assert (record.station_name, f"{record.time:%Y-%m-%d}", record.time_of) == ("MG2", "2026-07-08", "acquisition")
    assert (record.model, record.bundle_hash) == ("cdmam", bundle.bundle_hash)


@pytest.mark.parametrize(
    ("result", "message"),
    [
        (prediction(3), "new.json: an image counts once, got one that is already in the history: 1.2.3.3"),
        (
            prediction(9, device_serial_number="1"),
            "new.json: the history is of the unit with serial number 4711, got a result of serial number 1",
        ),
        (
            prediction(9) | {"assessable": False, "reasons": ["no phantom"]},
            "new.json: a result must be assessable, got one that is not: no phantom",
        ),
    ],
)
def test_refused_results_leave_the_history_as_it_is(run, unit, write, tmp_path, result, message):
    """One refused result refuses those that come with it."""
    before = (tmp_path / unit).read_bytes()
    refused = run("history", "add", unit, write("good.json", prediction(8)), write("new.json", result))
    assert refused.exit_code == 2
    assert refused.stderr == f"error: {message}\n"
    assert (tmp_path / unit).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_an_image_can_be_added_again(run, unit, write, tmp_path):
    """If it is asked for."""
    assert run("history", "add", unit, write("p.json", prediction(3)), "--again").exit_code == 0
    assert len(curves(tmp_path)) == 7


def test_one_image_twice_in_one_call_is_refused(run, write):
    """The first is in the history when the second comes; nothing is written."""
    result = run("history", "add", "new.csv", write("a.json", prediction(1)), write("b.json", prediction(1)))
    assert result.exit_code == 2
    assert "b.json: an image counts once" in result.stderr
    assert run("history", "show", "new.csv").exit_code == 2


def test_unknown_units_and_times_are_said(run, write):
    """They are added with a warning."""
    unknown = dict.fromkeys(("acquired", "station_name", "device_serial_number"))
    result = run("history", "add", "unit.csv", write("p.json", prediction(1, **unknown)))
    assert result.exit_code == 0
    assert "warning: p.json does not state its unit" in result.stderr
    assert "warning: p.json does not state when its image was acquired" in result.stderr


def test_a_file_that_is_not_json_is_refused(run, tmp_path):
    """In one line."""
    (tmp_path / "p.json").write_bytes(b"\xff\xfe{")
    result = run("history", "add", "unit.csv", "p.json")
    assert (result.exit_code, result.stderr) == (2, "error: p.json: a result must be JSON, got another file\n")
    assert not (tmp_path / "unit.csv").exists()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a,b\n", "error: unit.csv: a history must begin with the 46 columns of radlens, got a, b\n"),
        (b"\xff\xfea", "error: unit.csv: a history must be text in UTF-8, got another file\n"),
    ],
)
def test_a_damaged_history_is_left_alone(run, write, tmp_path, content, message):
    """Neither shown nor written over."""
    (tmp_path / "unit.csv").write_bytes(content)
    for command in (("add", "unit.csv", write("p.json", prediction(1))), ("show", "unit.csv")):
        result = run("history", *command)
        assert (result.exit_code, result.stderr) == (2, message)
    assert (tmp_path / "unit.csv").read_bytes() == content


def test_writing_is_atomic(run, unit, write, tmp_path, monkeypatch):
    """A write that fails half way leaves the old file and no other."""

    def fail(descriptor):
        raise OSError(28, "No space left on device", "unit.csv")

    before = (tmp_path / unit).read_bytes()
    monkeypatch.setattr(os, "fsync", fail)
    result = run("history", "add", unit, write("p.json", prediction(9)))
    assert (result.exit_code, result.stderr) == (1, "error: unit.csv: No space left on device\n")
    assert (tmp_path / unit).read_bytes() == before
    assert not list(tmp_path.glob(".*"))


def test_links_and_permissions_are_kept(run, unit, write, tmp_path):
    """The file behind a link is replaced, not the link."""
    (tmp_path / "link.csv").symlink_to(tmp_path / unit)
    (tmp_path / unit).chmod(0o640)
    assert run("history", "add", "link.csv", write("p.json", prediction(9))).exit_code == 0
    assert (tmp_path / "link.csv").is_symlink()
    assert stat.S_IMODE((tmp_path / unit).stat().st_mode) == 0o640
    assert len(curves(tmp_path)) == 7


def test_a_table_of_a_spreadsheet_is_read(run, unit, tmp_path):
    """With a byte order mark and capital letters."""
    text = (tmp_path / unit).read_bytes().decode().replace(",true,", ",TRUE,")
    (tmp_path / unit).write_bytes(b"\xef\xbb\xbf" + text.encode())
    assert run("history", "show", unit).exit_code == 0


def test_show_compares_with_the_baseline(run, unit):
    """The sixth curve is 1.2 times the others, whose interval reaches to 1.1."""
    result = run("history", "show", unit)
    assert result.exit_code == 0, result.stderr
    assert "MG1, serial number 4711" in result.stdout
    lines = [line for line in result.stdout.splitlines() if line.startswith("│ 2026")]
    assert [line.count("!") for line in lines] == [0, 0, 0, 0, 0, 4]
    assert "1 of 6 curves lie outside the baseline's interval" in result.stdout


def test_show_writes_table_and_figure(run, unit, tmp_path):
    """Four rows a curve; baseline and limits beside each threshold."""
    result = run("history", "show", unit, "-o", "new/out", "--baseline", "first")
    assert result.exit_code == 0, result.stderr
    with (tmp_path / "new" / "out" / "constancy.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 24
    last = rows[-2]
    assert (last["diameter_mm"], last["threshold_um"], last["baseline_um"]) == ("0.25", "0.3", "0.25")
    assert (last["baseline_lower_um"], last["baseline_upper_um"]) == ("0.225", "0.275")
    assert (last["is_outside"], last["acceptable_um"], last["achievable_um"]) == ("true", "0.352", "0.244")
    assert (tmp_path / "new" / "out" / "constancy.png").read_bytes().startswith(b"\x89PNG")


def test_show_says_what_spoils_a_comparison(run, unit, write):
    """Too few curves for the baseline, and several sources."""
    run("history", "add", unit, write("r.json", read_out()))
    result = run("history", "show", unit, "--baseline", "9")
    assert (
        "warning: the baseline is the mean of 7 curves instead of 9, because the history has no more" in result.stderr
    )
    assert "warning: curves of several models or read-outs are compared: cdmam 2.0" in result.stderr


@pytest.mark.parametrize("text", ["0", "-1", "1.5", "last", "²", "99999999999"])
def test_other_baselines_are_refused(run, unit, text):
    """A number of curves, or first."""
    result = run("history", "show", unit, f"--baseline={text}")
    assert result.exit_code == 2
    assert result.stderr == f"error: --baseline must be a number of curves of at least 1, or first, got {text!r}\n"


def test_the_history_is_not_written_over(run, unit, tmp_path):
    """Where it has the name of a result of the command."""
    (tmp_path / unit).rename(tmp_path / "constancy.csv")
    before = (tmp_path / "constancy.csv").read_bytes()
    result = run("history", "show", "constancy.csv", "-o", ".")
    assert result.exit_code == 2
    assert "error: --output must be a folder whose constancy.csv is not the history itself" in result.stderr
    assert (tmp_path / "constancy.csv").read_bytes() == before


def test_an_empty_history_has_no_baseline(run, unit, tmp_path):
    """Columns without a curve."""
    (tmp_path / unit).write_text((tmp_path / unit).read_text().splitlines()[0] + "\n")
    result = run("history", "show", unit)
    assert (result.exit_code, result.stderr) == (2, "error: unit.csv must hold at least one curve, got none\n")
