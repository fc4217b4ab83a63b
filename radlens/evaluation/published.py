"""Results printed in the papers, for comparison with measurements.

Amanova et al., "Explainability for deep learning in mammography image quality assessment", Machine Learning: Science
and Technology 2022: recorded and simulated images of a phantom. Sam Millan, "Deep Learning Explainability for Breast
Cancer Detection in Mammography", master thesis, Universitat de Girona, 2023. Byra et al., "Explaining a deep learning
based breast ultrasound image classifier with saliency maps", Journal of Ultrasonography 2022. The numbers of the latter
two are for images of patients, with other classes, scanners and numbers of cases than the simulations here.
"""

from collections.abc import Mapping
from typing import NamedTuple

from radlens.evaluation.pointing import ANY_REGION

__all__ = [
    "AMANOVA_CITATION",
    "AMANOVA_COVERAGE",
    "AMANOVA_PARAMETERS",
    "BYRA_CITATION",
    "BYRA_CLASSIFICATION",
    "BYRA_DATA",
    "BYRA_DATASET",
    "BYRA_POINTING",
    "KATZMANN_CITATION",
    "KATZMANN_DATA",
    "KATZMANN_TABLE_1",
    "KATZMANN_TRANSFER",
    "MAJOR_AUC",
    "MAJOR_CITATION",
    "MAJOR_DATA",
    "MAJOR_TABLE_1",
    "MAJOR_TABLE_2",
    "SAM_MILLAN_CITATION",
    "SAM_MILLAN_DATA",
    "SAM_MILLAN_DATASETS",
    "SAM_MILLAN_IOU",
    "SAM_MILLAN_IOU_NOTE",
    "SAM_MILLAN_MODELS",
    "ClassCounts",
    "Published",
    "PublishedModel",
]

AMANOVA_CITATION = (
    "N. Amanova, J. Martin, C. Elster: Explainability for deep learning in mammography image quality assessment. "
    "Machine Learning: Science and Technology 3 (2022) 025015."
)
"""Reference of the paper on OMIG."""

SAM_MILLAN_CITATION = (
    "K. G. Sam Millan, R. Martí: Deep Learning Explainability for Breast Cancer Detection in Mammography. "
    "Master thesis, Universitat de Girona, June 2023."
)
"""Reference of the thesis."""

BYRA_CITATION = (
    "M. Byra, K. Dobruch-Sobczak, H. Piotrzkowska-Wroblewska, Z. Klimonda, J. Litniewski: Explaining a deep learning "
    "based breast ultrasound image classifier with saliency maps. Journal of Ultrasonography 2022. "
    "DOI 10.15557/JoU.2022.0013."
)
"""Reference of the ultrasound paper."""


class Published(NamedTuple):
    """A number that a paper prints.

    Attributes:
        value: the number; percentages as fractions, so 34 % is 0.34.
        spread: number that the paper prints after "±"; None without one.
        source: table or section of the paper.
    """

    value: float
    spread: float | None
    source: str


class PublishedModel(NamedTuple):
    """A classifier of the thesis and its result on the validation part of its data.

    Attributes:
        network: name in the thesis.
        task: "patches" or "whole mammograms".
        data: name of the data set.
        measure: "accuracy" or "AUC".
        published: the result.
    """

    network: str
    task: str
    data: str
    measure: str
    published: Published


class ClassCounts(NamedTuple):
    """Images of one class of a data set.

    Attributes:
        data: name of the data set.
        label: name of the class.
        train: number of training images.
        validation: number of validation images.
        total: number of images, as printed.
    """

    data: str
    label: str
    train: int
    validation: int
    total: int


AMANOVA_PARAMETERS: Mapping[str, Published] = {
    "c": Published(1.0, None, "section 2.3.1"),
    "L": Published(50, None, "section 2.3.1"),
    "t": Published(3.0, None, "section 2.3.1"),
    "N": Published(5000, None, "section 3"),
    "members": Published(10, None, "section 2.2"),
}
"""Length of the path (c), its steps (L), threshold of the Z-score (t), samples of an upsampled map (N), networks."""

