"""Imported first by packages that are nothing without torch: the error then names the extra and not a module."""

from radlens.extras import require

require("torch", "onnx", "onnx_ir", "google.protobuf")
