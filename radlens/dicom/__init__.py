"""Answers as DICOM objects: capture, report, parametric map, segmentation and presentation state."""

from radlens.dicom.findings import Findings, Group, Method, Number, Picture, Values
from radlens.dicom.objects import possible, write

__all__ = ["Findings", "Group", "Method", "Number", "Picture", "Values", "possible", "write"]
