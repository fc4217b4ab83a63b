"""Packages that need torch import this module first, so that a missing torch is an error that names the extra."""

from radlens.extras import require

require("torch", "onnx", "onnx_ir", "google.protobuf")
