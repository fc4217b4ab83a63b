"""Which images go to which model, and where its results go."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase

from radlens.node.header import Header

__all__ = ["Conditions", "Rule"]


@dataclass(frozen=True)
class Conditions:
    """Conditions on an image; an empty one holds for every image, and of several texts one must match.

    Texts match as shell patterns (``*``, ``?``, ``[...]``), without regard to case.

    Attributes:
        modality: Modality.
        sop_class: UIDs of SOP classes; these match exactly.
        body_part: Body Part Examined.
        study_description: Study Description.
        sender: AE title of the sender, or the name of the DICOMweb source.
    """

    modality: Sequence[str] = ()
    sop_class: Sequence[str] = ()
    body_part: Sequence[str] = ()
    study_description: Sequence[str] = ()
    sender: Sequence[str] = ()

    def match(self, header: Header, sender: str) -> bool:
        """Return whether every condition holds for an image that ``sender`` sent."""
        return (
            _one_matches(self.modality, header.modality)
            and (not self.sop_class or header.sop_class_uid in self.sop_class)
            and _one_matches(self.body_part, header.body_part)
            and _one_matches(self.study_description, header.study_description)
            and _one_matches(self.sender, sender)
        )


@dataclass(frozen=True)
class Rule:
    """A question that is put to a model about each image that meets the conditions.

    Attributes:
        name: name of the rule.
        conditions: which images.
        model: name of the model on the server.
        version: version of the model; None for the server's default.
        kind: ``explanations`` or ``predictions``.
        parameters: parameters of the request, such as the method.
        objects: kinds of DICOM objects that the server makes.
        destinations: names of the destinations of the results.
    """

    name: str
    conditions: Conditions
    model: str
    version: str | None
    kind: str
    objects: tuple[str, ...]
    destinations: tuple[str, ...]
    parameters: Mapping[str, str] = field(default_factory=dict)


def _one_matches(patterns: Sequence[str], value: str) -> bool:
    return not patterns or any(fnmatchcase(value.lower(), pattern.lower()) for pattern in patterns)
