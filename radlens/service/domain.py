"""The decision whether a model may judge an image: outside its domain it must not give a confident answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from radlens.images import Image

__all__ = ["Assessment", "Domain"]


@dataclass(frozen=True)
class Assessment:
    """The decision whether a model may judge an image.

    Attributes:
        assessable: Whether a verdict, a class or a map may be given.
        reasons: One sentence for each reason against a judgement; empty if ``assessable``.
        numbers: Numbers behind the decision, by name.
    """

    assessable: bool
    reasons: tuple[str, ...] = ()
    numbers: Mapping[str, Any] = field(default_factory=dict)

    def sentence(self) -> str:
        """Return the reasons as one sentence, for formats that hold nothing else."""
        return f"not assessable: {'; '.join(self.reasons)}"

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON values."""
        return {"assessable": self.assessable, "reasons": list(self.reasons), "numbers": dict(self.numbers)}


class Domain(Protocol):
    """The domain of a model: the images that it may judge."""

    def assess(self, image: Image) -> Assessment:
        """Return whether ``image`` is in the domain; never raises for a readable image."""
