"""Pictures and pages for people: maps, overlays, curves, reports and studies."""

from typing import TYPE_CHECKING

from radlens.figures.figure_map import figure_map
from radlens.figures.study_page import PictureBlock, Section, StudyContent, Table, study_page
from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.figures.attribution import (
        ExplainedImage,
        MethodMaps,
        figure_attributions,
        figure_members,
        figure_segments,
    )
    from radlens.figures.boxes import figure_box_steps, figure_iou_boxes, figure_iou_curves
    from radlens.figures.charts import figure_score_boxes, method_title
    from radlens.figures.curves import Curve, figure_before_after, figure_cdc, figure_error_uncertainty
    from radlens.figures.faithfulness import ScoreCurves, figure_perturbation, figure_randomisation
    from radlens.figures.history import figure_history
    from radlens.figures.maps import (
        Box,
        colorize,
        cutout,
        cutout_map,
        display_grey,
        display_map,
        overlay,
        symmetric_limit,
    )
    from radlens.figures.not_assessable import figure_not_assessable
    from radlens.figures.page import MEANING_OF_COLOURS, Picture, ReportContent, report_page
    from radlens.figures.panels import save
    from radlens.figures.pictures import save_small
    from radlens.figures.pointing import PointingCase, figure_pointing, figure_regions
    from radlens.figures.read_out import figure_hits
    from radlens.figures.regions import LARGE_DISKS, SMALL_DISKS, region
    from radlens.figures.reliability import ReliabilityCurve, figure_reliability
    from radlens.figures.report import report_content
    from radlens.figures.roc import OperatingPoint, ScoredCases, figure_roc
    from radlens.figures.strip import animated_strip, figure_strip
    from radlens.figures.studies import (
        MethodsRow,
        PathLength,
        UpsampledRow,
        figure_methods,
        figure_path_lengths,
        figure_rotation,
        figure_scenario,
        figure_upsampled,
    )
    from radlens.figures.study_tables import (
        FaithfulnessScores,
        ModelResult,
        chance_hits,
        classification_table,
        datasets_table,
        faithfulness_table,
        iou_table,
        models_table,
        pointing_hits_table,
    )
    from radlens.figures.study_texts import BYRA_READING, LIMITS_PATIENTS, LIMITS_SIMULATED, SAM_MILLAN_READING
else:
    __getattr__ = lazily(__name__)

__all__ = [
    "BYRA_READING",
    "LARGE_DISKS",
    "LIMITS_PATIENTS",
    "LIMITS_SIMULATED",
    "MEANING_OF_COLOURS",
    "SAM_MILLAN_READING",
    "SMALL_DISKS",
    "Box",
    "Curve",
    "ExplainedImage",
    "FaithfulnessScores",
    "MethodMaps",
    "MethodsRow",
    "ModelResult",
    "OperatingPoint",
    "PathLength",
    "Picture",
    "PictureBlock",
    "PointingCase",
    "ReliabilityCurve",
    "ReportContent",
    "ScoreCurves",
    "ScoredCases",
    "Section",
    "StudyContent",
    "Table",
    "UpsampledRow",
    "animated_strip",
    "chance_hits",
    "classification_table",
    "colorize",
    "cutout",
    "cutout_map",
    "datasets_table",
    "display_grey",
    "display_map",
    "faithfulness_table",
    "figure_attributions",
    "figure_before_after",
    "figure_box_steps",
    "figure_cdc",
    "figure_error_uncertainty",
    "figure_history",
    "figure_hits",
    "figure_iou_boxes",
    "figure_iou_curves",
    "figure_map",
    "figure_members",
    "figure_methods",
    "figure_not_assessable",
    "figure_path_lengths",
    "figure_perturbation",
    "figure_pointing",
    "figure_randomisation",
    "figure_regions",
    "figure_reliability",
    "figure_roc",
    "figure_rotation",
    "figure_scenario",
    "figure_score_boxes",
    "figure_segments",
    "figure_strip",
    "figure_upsampled",
    "iou_table",
    "method_title",
    "models_table",
    "overlay",
    "pointing_hits_table",
    "region",
    "report_content",
    "report_page",
    "save",
    "save_small",
    "study_page",
    "symmetric_limit",
]
