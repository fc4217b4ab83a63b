"""What all objects share: patient, study, references, equipment, character set and UIDs."""

import io
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import numpy as np
import pydicom
import pydicom.data
import pytest
from dicom_files import dicom_bytes
from map_findings import PROVENANCE, map_findings, some_map

from radlens.dicom import Values, possible, write
from radlens.dicom.source import COPIED
from radlens.errors import InvalidParameter, NotAssessable
from radlens.images import read, to_npy, to_png
from radlens.wire import OBJECTS

GREY = np.random.default_rng(1).integers(0, 4096, (30, 20)).astype(np.uint16)


def objects(found):
    """Return every object of an answer, parsed, by name."""
    names = list(possible(found))
    return {name: pydicom.dcmread(io.BytesIO(each)) for name, each in zip(names, write(found, names), strict=True)}


def uids(found):
    """Return the SOP Instance UIDs of all objects by name."""
    return {name: each.SOPInstanceUID for name, each in objects(found).items()}


def test_each_is_of_its_class_and_in_a_series_of_its_own():
    """Five objects, five series, one study; the description says what is in it."""
    made = objects(map_findings(read(dicom_bytes(GREY))))
    assert list(made) == list(OBJECTS)
    classes = [each.SOPClassUID.name for each in made.values()]
    assert classes == [
        "Secondary Capture Image Storage",
        "Comprehensive 3D SR Storage",
        "Parametric Map Storage",
        "Segmentation Storage",
        "Grayscale Softcopy Presentation State Storage",
    ]
    assert [each.Modality for each in made.values()] == ["OT", "SR", "OT", "SEG", "PR"]
    assert len({each.SeriesInstanceUID for each in made.values()}) == 5
    assert {each.StudyInstanceUID for each in made.values()} == {"1.2.826.0.1.3680043.8.498.2"}
    assert len({each.SeriesDescription for each in made.values()}) == 5
    assert all(each.SeriesDescription.startswith("radlens Saliency (") for each in made.values())


def test_the_same_answer_has_the_same_uids():
    """A repeat replaces the objects in the PACS; engine, time and request do not count."""
    source = dicom_bytes(GREY)
    first = uids(map_findings(read(source)))
    later = PROVENANCE | {"engine": "openvino", "time": "2027-01-01T00:00:00+00:00", "request_id": "another"}
    assert uids(map_findings(read(source), provenance=later)) == first
    assert all(uid.is_valid and len(uid) <= 64 for uid in first.values())


@pytest.mark.parametrize(
    "changes",
    [
        {"settings": {"method": "saliency", "parameters": {"absolute": False}, "output": "map"}},
        {"settings": {"method": "cam", "output": "map"}},
        {"provenance": PROVENANCE | {"bundle_hash": "cd34"}},
        {"provenance": PROVENANCE | {"version": "1.1"}},
        {"kind": "prediction"},
    ],
    ids=["parameter", "method", "bundle", "version", "kind"],
)
def test_another_answer_has_other_uids(changes):
    """Of every object."""
    source = read(dicom_bytes(GREY))
    first, other = uids(map_findings(source)), uids(map_findings(source, **changes))
    assert not set(first.values()) & set(other.values())


def test_another_image_has_other_uids():
    """One pixel more."""
    first, other = (
        uids(map_findings(read(dicom_bytes(each)))) for each in (GREY, GREY ^ np.eye(30, 20, dtype=np.uint16))
    )
    assert not set(first.values()) & set(other.values())


def test_another_output_changes_what_shows_it():
    """Capture and map; report, segmentation and marks are of the same map."""
    source = read(dicom_bytes(GREY))
    shown = some_map((30, 20), 5)
    settings = {"method": "saliency", "parameters": {"absolute": True}, "output": "inpainted"}
    whole = map_findings(source)
    first, other = uids(whole), uids(replace(whole, settings=settings, values=Values(shown, "inpainted", "1")))
    assert {name for name in first if first[name] != other[name]} == {"capture", "map"}


