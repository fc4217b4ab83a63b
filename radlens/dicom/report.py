"""An answer as a Comprehensive 3D SR: PS3.3 section A.35.13, template TID 1500 of PS3.16.

``highdicom`` builds and checks the content. The header is that of all objects, because the constructors of highdicom
reject values that occur in real headers. All findings are in measurement groups (TID 1501), the first of which says
whether the model can judge the image.
"""

from __future__ import annotations

import math
from collections import defaultdict
from typing import Any

from highdicom.sr import (
    AlgorithmIdentification,
    CodedConcept,
    ContainerContentItem,
    ContentSequence,
    DeviceObserverIdentifyingAttributes,
    ImageContentItem,
    Measurement,
    MeasurementReport,
    MeasurementsAndQualitativeEvaluations,
    ObservationContext,
    ObserverContext,
    QualitativeEvaluation,
    RelationshipTypeValues,
    SourceImageForMeasurementGroup,
    TextContentItem,
    TrackingIdentifier,
)
from pydicom import Dataset, uid
from pydicom.sr.coding import Code

from radlens.dicom.base import MANUFACTURER, device_uid, instance_uid, new_object, referenced, sources
from radlens.dicom.codes import ARTIFICIAL_INTELLIGENCE, NO_UNITS, private, scheme_identification
from radlens.dicom.findings import Findings, Group, Number
from radlens.dicom.source import Reference, reference, study_uid

__all__ = ["report"]

_CONTAINS = RelationshipTypeValues.CONTAINS

_IMAGING = Code("363679005", "SCT", "Imaging")
_DEVICE = CodedConcept("121007", "DCM", "Device")
_SOURCE = Code("260753009", "SCT", "Source")
_LIBRARY, _LIBRARY_GROUP = Code("111028", "DCM", "Image Library"), Code("126200", "DCM", "Image Library Group")

ASSESSMENT = "Assessment"
"""Title of the first group, which alone states the settings of the model."""

_DOMAIN = {"unlikeness": "UNLIKENESS", "unlikeness_limit": "UNLIKENESS-LIMIT"}
"""Codes of numbers on which the judgement rests; of a phantom there are many, which are texts with their names."""

_MAX_TEXT = 1024


def report(findings: Findings) -> Dataset:
    """Return the answer as a report.

    A model that cannot judge the image is said to be so, with the reasons and the numbers that they rest on; the report
    then has no score and no verdict.

    Raises:
        UnreadableImage: Patient or study attributes of the source cannot be copied.
    """
    images = [each for each in sources(findings) if each.series is not None]
    result = new_object(findings, "report", uid.Comprehensive3DSRStorage, "SR")
    root = _content(findings, images)
    for element in root:
        result.add(element)
    result.CompletionFlag, result.VerificationFlag, result.PreliminaryFlag = "COMPLETE", "UNVERIFIED", "FINAL"
    result.PerformedProcedureCodeSequence = []
    result.ReferencedPerformedProcedureStepSequence = []
    result.CodingSchemeIdentificationSequence = [scheme_identification()]
    if images:
        result.CurrentRequestedProcedureEvidenceSequence = _evidence(findings)
    return result


def _content(findings: Findings, images: list[Reference]) -> Dataset:
    device = DeviceObserverIdentifyingAttributes(
        uid=device_uid(findings),
        name=MANUFACTURER,
        manufacturer_name=MANUFACTURER,
        model_name=str(findings.provenance["model"])[:64],
        serial_number=str(findings.provenance["bundle_hash"])[:64],
    )
    groups = [_group(findings, group, images) for group in (_assessment(findings), *findings.groups)]
    made = MeasurementReport(
        observation_context=ObservationContext(observer_device_context=ObserverContext(_DEVICE, device)),
        procedure_reported=_IMAGING,
        imaging_measurements=groups,
    )
    root: Dataset = made[0]
    content = root.ContentSequence
    if images:
        content.insert(_place_of_library(content), _library(images))
    _separate(root)
    return root


def _separate(container: Dataset) -> None:
    """Mark content items as separate: as continuous text, viewers leave out the names of numbers (PS3.3 C.17.3.2.1)."""
    container.ContinuityOfContent = "SEPARATE"
    for each in container.ContentSequence:
        if each.ValueType == "CONTAINER":
            _separate(each)


