"""The bill of materials holds what is installed."""

from datetime import UTC, datetime
from email.message import Message
from importlib.metadata import version
from uuid import UUID

import pytest

from radlens.sbom import bill, licence_of, licences

SERIAL, TIME = UUID(int=1), datetime(2026, 1, 1, tzinfo=UTC)


def test_the_bill_is_cyclonedx():
    """The fields that CycloneDX 1.6 requires, references that are unique and resolve, and purls (PEP 503 names)."""
    found = bill(serial=SERIAL, time=TIME)
    assert (found["bomFormat"], found["specVersion"], found["version"]) == ("CycloneDX", "1.6", 1)
    assert found["serialNumber"] == "urn:uuid:00000000-0000-0000-0000-000000000001"
    assert found["metadata"]["timestamp"] == "2026-01-01T00:00:00Z"
    references = [each["bom-ref"] for each in found["components"]]
    assert len(references) == len(set(references)) > 20
    known = {*references, found["metadata"]["component"]["bom-ref"]}
    for each in found["dependencies"]:
        assert each["ref"] in known
        assert set(each["dependsOn"]) <= known
    for each in found["components"]:
        assert each["purl"].startswith("pkg:pypi/")
        for licence in each["licenses"]:
            assert set(licence) <= {"expression"} or set(licence["license"]) == {"name"}


def test_the_bill_is_what_is_installed():
    """The versions are those that are imported; the same installation gives the same bill."""
    found = {each["name"].lower(): each for each in bill()["components"]}
    for name in ("numpy", "httpx", "pydicom"):
        assert found[name]["version"] == version(name)
        assert len(found[name]["properties"][0]["value"]) == 64
    httpx = next(each for each in bill()["dependencies"] if each["ref"].startswith("pkg:pypi/httpx@"))
    assert any(reference.startswith("pkg:pypi/httpcore@") for reference in httpx["dependsOn"])
    assert bill(serial=SERIAL, time=TIME) == bill(serial=SERIAL, time=TIME)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ([("License-Expression", "MIT OR Apache-2.0"), ("License", "other")], "MIT OR Apache-2.0"),
        ([("Classifier", "License :: OSI Approved :: BSD License"), ("License", "long text")], "BSD License"),
        ([("Classifier", "License :: OSI Approved"), ("License", "BSD\nmore text")], "BSD"),
        ([("License", "")], "not stated"),
        ([], "not stated"),
    ],
)
def test_licences_are_read_where_they_stand(fields, expected):
    """The expression before classifiers before free text."""
    metadata = Message()
    for name, value in fields:
        metadata[name] = value
    assert licence_of(metadata) == expected


def test_every_package_has_a_line():
    """With its licence, or that it is not stated."""
    assert {each[0].lower() for each in licences()} >= {"numpy", "httpx"}
    assert all(each[2] for each in licences())
