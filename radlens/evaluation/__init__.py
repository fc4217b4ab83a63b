"""Measures of predictions and maps: accuracy, localisation, faithfulness, causality and domain.

Measures that ask a network are imported when they are used.
"""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.evaluation.binary import binary_estimates, binary_measures
    from radlens.evaluation.boxes import (
        DILATION,
        QUANTILE,
        Box,
        IouCurve,
        IouSummary,
        iou,
        iou_curve,
        iou_summary,
        merge_boxes,
        merged_box,
        region_boxes,
        regions_above_quantile,
    )
    from radlens.evaluation.causal import Accuracy, CausalRecord, Criterion, Effect, Elasticity, Quantity, causal_record
    from radlens.evaluation.cdc import (
        LIMITS_UM,
        SIGNS,
        Answer,
        CdcVerdict,
        DiameterVerdict,
        Limit,
        coverage,
        describe,
        linear_interval,
        log_interval,
        rmse,
        skill,
        verdict,
    )
    from radlens.evaluation.classification import (
        Classification,
        Estimate,
        RocCurve,
        RocPoint,
        classification_measures,
        roc_corner,
        roc_curve,
    )
    from radlens.evaluation.counterfactual import Sparsity, closeness, sparsity, stability, validity
    from radlens.evaluation.faithfulness import (
        BLUR_SIGMA,
        Baseline,
        MapKind,
        PerturbationCurve,
        Score,
        baseline_images,
        deletion,
        infidelity,
        insertion,
        max_sensitivity,
        sensitivity_n,
    )
    from radlens.evaluation.masks import (
        area_share,
        centre_distance,
        hausdorff_distance,
        mask_of_area,
        overlap_coefficient,
        percentile_mask,
    )
    from radlens.evaluation.pointing import (
        ANY_REGION,
        RING_MM,
        RegionHits,
        breast_regions,
        pointing_hits,
        pointing_table,
    )
    from radlens.evaluation.randomisation import Randomisation, model_randomisation, model_randomisations
    from radlens.evaluation.signed_rank import SIGNIFICANCE, SignedRank, signed_rank_test
else:
    __getattr__ = lazily(__name__)

__all__ = [
    "ANY_REGION",
    "BLUR_SIGMA",
    "DILATION",
    "LIMITS_UM",
    "QUANTILE",
    "RING_MM",
    "SIGNIFICANCE",
    "SIGNS",
    "Accuracy",
    "Answer",
    "Baseline",
    "Box",
    "CausalRecord",
    "CdcVerdict",
    "Classification",
    "Criterion",
    "DiameterVerdict",
    "Effect",
    "Elasticity",
    "Estimate",
    "IouCurve",
    "IouSummary",
    "Limit",
    "MapKind",
    "PerturbationCurve",
    "Quantity",
    "Randomisation",
    "RegionHits",
    "RocCurve",
    "RocPoint",
    "Score",
    "SignedRank",
    "Sparsity",
    "area_share",
    "baseline_images",
    "binary_estimates",
    "binary_measures",
    "breast_regions",
    "causal_record",
    "centre_distance",
    "classification_measures",
    "closeness",
    "coverage",
    "deletion",
    "describe",
    "hausdorff_distance",
    "infidelity",
    "insertion",
    "iou",
    "iou_curve",
    "iou_summary",
    "linear_interval",
    "log_interval",
    "mask_of_area",
    "max_sensitivity",
    "merge_boxes",
    "merged_box",
    "model_randomisation",
    "model_randomisations",
    "overlap_coefficient",
    "percentile_mask",
    "pointing_hits",
    "pointing_table",
    "region_boxes",
    "regions_above_quantile",
    "rmse",
    "roc_corner",
    "roc_curve",
    "sensitivity_n",
    "signed_rank_test",
    "skill",
    "sparsity",
    "stability",
    "validity",
    "verdict",
]
