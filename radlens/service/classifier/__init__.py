"""Predictions and explanations of classes."""

from radlens.service.classifier.computing import ClassExplanation, ClassPrediction
from radlens.service.classifier.core import ClassifierService, open_model

__all__ = ["ClassExplanation", "ClassPrediction", "ClassifierService", "open_model"]
