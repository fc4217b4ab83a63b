"""Whether a model may judge an image: no confident answer outside the domain, whatever the model."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from radlens.images import Image

__all__ = ["Assessment", "Domain"]


@dataclass(frozen=True)
class Assessment:
    """Whether an image is one that the model can judge.

    Attributes:
        assessable: Whether a verdict, a class or a map may be given.
        reasons: One sentence for each thing that keeps the model from judging; empty if ``assessable``.
        numbers: What the decision rests on, by name.
    """

    assessable: bool
    reasons: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"assessable": self.assessable, "reasons": list(self.reasons), "numbers": dict(self.numbers)}


class Domain(Protocol):
    """The images that a model may be asked about."""

    def assess(self, image: Image) -> Assessment:
        """Return whether ``image`` is one of them; never raises for an image that could be read."""
