"""How each network is trained: resumable, with a written record."""

from radlens.training.cdmam import PRESETS, Preset, TrainedRun, load_run, train
from radlens.training.cdmam_data import TrainingSet, build_training_set

__all__ = ["PRESETS", "Preset", "TrainedRun", "TrainingSet", "build_training_set", "load_run", "train"]
