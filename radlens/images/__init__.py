"""Bytes to images and back: DICOM, PNG, TIFF and NumPy, and the 250x250 samples a network sees."""

from radlens.images.image import MAX_PIXELS, MEDIA_TYPES, Image, require_shape
from radlens.images.reading import read
from radlens.images.sampling import SAMPLED_SHAPE, SAMPLERS, Sampled, downsample, sample_indices
from radlens.images.writing import to_npy, to_png, to_tiff

__all__ = [
    "MAX_PIXELS",
    "MEDIA_TYPES",
    "SAMPLED_SHAPE",
    "SAMPLERS",
    "Image",
    "Sampled",
    "downsample",
    "read",
    "require_shape",
    "sample_indices",
    "to_npy",
    "to_png",
    "to_tiff",
]
