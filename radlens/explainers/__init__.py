"""Explanation methods, one file each, registered where they are defined."""

import radlens.extras.needs_torch  # noqa: F401 (raises without torch)
from radlens.explainers.base import Attribution, Explainer, create, get, names, register, variants
from radlens.explainers.cam import Cam, GradCam, GuidedGradCam
from radlens.explainers.checkpoint import Checkpoint
from radlens.explainers.counterfactual import Counterfactual
from radlens.explainers.counterfactual_fast import CounterfactualFast
from radlens.explainers.cycle_activation import CycleActivation
from radlens.explainers.deep_lift import DeepLift
from radlens.explainers.deep_shap import DeepShap
from radlens.explainers.eager import EagerClassifier
from radlens.explainers.integrated_gradients import IntegratedGradients
from radlens.explainers.lrp import Lrp
from radlens.explainers.model import Model
from radlens.explainers.occlusion import Occlusion
from radlens.explainers.omig import Omig, omig
from radlens.explainers.saliency import Saliency
from radlens.explainers.scores import n_classes, predicted, probabilities
from radlens.explainers.sensitivity import Sensitivity, sensitivity
from radlens.explainers.smooth_grad import SmoothGrad
from radlens.explainers.superpixels import Lime, Shap, superpixels
from radlens.explainers.upsampling import Partial, merge, upsample
from radlens.explainers.work import Ask, Work, complete, images_per_call, of_member
from radlens.maps import Goal, Halves, UpsampledMap, samples_for, spearman_brown

__all__ = [
    "Ask",
    "Attribution",
    "Cam",
    "Checkpoint",
    "Counterfactual",
    "CounterfactualFast",
    "CycleActivation",
    "DeepLift",
    "DeepShap",
    "EagerClassifier",
    "Explainer",
    "Goal",
    "GradCam",
    "GuidedGradCam",
    "Halves",
    "IntegratedGradients",
    "Lime",
    "Lrp",
    "Model",
    "Occlusion",
    "Omig",
    "Partial",
    "Saliency",
    "Sensitivity",
    "Shap",
    "SmoothGrad",
    "UpsampledMap",
    "Work",
    "complete",
    "create",
    "get",
    "images_per_call",
    "merge",
    "n_classes",
    "names",
    "of_member",
    "omig",
    "predicted",
    "probabilities",
    "register",
    "samples_for",
    "sensitivity",
    "spearman_brown",
    "superpixels",
    "upsample",
    "variants",
]