def _assessment(findings: Findings) -> Group:
    """Return the first group of every report: whether the model can judge the image, why, and warnings."""
    judged = private("YES" if findings.assessable else "NO")
    known = {name: value for name, value in findings.domain.items() if math.isfinite(value)}
    numbers = [Number(private(code), float(known[name]), NO_UNITS) for name, code in _DOMAIN.items() if name in known]
    texts = [(private("REASON"), reason) for reason in findings.reasons]
    texts += [(private("WARNING"), warning) for warning in (*findings.warnings, "Not for diagnosis")]
    texts += [(private("DOMAIN"), f"{name}: {value:.9g}") for name, value in known.items() if name not in _DOMAIN]
    return Group(ASSESSMENT, tuple(numbers), ((private("ASSESSABLE"), judged),), tuple(texts))


def _place_of_library(content: Any) -> int:
    """Return where the image library goes: before the measurements, TID 1500 row 5."""
    names = [item.ConceptNameCodeSequence[0].CodeValue for item in content]
    return names.index("126010") if "126010" in names else len(names)


def _library(images: list[Reference]) -> ContainerContentItem:
    """Return the images, TID 1600."""
    library = ContainerContentItem(_LIBRARY, relationship_type=_CONTAINS)
    group = ContainerContentItem(_LIBRARY_GROUP, relationship_type=_CONTAINS)
    group.ContentSequence = ContentSequence([_image(each) for each in images])
    library.ContentSequence = ContentSequence([group])
    return library


def _image(source: Reference) -> ImageContentItem:
    return ImageContentItem(_SOURCE, source.sop_class, source.sop_instance, relationship_type=_CONTAINS)


def _group(findings: Findings, group: Group, images: list[Reference]) -> MeasurementsAndQualitativeEvaluations:
    made = MeasurementsAndQualitativeEvaluations(
        tracking_identifier=TrackingIdentifier(instance_uid(findings, "report", group.title), group.title),
        method=group.method,
        algorithm_id=_algorithm(findings, with_settings=group.title == ASSESSMENT),
        measurements=[_measurement(each) for each in group.numbers],
        qualitative_evaluations=[QualitativeEvaluation(question, answer) for question, answer in group.answers],
        source_images=[SourceImageForMeasurementGroup(each.sop_class, each.sop_instance) for each in images],
    )
    made[0].ContentSequence.extend(_text(name, text) for name, text in group.texts)
    return made


def _measurement(number: Number) -> Measurement:
    made = Measurement(number.name, number.value, number.unit)
    # Floating Point Value holds the number exactly. A decimal string of 16 characters would be hard to read.
    made[0].MeasuredValueSequence[0].NumericValue = f"{number.value:.9g}"
    return made


def _algorithm(findings: Findings, *, with_settings: bool) -> AlgorithmIdentification:
    """Return the identification of the model, with its settings or without, TID 4019."""
    stated = findings.provenance
    settings = {"bundle_hash": stated["bundle_hash"], "engine": stated.get("engine"), **findings.settings}
    settings |= settings.pop("parameters", {})
    return AlgorithmIdentification(
        name=str(stated["model"]),
        version=str(stated["version"]),
        family=ARTIFICIAL_INTELLIGENCE,
        parameters=[f"{name}={value}"[:_MAX_TEXT] for name, value in settings.items() if value is not None]
        if with_settings
        else None,
        manufacturer=MANUFACTURER,
    )


def _text(name: Code, text: str) -> TextContentItem:
    return TextContentItem(name, text, _CONTAINS)


def _evidence(findings: Findings) -> list[Dataset]:
    """Return the referenced images by study and series, PS3.3 table C.17-3."""
    studies: dict[str, dict[str, list[Dataset]]] = defaultdict(lambda: defaultdict(list))
    for image in findings.images:
        found = reference(image)
        if found is not None and found.series is not None:
            studies[study_uid(image)][found.series].append(referenced(found))
    return [_study(study, series) for study, series in studies.items()]


def _study(identifier: str, series: dict[str, list[Dataset]]) -> Dataset:
    study = Dataset()
    study.StudyInstanceUID, study.ReferencedSeriesSequence = identifier, []
    for number, references in series.items():
        item = Dataset()
        item.SeriesInstanceUID, item.ReferencedSOPSequence = number, references
        study.ReferencedSeriesSequence.append(item)
    return study
