"""Classifiers of images, alone or several together, with every method that explains one."""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.families.classifier.computing import ClassExplanation, ClassPrediction
    from radlens.families.classifier.service import ClassifierService, open_model
else:
    __getattr__ = lazily(__name__)

__all__ = ["ClassExplanation", "ClassPrediction", "ClassifierService", "open_model"]
