"""``radlens read-out``."""

import csv
import json
import re

import numpy as np
import pydicom
import pytest

from radlens.images import read, to_npy
from radlens.phantoms.cdmam import SCENARIOS, Layout, read_out, series, simulate, to_dicom

LAYOUT = Layout.with_margin(0, 0.4)


@pytest.fixture(scope="module")
def kept():
    """Hits by pixels: an image is searched once for all tests."""
    return {}


@pytest.fixture(autouse=True)
def _quick(kept, monkeypatch):
    def find_hits(pixels, spacing_mm, find=series.find_hits):
        key = (pixels.tobytes(), pixels.shape, spacing_mm)
        if key not in kept:
            kept[key] = find(pixels, spacing_mm)
        return kept[key]

    monkeypatch.setattr(series, "find_hits", find_hits)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen phantoms with pixels of 0.4 mm."""
    folder = tmp_path_factory.mktemp("series")
    for seed in range(16):
        (folder / f"phantom-{seed:02d}.dcm").write_bytes(to_dicom(simulate(SCENARIOS["1"], LAYOUT, seed=seed)))
    return folder


@pytest.fixture(scope="module")
def files(folder):
    """Their names."""
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def expected(files):
    """The read-out of the library, which knows where the phantoms lie."""
    return read_out([read(file.read_bytes()).pixels for file in files], layout=LAYOUT)


@pytest.mark.slow
def test_prints_hits_fit_and_verdict(run, files):
    """Matrix, psychometric fit, curve, and both limits."""
    result = run("read-out", *files)
    assert result.exit_code == 0, result.stderr
    assert "Hits in 16 images" in result.stdout
    lines = result.stdout.splitlines()
    (smallest,) = [line for line in lines if line.startswith(" 0.06")]
    assert len(smallest.split()) == 1 + 8
    assert sum(line.startswith("│") for line in lines) == 24
    assert re.search(r"│ 0\.08 │ +[0-9.]+ │ +[0-9.]+ │ +1\.40 │", result.stdout)
    assert "Acceptable limit: " in result.stdout
    assert "interval: bootstrap over images, 1000 resamples, seed 0" in result.stderr


@pytest.mark.slow
def test_json_holds_everything(run, files, expected):
    """The numbers are those of the library up to the registration of the phantom, a fraction of a pixel."""
    found = json.loads(run("read-out", *files, "--json").stdout)
    numbers = found["read_out"]
    hits = np.array([[np.nan if n is None else n for n in row] for row in numbers["hits"]["n"]])
    np.testing.assert_array_equal(np.isnan(hits), np.isnan(expected.hit_rates[0]))
    # A disk on the verge of being found may be found by one of the two alone.
    assert np.nanmean(np.abs(hits / 16 - expected.hit_rates[0])) < 0.03
    np.testing.assert_allclose(np.array(numbers["automated_um"]) * numbers["human_factors"], numbers["mean_um"])
    assert numbers["n_images"] == 16
    assert numbers["bootstrap"] == {"over": "images", "n_resamples": 1000, "seed": 0}
    lower, upper = np.array(numbers["interval_um"]).T
    assert np.all((lower <= numbers["mean_um"]) & (numbers["mean_um"] <= upper))
    assert [point["diameter_mm"] for point in found["verdict"]["diameters"]] == [1.0, 0.5, 0.25, 0.1]
    inputs = found["images"]
    assert [item["name"] for item in inputs] == [file.name for file in files]
    assert [item["sop_instance_uid"] for item in inputs] == [pydicom.dcmread(file).SOPInstanceUID for file in files]


@pytest.mark.slow
def test_writes_numbers_and_figures(run, files, tmp_path):
    """All four files, the numbers the same."""
    result = run("read-out", *files, "-o", "new/out")
    assert result.exit_code == 0, result.stderr
    folder = tmp_path / "new" / "out"
    assert {file.name for file in folder.iterdir()} == {"read-out.json", "read-out.csv", "hits.png", "cdc.png"}
    found = json.loads((folder / "read-out.json").read_text())["read_out"]
    with (folder / "read-out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert [float(row["threshold_um"]) for row in rows] == pytest.approx(found["mean_um"], rel=1e-5)
    assert [row["acceptable"] != "" for row in rows] == [d in (1.0, 0.5, 0.25, 0.1) for d in found["diameters_mm"]]
    for name in ("hits.png", "cdc.png"):
        assert (folder / name).read_bytes().startswith(b"\x89PNG")


def test_images_that_are_turned_read_the_same(run, files, tmp_path):
    """A quarter turn, a half turn, a mirror; the spacing is given where a file has none."""
    turned = []
    for turn, file in zip((np.rot90, np.fliplr, lambda pixels: np.rot90(pixels, 2)), files, strict=False):
        turned.append(tmp_path / f"{file.stem}.npy")
        turned[-1].write_bytes(to_npy(np.ascontiguousarray(turn(read(file.read_bytes()).pixels))))
    upright, found = (
        json.loads(run("read-out", *names, "--spacing", "0.4", "--json").stdout)["read_out"]
        for names in (files, [*turned, *files[3:]])
    )
    assert found["n_images"] == 16
    # Registration differs by a fraction of a pixel, so that a few of the three images' hits differ by one each.
    differences = [
        abs(a - b)
        for row, other in zip(upright["hits"]["n"], found["hits"]["n"], strict=True)
        for a, b in zip(row, other, strict=True)
        if a is not None
    ]
    assert np.mean(differences) < 3 * 0.1


def test_images_without_a_phantom_are_named_and_left_out(run, files, noise, tmp_path):
    """Noise, a text, a second copy; the others are read out."""
    (tmp_path / "junk.dcm").write_text("junk")
    (tmp_path / "copy.dcm").write_bytes(files[3].read_bytes())
    result = run("read-out", *files, noise, "junk.dcm", "copy.dcm", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["read_out"]["n_images"] == 16
    assert "noise.npy is left out: the file must state its pixel spacing, or --spacing must" in result.stderr
    assert "junk.dcm is left out: expected DICOM" in result.stderr
    assert "copy.dcm is left out: it has the same pixels as phantom-03.dcm" in result.stderr


def test_fewer_than_sixteen_are_an_error(run, files, noise):
    """Also where some of more are left out."""
    result = run("read-out", *files[:15], noise, "--spacing", "0.4")
    assert result.exit_code == 2
    assert "warning: noise.npy is left out: " in result.stderr
    assert result.stderr.splitlines()[-1] == "error: a read-out needs at least 16 images, got 15 usable of 16"
    assert result.stdout == ""


def test_images_of_another_setting_are_named(run, files, tmp_path):
    """One image has another tube voltage."""
    dataset = pydicom.dcmread(files[0])
    dataset.KVP = "31"
    dataset.save_as(tmp_path / "other.dcm")
    result = run("read-out", *files[1:], "other.dcm", "--json")
    voltage = pydicom.dcmread(files[1]).KVP
    assert f"images of one setting must not differ, got KVP {voltage}, 31" in result.stderr
    assert json.loads(result.stdout)["warnings"]


def test_images_are_stated_with_unit_and_time(run, files, tmp_path):
    """From their headers."""
    dataset = pydicom.dcmread(files[0])
    dataset.StationName, dataset.DeviceSerialNumber = "MG1", "4711"
    dataset.AcquisitionDate, dataset.AcquisitionTime = "20260102", "100030"
    dataset.save_as(tmp_path / "first.dcm")
    found = json.loads(run("read-out", "first.dcm", *files[1:], "--json").stdout)
    names = ("station_name", "device_serial_number", "acquired")
    assert [found["images"][0][name] for name in names] == ["MG1", "4711", "2026-01-02T10:00:30"]
    assert [found["images"][1][name] for name in names] == [None, None, None]
    assert found["provenance"]["time"].endswith("+00:00")


def test_a_read_out_can_be_added_to_a_history(run, files):
    """The file as it is written; a second time it is refused."""
    assert run("read-out", *files, "-o", "out").exit_code == 0
    added = run("history", "add", "unit.csv", "out/read-out.json")
    assert added.exit_code == 0, added.stderr
    assert "16" in run("history", "show", "unit.csv").stdout
    assert run("history", "add", "unit.csv", "out/read-out.json").exit_code == 2
