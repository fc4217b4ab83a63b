"""Explanation methods, one file each, registered where they are defined."""

from radlens.explainers.base import Differentiable, Explainer, create, get, names, register
from radlens.explainers.occlusion import Occlusion, occlusion
from radlens.explainers.omig import Omig, omig
from radlens.explainers.sensitivity import Sensitivity, sensitivity
from radlens.explainers.upsampling import UpsampledMap, merge, upsample

__all__ = [
    "Differentiable",
    "Explainer",
    "Occlusion",
    "Omig",
    "Sensitivity",
    "UpsampledMap",
    "create",
    "get",
    "merge",
    "names",
    "occlusion",
    "omig",
    "register",
    "sensitivity",
    "upsample",
]