AMANOVA_COVERAGE: Mapping[str, Published] = {
    "recorded": Published(1.0, None, "section 2.2"),
    "scenario 1": Published(0.971, None, "section 2.2"),
    "scenario 2": Published(0.991, None, "section 2.2"),
    "scenario 3": Published(0.969, None, "section 2.2"),
    "scenario 4": Published(0.61, None, "section 2.2"),
    "OOD": Published(0.987, None, "section 2.2"),
}
"""Fraction of true thresholds within 1.96 total uncertainties, for 24 recorded images, 1200 images of each scenario and
200 of OOD."""

_ICEBERG, _RSNA, _HOLOGIC = "OMI-DB, Iceberg Selection (patches)", "RSNA 2022 subset", "OMI-DB, Hologic subset"

SAM_MILLAN_DATA = "patients of OMI-DB and RSNA 2022"
"""Data of the thesis, for the heads of columns."""

SAM_MILLAN_DATASETS: tuple[ClassCounts, ...] = (
    ClassCounts(_ICEBERG, "non-malignant", 3045, 763, 3808),
    ClassCounts(_ICEBERG, "malignant", 3045, 763, 3808),
    ClassCounts(_RSNA, "non-malignant", 1647, 411, 2058),
    ClassCounts(_RSNA, "malignant", 562, 147, 709),
    ClassCounts(_HOLOGIC, "non-malignant", 2896, 719, 3615),
    ClassCounts(_HOLOGIC, "malignant", 2892, 722, 3614),
)
"""Table 1. Section 3.1 gives 1647 negative and 562 positive images of RSNA 2022; these are its training part."""

SAM_MILLAN_MODELS: tuple[PublishedModel, ...] = (
    PublishedModel("ResNet-50", "patches", _ICEBERG, "accuracy", Published(0.97, None, "section 3.2.2")),
    PublishedModel("MobileNetV2", "patches", _ICEBERG, "accuracy", Published(0.93, None, "section 3.2.2")),
    PublishedModel("EfficientNet-B0", "whole mammograms", _RSNA, "AUC", Published(0.72, None, "section 3.2.3")),
    PublishedModel("EfficientNet-B0", "whole mammograms", _HOLOGIC, "AUC", Published(0.83, None, "section 3.2.3")),
)
"""Sections 3.2.2 and 3.2.3, on the validation part; the thesis has no separate test part."""

SAM_MILLAN_IOU: Mapping[str, str] = {
    "integrated_gradients": "highest",
    "occlusion": "one of the two highest",
    "lime": "one of the two lowest",
    "shap": "one of the two lowest",
    "saliency": "between, order not stated",
    "guided_grad_cam": "between, order not stated",
    "deep_lift": "between, order not stated",
}
"""Rank of each method by the IoU of its boxes: abstract, section 4.2 and section 5."""

SAM_MILLAN_IOU_NOTE = (
    "The thesis prints no IoU as a number: its Figs. 5 and 6 are drawings, and its text (abstract, sections 4.2 and 5) "
    "names the two best methods and the two worst."
)
"""Reason why studies show no published IoU."""

BYRA_DATA = "patients with 272 masses"
"""Data of the ultrasound paper, for the heads of columns."""

BYRA_DATASET: Mapping[str, Published] = {
    "masses": Published(272, None, "Materials and methods, Dataset"),
    "malignant": Published(123, None, "Materials and methods, Dataset"),
    "benign": Published(149, None, "Materials and methods, Dataset"),
    "training set": Published(204, None, "Materials and methods, Dataset"),
    "test set": Published(68, None, "Materials and methods, Dataset"),
}
"""Numbers of masses; each has two orthogonal scans."""

