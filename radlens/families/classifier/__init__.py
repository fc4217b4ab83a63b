"""Classifiers of images, alone or several together, with every method that explains one."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.families.classifier.computing import ClassExplanation, ClassPrediction
from radlens.families.classifier.service import ClassifierService, open_model

__all__ = ["ClassExplanation", "ClassPrediction", "ClassifierService", "open_model"]
