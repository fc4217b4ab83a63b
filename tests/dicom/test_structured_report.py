"""The report: numbers, decisions and sentences as TID 1500, read by highdicom and by DCMTK."""

import io
import re
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from dicom_files import dicom_bytes
from dicom_tools import needs_dcmtk, printed
from map_findings import PROVENANCE, UM, map_findings
from report_answers import refused

from radlens.dicom import Group, Number, write
from radlens.dicom.codes import PRIVATE, method_code, private, unit_code
from radlens.families.cdmam.findings import findings as of_phantoms
from radlens.families.classifier.findings import findings as of_classifiers
from radlens.images import read, to_png

GREY = np.random.default_rng(1).integers(0, 4096, (30, 20)).astype(np.uint16)


def reported(source=None, **changes):
    """Return the report of an answer as a file."""
    (content,) = write(map_findings(read(source or dicom_bytes(GREY)), **changes), ["report"])
    return content


def groups_of(content):
    """Return the measurement groups as highdicom reads them, by their title."""
    report = highdicom.sr.srread(io.BytesIO(content))
    assert isinstance(report, highdicom.sr.Comprehensive3DSR)
    found: Any = report.content
    return {each.tracking_identifier: each for each in found.get_image_measurement_groups()}


def texts(group):
    """Return the sentences of a group by the code of what they are."""
    items = [
        each for each in group[0].ContentSequence if each.ValueType == "TEXT" and each.RelationshipType == "CONTAINS"
    ]
    return {each.ConceptNameCodeSequence[0].CodeValue: each.TextValue for each in items}


def answers(group):
    """Return the decisions of a group: pairs of the codes of question and answer, all private."""
    found = group.get_qualitative_evaluations()
    return [(each.name.value, each.value.value) for each in found if each.name.scheme_designator == "99RADLENS"]


@pytest.mark.parametrize("value", [0.1 + 0.2, 1 / 3, -1e-300, 12345678.9, 0.0, float(np.float32(0.1))])
def test_numbers_come_back_exactly(value):
    """As Floating Point Value; the decimal string is readable and right to nine digits."""
    group = Group("Numbers", (Number(private("THRESHOLD"), value, UM),))
    (found,) = groups_of(reported(groups=(group,)))["Numbers"].get_measurements()
    measured = found[0].MeasuredValueSequence[0]
    assert measured.FloatingPointValue == value
    assert float(measured.NumericValue) == pytest.approx(value, rel=1e-8)
    assert (measured.MeasurementUnitsCodeSequence[0].CodeValue, found.unit.value) == ("um", "um")
    assert found.name.value == "THRESHOLD"


def test_an_answer_is_in_groups():
    """Verdict and sentences in the group that they belong to, in UTF-8."""
    group = groups_of(reported())["Disks of 1.00 mm"]
    assert answers(group) == [("ACCEPTABLE", "MET")]
    assert texts(group)["VERDICT"] == "Acceptable limit: met at 1 mm; Größe 3 µm."


@pytest.mark.parametrize(
    ("method", "value", "scheme"),
    [
        ("saliency", "130404", "DCM"),
        ("sensitivity", "130404", "DCM"),
        ("cam", "130402", "DCM"),
        ("grad_cam", "130403", "DCM"),
        ("guided_grad_cam", "GUIDED-GRAD-CAM", "99RADLENS"),
        ("omig", "OMIG", "99RADLENS"),
    ],
)
def test_the_method_is_coded(method, value, scheme):
    """From CID 217 where it names the method, as pydicom's own dictionary has it; otherwise by a private code."""
    from pydicom.sr.codedict import codes

    code = method_code(method)
    assert (code.value, code.scheme_designator) == (value, scheme)
    in_dictionary = {each.value: each.meaning for each in codes.cid217.concepts.values()}
    assert scheme != "DCM" or in_dictionary[value] == code.meaning
    found = groups_of(reported(groups=(Group("Map", method=code),)))["Map"].method
    assert (found.value, found.scheme_designator) == (value, scheme)


def test_every_method_has_a_code_of_its_own():
    """None is another method."""
    from radlens import explainers

    found = {name: method_code(name) for name in (*explainers.names(), "ablation", "inpainting")}
    assert "OTHER-METHOD" not in {code.value for code in found.values()}
    assert {name for name in found if list(found.values()).count(found[name]) > 1} == {"saliency", "sensitivity"}
    assert method_code("divination").value == "OTHER-METHOD"


def test_private_codes_are_valid():
    """Code Value has at most 16 characters and Code Meaning at most 64 (PS3.5 section 6.2)."""
    assert all(0 < len(value) <= 16 and value == value.upper() for value in PRIVATE)
    assert all(0 < len(meaning) <= 64 for meaning in PRIVATE.values())


def test_private_codes_are_documented():
    """Each with its meaning, so that a reader of the report can look it up."""
    page = (Path(__file__).parents[2] / "docs" / "hospital-engineer.md").read_text("utf-8")
    rows = re.findall(r"^\| `([A-Z0-9-]+)` \| (.+) \|$", page, re.MULTILINE)
    assert dict(rows) == dict(PRIVATE)


