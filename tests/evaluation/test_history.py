"""Histories: records of results, the table, and the baseline."""

import csv
import io
from dataclasses import fields, replace
from datetime import UTC, datetime

import numpy as np
import pytest
from results import CURVE_UM, curve_fields, image_stated, prediction, read_out

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.history import (
    COLUMNS,
    READ_OUT,
    added,
    baseline,
    history_text,
    parse_history,
    record_of,
)


def history(*scales):
    """One curve a day, each a multiple of the first."""
    return [record_of(prediction(i, scale)) for i, scale in enumerate(scales, start=1)]


def same(first, second):
    """Whether two records agree in every field."""
    return all(np.array_equal(getattr(first, f.name), getattr(second, f.name)) for f in fields(first))


def test_the_record_of_a_prediction():
    """Time and unit are those of the image, the rest is the model's."""
    record = record_of(prediction(7))
    assert (record.time, record.time_of) == (datetime(2026, 1, 7, 8, 30), "acquisition")
    assert (record.station_name, record.device_serial_number) == ("MG1", "4711")
    assert record.images == ("1.2.3.7",)
    assert (record.model, record.version, record.bundle_hash) == ("cdmam", "2.0", "ab" * 32)
    np.testing.assert_array_equal(record.mean_um, CURVE_UM)
    np.testing.assert_allclose(record.interval_um, np.stack([0.9 * CURVE_UM, 1.1 * CURVE_UM], axis=-1))


def test_what_an_image_does_not_state():
    """Without a header the hash and the time of the result stand in."""
    unknown = dict.fromkeys(("acquired", "station_name", "device_serial_number", "sop_instance_uid"))
    record = record_of(prediction(7, **unknown))
    assert (record.time, record.time_of) == (datetime(2026, 3, 4, 5, 6, 7, tzinfo=UTC), "result")
    assert (record.station_name, record.device_serial_number, record.images) == ("", "", (f"{7:064x}",))


def test_results_of_earlier_versions_are_records():
    """Their provenance says nothing of unit and acquisition, and they do not say that they are assessable."""
    result = prediction()
    del result["assessable"], result["reasons"]
    result["provenance"]["input"] = {"sha256": "f" * 64, "sop_instance_uid": None}
    assert record_of(result).images == ("f" * 64,)


def test_the_record_of_a_read_out():
    """Of all its images."""
    record = record_of(read_out(n_images=17))
    assert (record.model, record.version, record.bundle_hash) == (READ_OUT, "0.1.0", "")
    assert len(record.images) == 17
    assert record.time_of == "acquisition"


def test_only_images_that_count_are_recorded():
    """A prediction of several images names its outliers; the first acquisition is the time."""
    images = [image_stated(n) | {"counts": n != 3} for n in (5, 3, 4)]
    record = record_of(prediction() | {"images": images})
    assert record.images == ("1.2.3.5", "1.2.3.4")
    assert record.time.day == 4


@pytest.mark.parametrize(
    ("result", "message"),
    [
        ([], "a result must come from `radlens predict` or `radlens read-out`, got another document"),
        ({"explanation": {}}, "a result must come from `radlens predict`"),
        (prediction() | {"prediction": {"classes": ["a"]}}, "a result must hold a contrast-detail curve, got one"),
        (
            prediction() | {"assessable": False, "reasons": ["no phantom was found", "it is clipped"]},
            "a result must be assessable, got one that is not: no phantom was found; it is clipped",
        ),
        (prediction() | {"assessable": "no"}, "got one that is not: no reason is given"),
        (prediction(scale=-1.0), "thresholds must be finite, positive and inside their intervals"),
        (prediction(scale=np.nan), "thresholds must be finite, positive and inside their intervals"),
        (prediction() | {"provenance": {}}, r"a result must be complete, got one that is damaged \(KeyError\)"),
        (prediction(acquired="yesterday"), r"got one that is damaged \(ValueError\)"),
        (prediction() | {"images": [1]}, r"got one that is damaged \(AttributeError\)"),
        (prediction() | {"images": [image_stated(1) | {"counts": False}]}, "images must be at least one identifier"),
        (prediction(sop_instance_uid="1 2"), r"images must be at least one identifier without spaces, got \('1 2',\)"),
        (prediction() | {"prediction": curve_fields(1.0) | {"diameters_mm": [1.0]}}, "must have the 12 diameters"),
        (prediction() | {"prediction": curve_fields(1.0) | {"mean_um": [1.0]}}, r"must have shapes \(12,\) and"),
        (
            prediction() | {"images": [image_stated(1), image_stated(2, station_name="MG2")]},
            "the images of a result must be of one unit, got station MG1, MG2",
        ),
    ],
)
def test_other_documents_are_refused(result, message):
    """What cannot be judged, and what is no curve."""
    with pytest.raises(InvalidInput, match=message):
        record_of(result)


def test_a_history_is_read_as_it_was_written():
    """To the last bit, quotes and line ends inside a name included."""
    written = [*history(1.0, 1 / 3), record_of(read_out())]
    written[1] = replace(written[1], station_name='MG "1",\r\nroom 2', model="m\rn")
    read = parse_history(history_text(written))
    assert len(read) == 3
    assert all(same(*pair) for pair in zip(sorted(written, key=lambda record: record.moment), read, strict=True))


