"""The architectures, one file each."""

from radlens.networks.cdmam import CdcPrediction, CdmamEnsemble, CdmamNet
from radlens.networks.cdmam_folded import FoldedCdmamEnsemble

__all__ = ["CdcPrediction", "CdmamEnsemble", "CdmamNet", "FoldedCdmamEnsemble"]
