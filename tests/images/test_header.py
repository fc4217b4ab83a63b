"""Attributes of DICOM headers, whatever stands in them."""

import logging

import numpy as np
import pytest
from dicom_files import SECRET, dicom_bytes
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset

from radlens.images import read
from radlens.images.header import acquired, setting, unit

PIXELS = np.zeros((8, 8), np.uint16)


def header(**attributes):
    """Return the header of a file as an image brings it."""
    return read(dicom_bytes(PIXELS, **attributes)).dataset


@pytest.mark.parametrize(
    ("attributes", "expected"),
    [
        ({"AcquisitionDateTime": "20260102030405.5"}, "2026-01-02T03:04:05.500000"),
        ({"AcquisitionDateTime": "20260102030405-0130"}, "2026-01-02T03:04:05-01:30"),
        ({"AcquisitionDateTime": "2026", "ContentDate": "20260203"}, "2026-02-03T00:00:00"),
        ({"AcquisitionDate": "20260102", "AcquisitionTime": "030405.123"}, "2026-01-02T03:04:05.123000"),
        ({"AcquisitionDate": "20260102", "ContentDate": "20260203"}, "2026-01-02T00:00:00"),
        ({"AcquisitionTime": "030405", "ContentDate": "20260203", "ContentTime": "0607"}, "2026-02-03T06:07:00"),
        ({"AcquisitionDate": "20261399", "ContentDate": "20260203"}, "2026-02-03T00:00:00"),
        ({"AcquisitionDate": "20260102", "AcquisitionTime": "noon"}, None),
        ({"AcquisitionDate": "", "ContentDate": ""}, None),
        ({}, None),
    ],
)
def test_when_an_image_was_acquired(attributes, expected):
    """Acquisition comes before content; what is no date is passed over."""
    assert acquired(header(**attributes)) == expected


def test_the_unit_is_station_and_serial_number():
    """Blanks around them are stripped, an empty one is unknown."""
    found = unit(header(StationName=" MG1 ", DeviceSerialNumber=""))
    assert found == {"station_name": "MG1", "device_serial_number": None}


def test_a_setting_is_what_images_share():
    """By keyword, as text."""
    found = setting(header(KVP="28", FilterMaterial="RHODIUM"))
    assert (found["KVP"], found["FilterMaterial"], found["AnodeTargetMaterial"]) == ("28", "RHODIUM", None)


def test_other_formats_have_no_header():
    """PNG and NumPy files state nothing."""
    assert acquired(None) is None
    assert set(unit(None).values()) | set(setting(None).values()) == {None}


def test_values_are_printable_and_short():
    """They end in tables and file formats."""
    found = unit(header(StationName="a\x1b[31m\n" + "b" * 99))["station_name"]
    assert found == "a[31m" + "b" * 59


@given(st.text(max_size=30))
def test_any_text_is_survived(text):
    """A date is ISO 8601 or None; nothing is raised."""
    dataset = Dataset()
    dataset.add_new("AcquisitionDateTime", "LT", text)
    dataset.add_new("StationName", "LT", text)
    assert isinstance(acquired(dataset), str | None)
    assert isinstance(unit(dataset)["station_name"], str | None)


def test_a_value_that_cannot_be_decoded_is_unknown(caplog):
    """Damaged bytes give None, and no value reaches the log."""

    class Damaged(Dataset):
        def get(self, key, default=None):
            raise ValueError(SECRET)

    with caplog.at_level(logging.DEBUG):
        assert acquired(Damaged()) is None
    assert SECRET not in caplog.text
