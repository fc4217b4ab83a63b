"""Classifiers of images, alone or several together, with every method that explains one."""

from typing import TYPE_CHECKING

from radlens.extras import lazy

if TYPE_CHECKING:
    from radlens.families.classifier.computing import ClassExplanation, ClassPrediction
    from radlens.families.classifier.service import ClassifierService, open_model

__all__ = ["ClassExplanation", "ClassPrediction", "ClassifierService", "open_model"]

__getattr__ = lazy(
    __name__,
    {
        **dict.fromkeys(("ClassExplanation", "ClassPrediction"), "computing"),
        **dict.fromkeys(("ClassifierService", "open_model"), "service"),
    },
)
