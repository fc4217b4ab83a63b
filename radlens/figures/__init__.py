"""Maps, overlays, curves and the report page: what a person looks at."""

from radlens.figures.curves import Curve, figure_before_after, figure_cdc, figure_error_uncertainty
from radlens.figures.figure_map import figure_map
from radlens.figures.maps import Box, colorize, cutout, cutout_map, display_grey, display_map, overlay, symmetric_limit
from radlens.figures.page import MEANING_OF_COLOURS, Picture, ReportContent, report_page
from radlens.figures.panels import save
from radlens.figures.regions import LARGE_DISKS, SMALL_DISKS, region
from radlens.figures.reliability import ReliabilityCurve, figure_reliability
from radlens.figures.report import report_content
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

__all__ = [
    "LARGE_DISKS",
    "MEANING_OF_COLOURS",
    "SMALL_DISKS",
    "Box",
    "Curve",
    "MethodsRow",
    "PathLength",
    "Picture",
    "ReliabilityCurve",
    "ReportContent",
    "UpsampledRow",
    "colorize",
    "cutout",
    "cutout_map",
    "display_grey",
    "display_map",
    "figure_before_after",
    "figure_cdc",
    "figure_error_uncertainty",
    "figure_map",
    "figure_methods",
    "figure_path_lengths",
    "figure_reliability",
    "figure_rotation",
    "figure_scenario",
    "figure_upsampled",
    "overlay",
    "region",
    "report_content",
    "report_page",
    "save",
    "symmetric_limit",
]
