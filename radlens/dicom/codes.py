"""Coded concepts of the objects: DICOM's (PS3.16), UCUM's units, and private ones of the scheme 99RADLENS.

A private code never changes its meaning; docs/hospital-engineer.md lists all of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from pydicom import Dataset
from pydicom.sr.coding import Code

__all__ = [
    "ARTIFICIAL_INTELLIGENCE",
    "NO_UNITS",
    "PRIVATE",
    "PROCESSING_EQUIPMENT",
    "SCHEME",
    "VISUAL_EXPLANATION",
    "coded",
    "method_code",
    "method_title",
    "private",
    "scheme_identification",
    "unit_code",
]

SCHEME = "99RADLENS"
"""Coding scheme designator of the private codes; designators that begin with 99 are private (PS3.16 section 8.2)."""

PROCESSING_EQUIPMENT = Code("109102", "DCM", "Processing Equipment")
ARTIFICIAL_INTELLIGENCE = Code("123110", "DCM", "Artificial Intelligence")
VISUAL_EXPLANATION = Code("130401", "DCM", "Visual explanation")

_CID_217 = MappingProxyType(
    {
        "cam": ("CAM", Code("130402", "DCM", "Class activation")),
        "grad_cam": ("Grad-CAM", Code("130403", "DCM", "Gradient-weighted class activation")),
        "saliency": ("Saliency", Code("130404", "DCM", "Saliency")),
        "sensitivity": ("Sensitivity", Code("130404", "DCM", "Saliency")),
    }
)
"""Titles and codes of the methods that CID 217 names; `PRIVATE` holds those of all others."""

PRIVATE: Mapping[str, str] = MappingProxyType(
    {
        # Methods of explanation
        "ABLATION": "Disk ablation",
        "COUNTERFACTUAL": "Counterfactual impact",
        "COUNTERFACT-FAST": "Counterfactual impact, proposed in one pass",
        "CYCLE-ACTIVATION": "CycleGAN activation maximisation",
        "DEEP-LIFT": "DeepLIFT",
        "DEEP-SHAP": "DeepSHAP",
        "GUIDED-GRAD-CAM": "Guided Grad-CAM",
        "INPAINTING": "Inpainting by partial convolutions",
        "INT-GRADIENTS": "Integrated gradients",
        "LIME": "LIME",
        "LRP": "Layer-wise relevance propagation",
        "OCCLUSION": "Occlusion",
        "OMIG": "OMIG",
        "OTHER-METHOD": "Another method of explanation",
        "SHAP": "SHAP",
        "SMOOTH-GRAD": "SmoothGrad",
        # Whether a model can judge an image
        "ASSESSABLE": "Model can judge the image",
        "YES": "Yes",
        "NO": "No",
        "REASON": "Reason against a judgement",
        "UNLIKENESS": "Unlikeness to the training images",
        "UNLIKENESS-LIMIT": "Largest unlikeness that the model can judge",
        "DOMAIN": "Number on which the judgement rests",
        "WARNING": "Warning",
        # Contrast-detail curves
        "DIAMETER": "Disk diameter",
        "THRESHOLD": "Threshold gold thickness",
        "INTERVAL-LOW": "Lower end of the 95 % interval",
        "INTERVAL-HIGH": "Upper end of the 95 % interval",
        "ALEATORIC": "Aleatoric standard deviation",
        "EPISTEMIC": "Epistemic standard deviation",
        "TOTAL": "Total standard deviation",
        "MIDPOINT": "Mean of the 12 thresholds",
        "ACCEPTABLE-LIMIT": "European acceptable limit",
        "ACHIEVABLE-LIMIT": "European achievable limit",
        "ACCEPTABLE": "European acceptable limit is met",
        "ACHIEVABLE": "European achievable limit is met",
        "MET": "Met",
        "NOT-MET": "Not met",
        "NOT-SETTLED": "Not settled",
        "VERDICT": "Verdict in words",
        "N-IMAGES": "Number of combined images",
        "N-SAMPLES": "Number of samples of an image",
        # Classes
        "CLASS": "Class",
        "PREDICTED-CLASS": "Predicted class",
        "EXPLAINED-CLASS": "Explained class",
        "PROBABILITY": "Probability of the class",
        "MEMBERS-STD": "Standard deviation over the members of the ensemble",
        "LOGIT": "Logit of the class",
        # Maps
        "MAP-MAXIMUM": "Largest value of the map",
        "MAP-MINIMUM": "Smallest value of the map",
        "MAP-MAX-ROW": "Row of the largest value, counted from 1",
        "MAP-MAX-COLUMN": "Column of the largest value, counted from 1",
        "MAP-MIN-ROW": "Row of the smallest value, counted from 1",
        "MAP-MIN-COLUMN": "Column of the smallest value, counted from 1",
        "MAP-UNIT": "Unit of the map in words",
        "MEANING": "Meaning of the map",
        "PIXEL-VALUES": "Pixel values of a picture",
        "EVIDENCE": "Strength of a map, without its sign",
        "EVIDENCE-FOR": "Positive parts of a map",
        "EVIDENCE-AGAINST": "Negative parts of a map",
        "RELIABILITY": "Reliability: expected correlation with the map of other samples",
        "DISKS-T": "Paired t of the disks of 1 mm and more",
        "TWIN-T": "Paired t at the same places without disks",
        "STATEMENT": "Finding in words",
        "FURTHER": "Further result",
        # Trust card
        "DELTA": "Convergence delta",
        "DELETION": "Area under the deletion curve",
        "INSERTION": "Area under the insertion curve",
        "INFIDELITY": "Infidelity",
        "INFIDELITY-NONE": "Infidelity of a map of zeros",
        "RANDOM-SPEARMAN": "Rank correlation with the map of a randomised network",
        "RANDOM-SSIM": "Structural similarity to the map of a randomised network",
        "PLANTED": "Planted causes that maps of the method point at",
        "CAUSAL": "Causal record of the model",
        # Inpainting
        "HOLES": "Pixels in holes",
        "MEAN-CHANGE": "Mean absolute change in holes",
    }
)
"""Meaning of each private code, by its value of at most 16 characters (PS3.5 section 6.2, SH)."""

_PRIVATE_METHODS = MappingProxyType(
    {
        "counterfactual_fast": "COUNTERFACT-FAST",
        "integrated_gradients": "INT-GRADIENTS",
    }
)
"""Private codes of methods that are not their names in capitals."""

NO_UNITS = Code("1", "UCUM", "no units")

_UNITS = MappingProxyType(
    {
        "um of gold": Code("um", "UCUM", "um"),
        "um": Code("um", "UCUM", "um"),
        "mm": Code("mm", "UCUM", "mm"),
        "HU": Code("[hnsf'U]", "UCUM", "Hounsfield unit"),
        "logit of the class": Code("{logit}", "UCUM", "logit of the class"),
        "pixels": Code("{pixels}", "UCUM", "pixels"),
    }
)
"""UCUM codes of units; an annotation in braces is a unit of 1 (UCUM section 2.1)."""


def private(value: str) -> Code:
    """Return a private code.

    Raises:
        KeyError: The scheme has no such code.
    """
    return Code(value, SCHEME, PRIVATE[value][:64])


def method_code(name: str) -> Code:
    """Return the concept of a method of explanation: that of CID 217 where it has one, otherwise a private code."""
    if name in _CID_217:
        return _CID_217[name][1]
    value = _PRIVATE_METHODS.get(name, name.upper().replace("_", "-"))
    return private(value if value in PRIVATE else "OTHER-METHOD")


def method_title(name: str) -> str:
    """Return the name of a method for readers; its own, where several methods share a code."""
    return _CID_217[name][0] if name in _CID_217 else method_code(name).meaning


def unit_code(unit: str) -> Code:
    """Return the UCUM code of a unit in the words of an answer; 1, with these words as meaning, for all others."""
    first, _, per = unit.partition(" per ")
    if unit in _UNITS:
        return _UNITS[unit]
    if per and first in _UNITS:
        # The image is preprocessed to values without a unit.
        return Code(_UNITS[first].value, "UCUM", unit[:64])
    return NO_UNITS if unit in ("", "1", "none") else Code("1", "UCUM", unit[:64])


def coded(code: Code) -> Dataset:
    """Return an item of a code sequence, PS3.3 section 8.8."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = code.value, code.scheme_designator, code.meaning
    return item


def scheme_identification() -> Dataset:
    """Return an item of the Coding Scheme Identification Sequence for the private codes, PS3.3 C.12.1.1.11."""
    item = Dataset()
    item.CodingSchemeDesignator, item.CodingSchemeName = SCHEME, "Private codes of radlens"
    item.CodingSchemeResponsibleOrganization = "radlens"
    return item
