"""Simulators of test objects and patient images with known ground truth."""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.phantoms import cdmam, mammogram, nodule, ultrasound
else:
    __getattr__ = lazily(__name__)

__all__ = ["cdmam", "mammogram", "nodule", "ultrasound"]
