"""A gradient graph of random CDMAM members, as an export writes it."""

import shutil
from pathlib import Path

import torch
from made_once import made

from radlens.engines.llvm_kernel import mark
from radlens.families.cdmam.export import write_onnx
from radlens.families.cdmam.gradient import CdmamGradient
from radlens.families.cdmam.manifest import GRADIENT_ONNX
from radlens.networks import CdmamNet, FoldedCdmamEnsemble


def write_gradient(file: Path, n_members: int, rank: int = 2, *, logarithmic: bool = False) -> FoldedCdmamEnsemble:
    """Write the marked graph; return the ensemble it belongs to."""
    torch.manual_seed(n_members)
    members = [CdmamNet(rank).eval() for _ in range(n_members)]
    for member in members:
        for norm in (member.norm1, member.norm2, member.norm3):
            norm.running_mean.normal_(0, 0.1)
            norm.bias.data.normal_(0, 0.1)
    ensemble = FoldedCdmamEnsemble.from_members(members, logarithmic=logarithmic)

    def make(folder: Path) -> None:
        write_onnx(CdmamGradient(ensemble), torch.zeros(2, 1, 250, 250), folder / GRADIENT_ONNX, ["score", "gradient"])
        mark(folder / GRADIENT_ONNX)

    kind = "logarithmic" if logarithmic else "linear"
    shutil.copy(made(f"{kind}-gradient-of-{n_members}-of-rank-{rank}", make) / GRADIENT_ONNX, file)
    return ensemble