@pytest.mark.parametrize(
    ("unit", "value"),
    [
        ("um of gold", "um"),
        ("um of gold per standard deviations of the training images' pixels", "um"),
        ("logit of the class", "{logit}"),
        ("none", "1"),
        ("1", "1"),
        ("standard deviations of the training images' pixels", "1"),
        ("HU", "[hnsf'U]"),
    ],
)
def test_units_are_ucum(unit, value):
    """Words without a code of UCUM become the meaning of 1."""
    code = unit_code(unit)
    assert (code.value, code.scheme_designator) == (value, "UCUM")
    assert 0 < len(code.meaning) <= 64


def test_the_model_is_identified():
    """Name, version, family and every setting, once; the device is that of the bundle."""
    report = pydicom.dcmread(io.BytesIO(reported()))
    found = groups_of(reported())["Assessment"][0].ContentSequence
    said = {each.ConceptNameCodeSequence[0].CodeMeaning: each for each in found if each.ValueType in ("TEXT", "CODE")}
    assert said["Algorithm Name"].TextValue == "cdmam"
    assert said["Algorithm Version"].TextValue == "1.0"
    assert said["Algorithm Family"].ConceptCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    stated = [each.TextValue for each in found if each.ConceptNameCodeSequence[0].CodeMeaning == "Algorithm Parameters"]
    assert set(stated) == {"bundle_hash=ab12", "engine=torch", "method=saliency", "absolute=True", "output=map"}
    observers = [each for each in report.ContentSequence if each.ValueType == "UIDREF"]
    assert [each.UID for each in observers] == [report.ContributingEquipmentSequence[0].DeviceUID]


def test_an_image_that_cannot_be_judged_is_said_to_be_so():
    """With reasons; the caller gives no scores then."""
    group = groups_of(reported(assessable=False, reasons=("it is a cat",), groups=()))["Assessment"]
    assert answers(group) == [("ASSESSABLE", "NO")]
    assert texts(group)["REASON"] == "it is a cat"
    assert answers(groups_of(reported())["Assessment"]) == [("ASSESSABLE", "YES")]


def test_images_are_referred_to():
    """In the library, in the evidence, and as source of each group."""
    report = pydicom.dcmread(io.BytesIO(reported()))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    (image,) = series.ReferencedSOPSequence
    assert study.StudyInstanceUID == report.StudyInstanceUID
    assert series.SeriesInstanceUID == "1.2.826.0.1.3680043.8.498.3"
    assert image.ReferencedSOPInstanceUID == "1.2.826.0.1.3680043.8.498.1"
    for group in groups_of(reported()).values():
        (source,) = [each for each in group[0].ContentSequence if each.ValueType == "IMAGE"]
        assert source.ReferencedSOPSequence[0].ReferencedSOPInstanceUID == image.ReferencedSOPInstanceUID


def test_several_images_are_all_evidence():
    """Those of one exposure that were combined to one curve."""
    second = dicom_bytes(GREY + 1, SOPInstanceUID="1.2.826.0.1.3680043.8.498.7")
    images = tuple(read(each) for each in (dicom_bytes(GREY), second))
    report = pydicom.dcmread(io.BytesIO(reported(images=images)))
    (study,) = report.CurrentRequestedProcedureEvidenceSequence
    (series,) = study.ReferencedSeriesSequence
    assert [each.ReferencedSOPInstanceUID[-1] for each in series.ReferencedSOPSequence] == ["1", "7"]


def test_a_png_has_no_evidence():
    """And no image library; the numbers are there."""
    content = reported(to_png(GREY))
    assert "CurrentRequestedProcedureEvidenceSequence" not in pydicom.dcmread(io.BytesIO(content))
    assert len(groups_of(content)["Disks of 1.00 mm"].get_measurements()) == 2


@needs_dcmtk
def test_dcmtk_prints_names_and_numbers(tmp_path):
    """Dsrdump reads the document without a complaint, and dsr2html shows what each number is."""
    said = printed("dsrdump", reported(), tmp_path)
    assert 'NUM:(,,"Threshold gold thickness")="0.3" (um,UCUM,"um")' in said
    assert 'CODE:(,,"Measurement Method")=(130404,DCM,"Saliency")' in said
    page = printed("dsr2html", reported(), tmp_path)
    for expected in ("Threshold gold thickness", "Met", "Größe 3 µm", "Not for diagnosis"):
        assert expected in page
    assert PROVENANCE["model"] in page


@pytest.mark.parametrize("assessable", [True, False])
def test_the_numbers_of_the_domain_are_stated(assessable):
    """Score and limit as numbers; others as text with their names. A reader sees how near the judgement was."""
    domain = {"unlikeness": 1.25, "unlikeness_limit": 4.5, "correlation": 0.931, "blur_mm": float("nan")}
    found = groups_of(reported(domain=domain, assessable=assessable))["Assessment"]
    measured = {each.name.value: each.value for each in found.get_measurements()}
    assert measured == {"UNLIKENESS": 1.25, "UNLIKENESS-LIMIT": 4.5}
    assert texts(found)["DOMAIN"] == "correlation: 0.931"


def test_families_hand_on_what_the_judgement_rests_on():
    """Of a phantom and of a classifier, also where the image cannot be judged."""
    numbers = {"unlikeness": 9.5, "unlikeness_limit": 4.5, "is_whole": True}
    unlike = refused("it is a cat", assessment=numbers)
    for findings in (of_phantoms, of_classifiers):
        found = findings(unlike, [read(dicom_bytes(GREY))])
        assert found.domain == {"unlikeness": 9.5, "unlikeness_limit": 4.5}
