"""The inpainter as a model of its own: an image and a mask of holes give the filled image."""

from typing import TYPE_CHECKING

from radlens.lazy import lazily

if TYPE_CHECKING:
    from radlens.families.inpainter.training import TrainedInpainter, load_inpainter_run, train_inpainter
else:
    __getattr__ = lazily(__name__)

__all__ = ["TrainedInpainter", "load_inpainter_run", "train_inpainter"]
