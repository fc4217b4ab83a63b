"""Bill of materials of this installation: CycloneDX 1.6 JSON from the metadata of the installed packages."""

import hashlib
import re
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from email.message import Message
from importlib.metadata import Distribution, distributions
from typing import Any
from uuid import UUID, uuid4

import radlens

__all__ = ["bill", "licence_of", "licences"]

_OWN = "radlens"

_REQUIREMENT = re.compile(r"^\s*([A-Za-z0-9][A-Za-z0-9._-]*)")


def installed() -> list[Distribution]:
    """Return the installed packages by name; of two of one name, the first on the path counts, as for imports."""
    found: dict[str, Distribution] = {}
    for each in distributions():
        name = each.metadata["Name"]
        if name:
            found.setdefault(_normal(name), each)
    return [found[name] for name in sorted(found)]


def licence_of(metadata: Message) -> str:
    """Return the licence of a package: ``License-Expression``, else classifiers, else the first line of ``License``.

    Args:
        metadata: Core metadata of the package (PEP 639, PEP 314).
    """
    expression = metadata.get("License-Expression")
    if expression:
        return str(expression)
    classifiers = metadata.get_all("Classifier") or []
    named = [each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: ")]
    named = [each for each in named if each != "OSI Approved"]
    if named:
        return "; ".join(named)
    lines = str(metadata.get("License") or "").strip().splitlines()
    return lines[0][:100] if lines else "not stated"


def licences() -> list[tuple[str, str, str]]:
    """Return name, version and licence of every installed package, by name."""
    return [(each.metadata["Name"], each.version, licence_of(_metadata(each))) for each in installed()]


def bill(*, serial: UUID | None = None, time: datetime | None = None) -> dict[str, Any]:
    """Return the bill of materials: CycloneDX 1.6, as ECMA-424 defines it.

    Each package is a component with purl, licence and the SHA-256 of its ``RECORD``, which lists the hashes of its
    files; ``dependencies`` holds what each asks for, as far as it is installed.

    Args:
        serial: Serial number; None for a new one.
        time: Time of the document; None for now.
    """
    packages = installed()
    references = {_normal(each.metadata["Name"]): _reference(each) for each in packages}
    own = references.get(_OWN, f"pkg:pypi/{_OWN}@{radlens.__version__}")
    stamp = (time or datetime.now(UTC)).astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
    return {
        "$schema": "http://cyclonedx.org/schema/bom-1.6.schema.json",
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{serial or uuid4()}",
        "version": 1,
        "metadata": {
            "timestamp": stamp,
            "tools": {"components": [{"type": "application", "name": _OWN, "version": radlens.__version__}]},
            "component": {
                "type": "application",
                "bom-ref": own,
                "name": _OWN,
                "version": radlens.__version__,
                "purl": own,
            },
        },
        "components": [_component(each) for each in packages if _normal(each.metadata["Name"]) != _OWN],
        "dependencies": [
            {
                "ref": _reference(each),
                "dependsOn": sorted({references[name] for name in _asked(each.requires or ()) if name in references}),
            }
            for each in packages
        ],
    }


def _component(package: Distribution) -> dict[str, Any]:
    reference = _reference(package)
    component: dict[str, Any] = {
        "type": "library",
        "bom-ref": reference,
        "name": package.metadata["Name"],
        "version": package.version,
        "purl": reference,
        "licenses": _licenses(licence_of(_metadata(package)), is_expression="License-Expression" in package.metadata),
    }
    record = package.read_text("RECORD")
    if record:
        component["properties"] = [
            {"name": "radlens:record-sha256", "value": hashlib.sha256(record.encode()).hexdigest()}
        ]
    return component


def _licenses(licence: str, *, is_expression: bool) -> list[dict[str, Any]]:
    # A field "id" or "expression" is for identifiers of SPDX alone; other texts are names.
    if is_expression:
        return [{"expression": licence}]
    return [{"license": {"name": each}} for each in licence.split("; ")]


def _asked(requirements: Iterable[str]) -> Iterator[str]:
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if found:
            yield _normal(found[1])


def _reference(package: Distribution) -> str:
    return f"pkg:pypi/{_normal(package.metadata['Name'])}@{package.version}"


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _metadata(package: Distribution) -> Message:
    found: Any = package.metadata
    return found
