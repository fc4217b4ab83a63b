"""What a report states of an exposure: the right unit, and no patient."""

import pytest
from pydicom import Dataset
from pydicom.dataelem import DataElement

from radlens.images.dicom import quiet_pydicom
from radlens.images.exposure import EXPOSURE, exposure


def header(**values):
    """A header with some attributes."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


@pytest.mark.parametrize(
    ("values", "name", "text"),
    [
        ({"InstitutionName": " St. Anna "}, "Institution", "St. Anna"),
        ({"AnodeTargetMaterial": "TUNGSTEN", "FilterMaterial": "RHODIUM"}, "Target / filter", "Tungsten / Rhodium"),
        ({"AnodeTargetMaterial": "TUNGSTEN"}, "Target / filter", "Tungsten / not stated"),
        ({"KVP": "28"}, "Tube voltage", "28 kV"),
        ({"ExposureInuAs": "115400", "Exposure": "115"}, "Tube load", "115.4 mAs"),
        ({"Exposure": "115"}, "Tube load", "115 mAs"),
        ({"BodyPartThickness": "60"}, "Compressed thickness", "60 mm"),
        ({"EntranceDoseInmGy": "5.31", "EntranceDose": 7}, "Entrance dose", "5.31 mGy"),
        ({"EntranceDose": 1}, "Entrance dose", "100 mGy"),
        ({"OrganDose": "0.0147"}, "Organ dose", "1.47 mGy"),
        ({"SoftwareVersions": ["1.0", "AWS 3"]}, "Software", "1.0, AWS 3"),
        ({"AcquisitionDate": "20260105", "AcquisitionTime": "0830"}, "Acquired", "2026-01-05 08:30:00"),
        ({"PresentationIntentType": "FOR PROCESSING"}, "Raw or processed", "raw (for processing)"),
        ({"PresentationIntentType": "FOR PRESENTATION"}, "Raw or processed", "processed (for presentation)"),
        ({"PixelSpacing": ["0.07", "0.07"]}, "Pixel spacing", "0.07 mm"),
        ({"ImagerPixelSpacing": ["0.07", "0.08"]}, "Pixel spacing", "0.07 × 0.08 mm at the detector"),
        (
            {"ImagerPixelSpacing": ["0.07", "0.07"], "EstimatedRadiographicMagnificationFactor": "1.02"},
            "Pixel spacing",
            "0.06863 mm at the object (0.07 mm at the detector, magnification 1.02)",
        ),
        (
            {"PixelIntensityRelationship": "LOG", "PixelIntensityRelationshipSign": -1},
            "Stored values",
            "logarithmic in the X-ray intensity, higher where fewer X-rays arrive",
        ),
        ({"PixelIntensityRelationship": "LIN"}, "Stored values", "linear in the X-ray intensity"),
        ({"DetectorID": "D-7"}, "Detector", "D-7"),
    ],
)
def test_attributes_are_read_with_their_units(values, name, text):
    """Dose comes in mGy, whatever attribute states it: Organ Dose is in dGy."""
    assert exposure(header(**values))[name] == text


def test_an_empty_header_and_a_file_without_header_state_nothing():
    """Every name is there, without a value."""
    assert exposure(None) == exposure(Dataset()) == dict.fromkeys(EXPOSURE)


def test_no_patient_is_stated():
    """Neither the name nor the identifier of a patient reaches the report."""
    values = header(PatientName="Doe^Jane", PatientID="4711", PatientBirthDate="19700101", KVP="28")
    assert not any("Doe" in text or "4711" in text or "1970" in text for text in exposure(values).values() if text)


def test_damaged_values_are_left_out():
    """Texts in place of numbers; control characters, and what is longer than the standard allows."""
    dataset = Dataset()
    dataset.add(DataElement(0x00180060, "LO", "many"))
    dataset.add(DataElement(0x00181164, "LO", "wide\\narrow"))
    with quiet_pydicom():
        dataset.InstitutionName = "A\x07B" + "C" * 100
    found = exposure(dataset)
    assert found["Tube voltage"] is None
    assert found["Pixel spacing"] is None
    assert found["Institution"] == "AB" + "C" * 62
