"""Explanation methods, one file each, registered where they are defined."""

from radlens.explainers.base import Differentiable, Explainer, create, get, names, register
from radlens.explainers.checkpoint import Checkpoint
from radlens.explainers.occlusion import Occlusion, occlusion
from radlens.explainers.omig import Omig, omig
from radlens.explainers.reliability import Goal, Halves, samples_for, spearman_brown
from radlens.explainers.sensitivity import Sensitivity, sensitivity
from radlens.explainers.upsampling import Partial, UpsampledMap, merge, upsample

__all__ = [
    "Checkpoint",
    "Differentiable",
    "Explainer",
    "Goal",
    "Halves",
    "Occlusion",
    "Omig",
    "Partial",
    "Sensitivity",
    "UpsampledMap",
    "create",
    "get",
    "merge",
    "names",
    "occlusion",
    "omig",
    "register",
    "samples_for",
    "sensitivity",
    "spearman_brown",
    "upsample",
]