def test_the_table_is_csv_with_named_columns():
    """One row a curve; thresholds stand under their diameters."""
    (row,) = csv.DictReader(io.StringIO(history_text(history(1.0)), newline=""))
    assert (row["time"], row["n_images"], row["assessable"]) == ("2026-01-01T08:30:00", "1", "true")
    assert [float(row[f"{part}_0.25_um"]) for part in ("threshold", "lower", "upper")] == [0.25, 0.225, 0.275]


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda text: "", "a history must begin with the 46 columns of radlens, got no line"),
        (lambda text: text.replace("station_name", "station"), "a history must begin with the 46 columns of radlens"),
        (lambda text: text[:-40], "line 3 of the history must have 46 columns, got 4"),
        (lambda text: text.replace("0.25,", "a,", 1), "line 2 of the history must be a curve, got one that is damaged"),
        (lambda text: text.replace("0.25,", "-0.25,", 1), "positive and inside their intervals, got -0.25 in "),
        (lambda text: text.replace("0.25,", "nan,", 1), "damaged: thresholds must be finite, positive and inside"),
        (lambda text: text.replace("T08:30", "T48:30", 1), "line 2 of the history must be a curve"),
        (lambda text: text.replace(",true,", ",false,", 1), "line 2 of the history must be a curve"),
        (lambda text: text.replace(",1,cdmam", ",2,cdmam", 1), "line 2 of the history must be a curve"),
        (lambda text: text.replace("acquisition", "x", 1), "line 2 of the history must be a curve"),
        (lambda text: text + '"', "line 4 of the history must be CSV, got unexpected end of data"),
    ],
)
def test_a_damaged_history_is_refused(damage, message):
    """The message names the line."""
    with pytest.raises(InvalidInput, match=message):
        parse_history(damage(history_text(history(1.0, 1.1))))


def test_curves_are_kept_in_the_order_of_time():
    """Whatever the order in which they are added; a time without a zone counts as UTC."""
    late, early = history(1.0, 1.0)[::-1]
    between = replace(early, images=("x",), time=datetime(2026, 1, 1, 9, 30, tzinfo=UTC))
    found = added(added(added([], late), early), between)
    assert [record.images for record in found] == [early.images, ("x",), late.images]
    assert [record.images for record in parse_history(history_text(found[::-1]))] == [r.images for r in found]


def test_an_image_counts_once():
    """One image of several is enough; it can be asked for."""
    known = added([], record_of(read_out(1)))
    with pytest.raises(InvalidInput, match=r"got one that is already in the history: 1\.2\.4\.16"):
        added(known, record_of(read_out(16)))
    assert len(added(known, record_of(read_out(16)), again=True)) == 2
    assert len(added(known, record_of(read_out(17)))) == 2


def test_a_history_is_of_one_unit():
    """Station and serial number, where both are known."""
    known = [record_of(prediction(1, station_name=None)), record_of(prediction(2))]
    with pytest.raises(InvalidInput, match="the unit with station MG1, got a result of station MG2"):
        added(known, record_of(prediction(3, station_name="MG2")))
    with pytest.raises(InvalidInput, match="the unit with serial number 4711, got a result of serial number 4712"):
        added(known, record_of(prediction(3, device_serial_number="4712")))
    unknown = record_of(prediction(3, station_name=None, device_serial_number=None))
    assert len(added(known, unknown)) == 3


def test_the_baseline_by_hand():
    """The mean of factors 1.0, 1.2 and 1.7 is 1.3, that of their ends 0.9 and 1.1 times as much."""
    found = baseline(history(1.0, 1.2, 1.7, 9.0), 3)
    assert found.n_curves == 3
    np.testing.assert_allclose(found.mean_um, 1.3 * CURVE_UM)
    np.testing.assert_allclose(found.interval_um, np.stack([1.17 * CURVE_UM, 1.43 * CURVE_UM], axis=-1))


def test_a_short_history_is_its_own_baseline():
    """Five curves are the default, fewer are taken as they are."""
    assert baseline(history(1.0, 2.0)).n_curves == 2
    assert baseline(history(*np.linspace(1, 2, 9))).n_curves == 5


def test_curves_outside_the_baseline():
    """Ends belong to the interval, on either side."""
    found = baseline(history(1.0), 1)
    for scale, is_outside in ((1.0, False), (1.09, False), (1.11, True), (0.91, False), (0.89, True)):
        assert found.outside(*history(scale)).tolist() == [is_outside] * 12
    assert not found.outside(replace(history(1.0)[0], mean_um=found.interval_um[:, 1])).any()


def test_no_baseline():
    """Of no curve."""
    with pytest.raises(InvalidParameter, match="baseline must be at least 1 curve, got 0"):
        baseline(history(1.0), 0)
    with pytest.raises(InvalidInput, match="a history must hold at least one curve, got none"):
        baseline([], 1)


def test_the_columns_are_named_once():
    """Ten of the curve and three for each of 12 diameters."""
    assert len(set(COLUMNS)) == len(COLUMNS) == 46
