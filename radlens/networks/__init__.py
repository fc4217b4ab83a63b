"""Network architectures, one per file."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.networks.cdmam import CdcPrediction, CdmamEnsemble, CdmamNet, LogCdcPrediction
from radlens.networks.cdmam_folded import FoldedCdmamEnsemble
from radlens.networks.classifiers import (
    CLASSIFIERS,
    FIXED_SHAPES,
    ClassifierNetwork,
    FlattenedNetwork,
    create_classifier,
)
from radlens.networks.generators import Generator, GeneratorPair
from radlens.networks.imagenet import load_imagenet
from radlens.networks.mask_proposer import MaskProposer
from radlens.networks.mobilenet import MobileNet
from radlens.networks.partial_conv import PartialConvInpainter, partial_conv
from radlens.networks.patch_discriminator import PatchDiscriminator

__all__ = [
    "CLASSIFIERS",
    "FIXED_SHAPES",
    "CdcPrediction",
    "CdmamEnsemble",
    "CdmamNet",
    "ClassifierNetwork",
    "FlattenedNetwork",
    "FoldedCdmamEnsemble",
    "Generator",
    "GeneratorPair",
    "LogCdcPrediction",
    "MaskProposer",
    "MobileNet",
    "PartialConvInpainter",
    "PatchDiscriminator",
    "create_classifier",
    "load_imagenet",
    "partial_conv",
]