def test_the_device_changes_with_the_bundle_and_only_with_it():
    """IHE AI Results: every retraining is another device."""
    source = read(dicom_bytes(GREY))

    def devices(value):
        made = objects(map_findings(source, provenance=PROVENANCE | {"bundle_hash": value}))
        (uid,) = {each.ContributingEquipmentSequence[0].DeviceUID for each in made.values()}
        return uid

    assert devices("ab12") == devices("ab12") != devices("cd34")
    assert devices("ab12").is_valid


def with_pixels(path):
    """Return a file of pydicom's with the pixels of these tests, and its header."""
    source = pydicom.dcmread(path)
    if "PatientName" not in source:
        source.PatientName = source[0x00321064].value[0].get("PatientName", "")
    for element in pydicom.dcmread(io.BytesIO(dicom_bytes(GREY))):
        if element.tag.group in (0x0028, 0x7FE0):
            source[element.tag] = element
    source.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    stream = io.BytesIO()
    source.save_as(stream, implicit_vr=False, little_endian=True, enforce_file_format=True)
    return stream.getvalue()


@pytest.mark.parametrize(
    "path", sorted(Path(pydicom.data.__path__[0], "charset_files").glob("*.dcm")), ids=lambda p: p.stem
)
def test_names_in_every_character_set_survive(path):
    """What identifies patient and study, in 17 files of pydicom's; in UTF-8, so nothing becomes a question mark."""
    data = with_pixels(path)
    # Where only a sequence has a name, `with_pixels` put it into the header.
    source = pydicom.dcmread(path if "PatientName" in pydicom.dcmread(path) else io.BytesIO(data))
    for result in objects(map_findings(read(data))).values():
        assert result.SpecificCharacterSet == "ISO_IR 192"
        copied = [keyword for keyword in COPIED if keyword in source and keyword != "StudyInstanceUID"]
        assert copied
        assert [str(result[each].value) for each in copied] == [str(source[each].value) for each in copied]


def test_sequences_that_identify_a_patient_are_copied_with_their_text():
    """Their items may have a character set of their own, which is not that of the result."""
    other = pydicom.Dataset()
    other.SpecificCharacterSet = "ISO_IR 144"
    other.PatientID, other.IssuerOfPatientID, other.TypeOfPatientID = "7", "Люкc", "TEXT"
    source = read(dicom_bytes(GREY, OtherPatientIDsSequence=[other], PatientName="Müller^Bärbel"))
    for result in objects(map_findings(source)).values():
        assert str(result.PatientName) == "Müller^Bärbel"
        (item,) = result.OtherPatientIDsSequence
        assert (item.PatientID, item.IssuerOfPatientID, item.TypeOfPatientID) == ("7", "Люкc", "TEXT")
        assert "SpecificCharacterSet" not in item


def test_odd_values_of_the_source_are_copied_in_silence():
    """A study is not refused its result because of a sex that the standard does not define."""
    data = dicom_bytes(GREY, PatientSex="unknown to us", StudyDate="today", PatientName="no caret")
    for result in objects(map_findings(read(data))).values():
        with pydicom.config.disable_value_validation():
            assert (result.PatientSex, result.get_item("StudyDate").value) == ("unknown to us", b"today ")


def test_missing_values_of_the_patient_stay_missing():
    """A DICOM file without a patient's name does not get one; attributes that must be there are empty."""
    for result in objects(map_findings(read(dicom_bytes(GREY, PatientName=None, PatientID=None)))).values():
        assert (str(result.PatientName), result.PatientID, result.PatientBirthDate) == ("", "", "")