BYRA_CLASSIFICATION: Mapping[str, Published] = {
    "auc": Published(0.887, 0.015, "Table 1"),
    "accuracy": Published(0.835, 0.018, "Table 1"),
    "sensitivity": Published(0.801, 0.025, "Table 1"),
    "specificity": Published(0.868, 0.023, "Table 1"),
}
"""Results on the test set; all except the AUC at the point of the ROC curve nearest to the upper left corner. The paper
does not define the number after "±"."""

BYRA_POINTING: Mapping[str, Published] = {
    "mass": Published(0.34, None, "Table 2"),
    "peritumoral": Published(0.38, None, "Table 2"),
    "below": Published(0.30, None, "Table 2"),
    ANY_REGION: Published(0.71, None, "Table 2"),
}
"""Fraction of the correctly classified test images whose map has an extreme in the region."""


MAJOR_CITATION = (
    "D. Major, D. Lenis, M. Wimmer, G. Sluiter, A. Berg, K. Bühler: Interpreting medical image classifiers by "
    "optimization based counterfactual impact analysis. IEEE International Symposium on Biomedical Imaging 2020."
)
"""Reference of the paper on counterfactual impact analysis."""

MAJOR_DATA = "DDSM and CBIS-DDSM, 576x448"
"""Data of the paper."""

MAJOR_AUC: Mapping[str, str] = {"none": "0.89", "healthy tissue": "0.88", "mass tissue": "0.83"}
"""Areas under the ROC curve (Fig. 2), by what was inpainted."""

MAJOR_TABLE_1: Mapping[str, Mapping[str, str]] = {
    "D": {
        "50": "137.1±69.5, 200.1±65.3, 164.2±36.0",
        "75": "137.1±69.5, 182.1±78.9, 162.9±36.9",
        "90": "137.1±69.5, 144.1±89.3, 166.3±44.0",
        "ablation": "163.3±35.9",
    },
    "H": {
        "50": "227.1±82.1, 359.3±83.9, 371.3±61.5",
        "75": "227.1±82.1, 308.5±103.4, 350.3±63.1",
        "90": "227.1±82.1, 232.2±121, 328.9±64.5",
        "ablation": "328.1±69.5",
    },
}
"""Distances of Table 1 in pixels: ours, CAM, saliency by percentile."""

MAJOR_TABLE_2: Mapping[str, str] = {
    "50": ".02±.02, .43±.10, .50±.0; .60±.33, .86±.14",
    "75": ".02±.02, .24±.03, .25±.0; .44±.32, .64±.22",
    "90": ".02±.02, .10±.0, .10±.0; .23±.25, .39±.23",
}
"""Table 2: A of ours, CAM, saliency; O of CAM, saliency, by percentile."""


KATZMANN_CITATION = (
    "A. Katzmann, O. Taubmann, S. Ahmad, A. Mühlberg, M. Sühling, H.-M. Groß: Explaining clinical decision support "
    "systems in medical imaging using cycle-consistent activation maximization. Neurocomputing 458, 2021, 141-156."
)
"""Reference of the paper on CycleGAN activation maximisation."""

KATZMANN_DATA = "LIDC-IDRI"
"""Data of the paper."""

KATZMANN_TABLE_1: Mapping[str, str] = {
    "accuracy": ".809 [.757, .860]",
    "f1": ".801 [.737, .856]",
    "sensitivity": ".813 [.737, .884]",
    "specificity": ".805 [.729, .866]",
    "ppv": ".790 [.715, .861]",
    "npv": ".826 [.757, .894]",
    "informedness": ".618 [.514, .719]",
    "markedness": ".616 [.511, .718]",
    "mcc": ".617 [.511, .718]",
    "auc": ".809 [.757, .860]",
}
"""Table 1: measures of the ConvNet with 95 % intervals."""

KATZMANN_TRANSFER: Mapping[str, str] = {
    "x": ".470 [.418, .522]",
    "G-(x)": ".289 [.250, .330], t = 14.5",
    "G+(x)": ".820 [.788, .848], t = 17.9",
}
"""Section 4.1: mean probabilities of malignancy; the paper prints t(233), and 235 patches have t(234)."""
