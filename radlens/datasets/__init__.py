"""Public data sets on the user's disk: cases with lazy pixels, boxes and masks; splits, pre-processing and patches."""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.datasets import preprocessing
    from radlens.datasets.busi import open_busi
    from radlens.datasets.case import LABELS, Box, Case, Dataset, Label, Laterality, Sample
    from radlens.datasets.cbis_ddsm import open_cbis_ddsm, open_cbis_ddsm_patches
    from radlens.datasets.files import mask_box
    from radlens.datasets.lidc_idri import open_lidc_idri
    from radlens.datasets.model_input import ModelInput, Prepared
    from radlens.datasets.oasbud import b_mode, open_oasbud
    from radlens.datasets.omi_db import open_omi_db
    from radlens.datasets.opening import DATASETS, open_dataset
    from radlens.datasets.patches import PATCH_SIZE, Patch, draw_patches
    from radlens.datasets.preprocessing import Frame, breast_frame, in_frame, resized
    from radlens.datasets.rsna import open_rsna_2022
    from radlens.datasets.splits import Split, split_patients
else:
    __getattr__ = lazily(__name__)

__all__ = [
    "DATASETS",
    "LABELS",
    "PATCH_SIZE",
    "Box",
    "Case",
    "Dataset",
    "Frame",
    "Label",
    "Laterality",
    "ModelInput",
    "Patch",
    "Prepared",
    "Sample",
    "Split",
    "b_mode",
    "breast_frame",
    "draw_patches",
    "in_frame",
    "mask_box",
    "open_busi",
    "open_cbis_ddsm",
    "open_cbis_ddsm_patches",
    "open_dataset",
    "open_lidc_idri",
    "open_oasbud",
    "open_omi_db",
    "open_rsna_2022",
    "preprocessing",
    "resized",
    "split_patients",
]
