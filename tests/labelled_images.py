"""A folder of labelled images, which a small classifier calls right or wrong as told."""

from pathlib import Path

import numpy as np
import torch
from scipy.ndimage import gaussian_filter

from radlens.images import to_png
from radlens.studies import StudyModel


def make_images(root: Path, model: StudyModel, n_right: int = 5, n_wrong: int = 2) -> float:
    """Write images of each class, some of them misclassified, and return the threshold between the classes.

    The network is untrained, so the classes are what it says: a benign image is one that it calls less malignant.

    Args:
        root: new folder.
        model: classifier of two classes, benign and malignant.
        n_right: images of each class that the model classifies correctly.
        n_wrong: images of each class that it does not.
    """
    rng, drawn = np.random.default_rng(0), []
    while len(drawn) < 2 * (n_right + n_wrong):
        soft = gaussian_filter(rng.standard_normal((40, 30)), rng.uniform(0, 4))
        pixels = np.rint(128 + 40 * np.clip(soft / soft.std(), -3, 3)).astype(np.uint8)
        image = torch.from_numpy(model.input.prepare(pixels.astype(np.float32)).pixels[None])
        drawn.append((float(model.probability(image)[0]), pixels))
    drawn.sort(key=lambda each: each[0])
    half = n_right + n_wrong
    for place, (_, pixels) in enumerate(drawn):
        is_called, is_wrong = place >= half, place % half < n_wrong
        folder = root / ("malignant" if is_called != is_wrong else "benign")
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"image-{place}.png").write_bytes(to_png(pixels))
    return (drawn[half - 1][0] + drawn[half][0]) / 2
