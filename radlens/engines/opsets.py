"""Old ONNX files in the operator set that radlens reads: onnx.version_converter.

Attributes of one version are inputs of the next, and axes change their meaning (``Softmax`` before 13), so that an old
file must not be read as a new one.
"""

import onnx
from onnx import ModelProto, helper, shape_inference, version_converter

from radlens.errors import BundleError

__all__ = ["OLDEST", "OLD_NEAREST", "opset_of", "up_to_date"]

OLDEST = 13
"""First operator set whose meaning :mod:`radlens.engines.torch_operations` implements."""

OLD_NEAREST = "simple"
"""Rounding of ``Resize`` before opset 11 in ONNX Runtime: up where the axis gets shorter, otherwise down. It is no name
of ONNX; only :mod:`radlens.engines.torch_operations` sees it."""

_NEW_RESIZE = 11
"""First operator set in which ``Resize`` says how coordinates are computed."""


def opset_of(model: ModelProto) -> int:
    """Return the version of the standard operator set of a file."""
    return next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 1)


def up_to_date(model: ModelProto, name: str) -> ModelProto:
    """Return a model in operator set 13 or newer, converted if it is older.

    Args:
        model: Contents of the file.
        name: Name of the file, for messages.

    Raises:
        BundleError: The converter refuses the model.
    """
    opset = opset_of(model)
    if opset >= OLDEST:
        return model
    try:
        made = version_converter.convert_version(shape_inference.infer_shapes(model), OLDEST)
    except (
        version_converter.ConvertError,
        shape_inference.InferenceError,
        onnx.checker.ValidationError,
        RuntimeError,
        ValueError,
    ) as error:
        reason = " ".join(str(error).split())[:200]
        raise BundleError(
            f"{name} must be of ONNX operator set {OLDEST} or newer, got {opset}, which cannot be converted "
            f"({reason}); export the model again with opset_version=17"
        ) from error
    if opset < _NEW_RESIZE:
        _as_before_11(made)
    return made


def _as_before_11(model: ModelProto) -> None:
    """Give each ``Resize`` the coordinates of opset 10, which the converter leaves out (onnx 1.23)."""
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
            node.attribute.append(helper.make_attribute("nearest_mode", OLD_NEAREST))
