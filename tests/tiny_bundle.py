"""A bundle that is small, quick and untrained, and predicts curves of the right size all the same."""

from dataclasses import fields
from pathlib import Path

import torch

from radlens.families.cdmam.manifest import WEIGHTS, Bundle, InputSpec, Manifest, save
from radlens.networks import CdmamNet, FoldedCdmamEnsemble
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM
from radlens.phantoms.cdmam.domain import Limits

TYPICAL_CURVE_UM = (0.06, 0.08, 0.1, 0.13, 0.18, 0.25, 0.34, 0.48, 0.65, 0.9, 1.3, 1.9)


_ALL = (-1e9, 1e9)
EVERY_PHANTOM = {field.name: [_ALL] * 12 if field.name == "curve_um" else _ALL for field in fields(Limits)}
"""Limits that every phantom keeps which is found: members that were not trained contradict any image."""


def make_bundle(
    path: Path, *, version: str = "1.0", seed: int = 0, n_members: int = 2, rank: int = 2, logarithmic: bool = False
) -> Bundle:
    """Write an ensemble of random members for images with values near 1000 to ``path`` and load it."""
    torch.manual_seed(seed)
    members = [_member(rank, logarithmic) for _ in range(n_members)]
    path.mkdir(parents=True, exist_ok=True)
    ensemble = FoldedCdmamEnsemble.from_members(members, logarithmic=logarithmic)
    torch.save(ensemble.state_dict(), path / WEIGHTS)
    spec = InputSpec(
        mean=1000.0,
        std=100.0,
        spacing_mm=0.07,
        sampler="stratified",
        pixel_mean_range=(900.0, 1100.0),
        pixel_std_range=(50.0, 150.0),
    )
    manifest = Manifest(
        name="cdmam",
        version=version,
        task="cdmam-cdc",
        diameters_mm=CDC_DIAMETERS_MM,
        input=spec,
        explainers=("omig", "sensitivity", "occlusion"),
        n_members=n_members,
        rank=ensemble.rank,
        logarithmic=logarithmic,
        domain=EVERY_PHANTOM,
        training={},
        parity={},
    )
    return save(path, manifest)


def _member(rank: int, logarithmic: bool) -> CdmamNet:
    member = CdmamNet(rank)
    mean = torch.tensor(TYPICAL_CURVE_UM)
    if logarithmic:
        member.scale_output(mean.log(), torch.full_like(mean, 0.2))
    else:
        member.scale_output(mean, 0.2 * mean)
    return member.eval()
