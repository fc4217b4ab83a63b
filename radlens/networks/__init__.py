"""Network architectures, one per file."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.networks.cdmam import CdcPrediction, CdmamEnsemble, CdmamNet, LogCdcPrediction
from radlens.networks.cdmam_folded import FoldedCdmamEnsemble
from radlens.networks.classifiers import CLASSIFIERS, ClassifierNetwork, create_classifier
from radlens.networks.imagenet import load_imagenet

__all__ = [
    "CLASSIFIERS",
    "CdcPrediction",
    "CdmamEnsemble",
    "CdmamNet",
    "ClassifierNetwork",
    "FoldedCdmamEnsemble",
    "LogCdcPrediction",
    "create_classifier",
    "load_imagenet",
]