@pytest.mark.parametrize(
    ("data", "names"),
    [
        (to_png(GREY), ("capture", "report", "map")),
        (to_npy(GREY), ("capture", "report", "map")),
        (dicom_bytes(GREY, SeriesInstanceUID=None), ("capture", "report", "map")),
        (dicom_bytes(GREY, StudyInstanceUID=None), OBJECTS),
        (dicom_bytes(GREY, SOPInstanceUID="nonsense"), ("capture", "report", "map")),
    ],
    ids=["png", "npy", "no series", "no study", "no instance"],
)
def test_an_image_without_uids_gives_what_needs_none(data, names):
    """A segmentation and a presentation state must refer to their image; all results lie in one study."""
    made = objects(map_findings(read(data)))
    assert tuple(made) == tuple(names)
    assert len({each.StudyInstanceUID for each in made.values()}) == 1
    assert next(iter(made.values())).StudyInstanceUID.is_valid


def test_what_an_answer_does_not_have_is_named():
    """Objects that need a map are left out unless nothing would remain."""
    source = read(dicom_bytes(GREY))
    whole = map_findings(source)
    silent = replace(whole, values=None, evidence=None)
    assert list(possible(silent)) == ["capture", "report"]
    assert len(write(silent, ["report", "map"])) == 1
    with pytest.raises(InvalidParameter, match="objects of this answer are capture, report, got map"):
        write(silent, ["map"])
    unknown = replace(silent, assessable=False, reasons=("it is a cat",))
    with pytest.raises(NotAssessable, match="not assessable: it is a cat; there is capture, report, got map"):
        write(unknown, ["map"])
    withheld = replace(silent, withheld="The map marks no disks.")
    with pytest.raises(NotAssessable, match=r"The map marks no disks\. There is capture, report, got segmentation"):
        write(withheld, ["segmentation"])


@pytest.mark.parametrize(("offset", "date", "time"), [("+0200", "20260304", "070607"), ("-0630", "20260303", "223607")])
def test_times_are_those_of_the_time_zone_that_the_study_states(offset, date, time):
    """The offset is copied from the source, and all dates and times of an object count by it."""
    source = read(dicom_bytes(GREY, TimezoneOffsetFromUTC=offset, StudyTime="010203"))
    for name, made in objects(map_findings(source)).items():
        assert (made.TimezoneOffsetFromUTC, made.StudyTime) == (offset, "010203")
        assert (made.SeriesDate, made.SeriesTime[:6]) == (date, time), name
        assert (made.InstanceCreationDate, made.InstanceCreationTime[:6]) == (date, time), name
        contributed = made.ContributingEquipmentSequence[0].ContributionDateTime
        assert str(contributed) == f"{date}{time}.089000{offset}"


@pytest.mark.parametrize("offset", ["nonsense", "+9900", "", ["+0100", "+0200"]])
def test_an_odd_time_zone_is_none(offset):
    """Then times are local."""
    with pydicom.config.disable_value_validation():
        source = read(dicom_bytes(GREY, TimezoneOffsetFromUTC=offset))
    local = datetime.fromisoformat(PROVENANCE["time"]).astimezone()
    made = objects(map_findings(source))["capture"]
    assert made.ContentTime[:6] == local.strftime("%H%M%S")


def test_uids_with_zeros_at_the_front_are_those_of_the_source():
    """The standard forbids them and vendors write them: results lie in the study, and refer to the image."""
    stated = {"StudyInstanceUID": "1.2.03.4", "SeriesInstanceUID": "1.2.003.5", "SOPInstanceUID": "1.2.0.06"}
    files = write(map_findings(read(dicom_bytes(GREY, **stated))), OBJECTS)
    with pydicom.config.disable_value_validation():
        made = dict(zip(OBJECTS, (pydicom.dcmread(io.BytesIO(each)) for each in files), strict=True))
        assert {each.StudyInstanceUID for each in made.values()} == {"1.2.03.4"}
        assert made["capture"].SourceImageSequence[0].ReferencedSOPInstanceUID == "1.2.0.06"
        assert made["presentation"].ReferencedSeriesSequence[0].SeriesInstanceUID == "1.2.003.5"
        (study,) = made["report"].CurrentRequestedProcedureEvidenceSequence
        assert study.StudyInstanceUID == "1.2.03.4"
