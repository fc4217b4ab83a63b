"""dciodvfy and dcmdump on every object of odd sources: no error that the source does not have itself."""

import io
import re
from pathlib import Path

import numpy as np
import pydicom
import pytest
from dicom_files import dicom_bytes
from dicom_tools import complaints, needs_dcmtk, needs_dicom3tools, printed
from map_findings import map_findings
from pydicom.data import get_testdata_file

from radlens.dicom import possible, write
from radlens.images import read, to_npy, to_png
from radlens.phantoms import cdmam

GREY = np.random.default_rng(1).integers(0, 4096, (64, 48)).astype(np.uint16)
GREY_8 = (GREY // 16).astype(np.uint8)

COMPLETE = {
    "PatientBirthDate": "19500101",
    "PatientSex": "F",
    "StudyDate": "20260102",
    "StudyTime": "030405",
    "StudyID": "1",
    "AccessionNumber": "A1",
    "ReferringPhysicianName": "House^Gregory",
    "Laterality": "L",
    "PatientOrientation": ["P", "L"],
}
"""Attributes with which a source gives objects no reason to complain."""

YAMADA = "Yamada^Tarou=山田^太郎=やまだ^たろう"

SLICE = {
    "Modality": "CT",
    "FrameOfReferenceUID": "1.2.3.4",
    "ImagePositionPatient": [1, 2, 3],
    "ImageOrientationPatient": [1, 0, 0, 0, 0, -1],
    "SliceThickness": 5,
    "PixelSpacing": [0.5, 0.5],
}


SOURCES = {
    "complete": dicom_bytes(GREY, **COMPLETE),
    "bare": dicom_bytes(GREY),
    "slice": dicom_bytes(GREY, **COMPLETE, **SLICE),
    "ultrasound": dicom_bytes(GREY_8, **COMPLETE, Modality="US", SOPClassUID=pydicom.uid.UltrasoundImageStorage),
    "MONOCHROME1": dicom_bytes(GREY, **COMPLETE, PhotometricInterpretation="MONOCHROME1"),
    "JPEG": dicom_bytes(GREY_8, pydicom.uid.JPEGBaseline8Bit, **COMPLETE, LossyImageCompression="01"),
    "JPEG 2000": dicom_bytes(GREY, pydicom.uid.JPEG2000Lossless, **COMPLETE),
    "RLE": dicom_bytes(GREY, pydicom.uid.RLELossless, **COMPLETE),
    "big endian": dicom_bytes(GREY, pydicom.uid.ExplicitVRBigEndian, **COMPLETE),
    "implicit": dicom_bytes(GREY, pydicom.uid.ImplicitVRLittleEndian, **COMPLETE),
    "no study": dicom_bytes(GREY, **COMPLETE, StudyInstanceUID=None),
    "no series": dicom_bytes(GREY, **COMPLETE, SeriesInstanceUID=None),
    "no spacing": dicom_bytes(GREY, **COMPLETE, ImagerPixelSpacing=None),
    "empty orientation": dicom_bytes(GREY, **(COMPLETE | {"PatientOrientation": ""})),
    "rescaled": dicom_bytes(
        GREY, **COMPLETE, RescaleSlope="2", RescaleIntercept="-9", WindowCenter=40, WindowWidth=400
    ),
    "odd sex": dicom_bytes(GREY, **(COMPLETE | {"PatientSex": "unknown to us"})),
    "Japanese": dicom_bytes(
        GREY,
        **COMPLETE,
        SpecificCharacterSet=["", "ISO 2022 IR 87"],
        PatientName="Yamada^Tarou=山田^太郎=やまだ^たろう",
    ),
    "CT of pydicom": get_testdata_file("CT_small.dcm", download=False),
    "MR of pydicom": get_testdata_file("MR_small.dcm", download=False),
    "png": to_png(GREY),
    "npy": to_npy(GREY),
}
"""Sources by what is odd about them; files by their path."""

VALID = ("complete", "bare", "slice", "ultrasound", "MONOCHROME1", "png", "npy", "Japanese", "no study", "JPEG")
"""Sources that give no reason for a complaint."""

KINDS = ("map", "zeros")


def content_of(name):
    """Return the bytes of a source."""
    source = SOURCES[name]
    if isinstance(source, bytes):
        return source
    return Path(source).read_bytes()


def attributes_of(lines):
    """Return the attributes of the top level that complaints speak of."""
    return {found[1] for line in lines if (found := re.search(r"</(\w+)\([0-9a-f,]+\)(?:\[\d+\])?>", line))}


def made_of(name, kind):
    """Return the objects of a source with a map, by name."""
    image = read(content_of(name))
    values = np.zeros(image.pixels.shape, np.float32) if kind == "zeros" else None
    found = map_findings(image, values)
    names = list(possible(found))
    return dict(zip(names, write(found, names), strict=True))


@needs_dicom3tools
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", SOURCES)
def test_dciodvfy_finds_no_error_of_our_making(tmp_path, name, kind):
    """What it says of patient and study it says of the source as well; of anything else nothing."""
    own = set() if name in VALID else attributes_of(complaints(content_of(name), tmp_path))
    for what, content in made_of(name, kind).items():
        found = complaints(content, tmp_path)
        assert attributes_of(found) <= own, (what, found)
        assert name not in VALID or not found, (what, found)


@needs_dicom3tools
def test_dciodvfy_would_find_an_error(tmp_path):
    """It is not silent whatever it gets."""
    for what, content in made_of("complete", "map").items():
        broken = pydicom.dcmread(io.BytesIO(content))
        del broken.StudyInstanceUID
        stream = io.BytesIO()
        broken.save_as(stream)
        assert attributes_of(complaints(stream.getvalue(), tmp_path)) == {"StudyInstanceUID"}, what


@pytest.mark.slow
@needs_dcmtk
@pytest.mark.parametrize("name", SOURCES)
def test_dcmdump_reads_every_object(tmp_path, name):
    """Without a complaint, and with the name of the patient in UTF-8."""
    for content in made_of(name, "map").values():
        said = printed("dcmdump", content, tmp_path, "-q", "+P", "SpecificCharacterSet", "+P", "PatientName", "-s")
        assert "[ISO_IR 192]" in said
        if name == "Japanese":
            assert "山田^太郎" in said
    if name not in ("png", "npy"):
        report = made_of(name, "map")["report"]
        assert "Threshold gold thickness" in printed("dsrdump", report, tmp_path)


def test_a_phantom_as_it_is_simulated():
    """Its pixels are inverted when it is read; the objects lie on its pixels anyway."""
    layout = cdmam.Layout.with_margin(0, 0.15)
    image = read(cdmam.to_dicom(cdmam.simulate(cdmam.SCENARIOS["1"], layout, seed=3)))
    found = map_findings(image)
    for content in write(found, list(possible(found))):
        dataset = pydicom.dcmread(io.BytesIO(content))
        assert dataset.StudyInstanceUID == image.dataset.StudyInstanceUID
        if dataset.Modality == "SEG":
            assert (dataset.Rows, dataset.Columns) == image.pixels.shape
