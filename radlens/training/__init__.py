"""How each network is trained: resumable, with a written record."""

from radlens.training.cdmam import PRESETS, Preset, TrainedRun, keep_in_record, load_run, train
from radlens.training.cdmam_data import TrainingSet, build_training_set
from radlens.training.cdmam_paper import PaperPreset
from radlens.training.cdmam_registered import RegisteredPreset
from radlens.training.classifier import TrainedClassifier, load_classifier_run, train_classifier
from radlens.training.classifier_presets import CLASSIFIER_PRESETS, ClassifierPreset, WarmUp

__all__ = [
    "CLASSIFIER_PRESETS",
    "PRESETS",
    "ClassifierPreset",
    "PaperPreset",
    "Preset",
    "RegisteredPreset",
    "TrainedClassifier",
    "TrainedRun",
    "TrainingSet",
    "WarmUp",
    "build_training_set",
    "keep_in_record",
    "load_classifier_run",
    "load_run",
    "train",
    "train_classifier",
]
