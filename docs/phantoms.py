"""Draw ``docs/phantoms.png``: simulated mammograms, ultrasound images and CT of lung nodules, outlined in red."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
from numpy.typing import NDArray

from radlens.phantoms import mammogram, nodule, ultrasound

FIGURE = Path(__file__).with_name("phantoms.png")


def mammograms() -> list[tuple[str, Any, float]]:
    """Return title, image and white level of whole mammograms and patches."""
    spiculated, cluster = (
        mammogram.Mass("irregular", 22.0, 1.1, "spiculated"),
        mammogram.Calcifications("pleomorphic", 14.0, 26, 3.0),
    )
    return [
        ("CC, oval mass", mammogram.simulate(lesions=[mammogram.Mass("oval", 18.0)], seed=5), 4095.0),
        (
            "MLO, spiculated",
            mammogram.simulate(view="MLO", laterality="R", density="C", lesions=[spiculated], seed=8),
            4095.0,
        ),
        (
            "patch: lobulated mass",
            mammogram.simulate_patch(mammogram.Mass("lobulated", 17.0), density="C", seed=3),
            3600.0,
        ),
        (
            "patch: spiculated mass",
            mammogram.simulate_patch(mammogram.Mass("irregular", 15.0, 1.1, "spiculated"), seed=30),
            3600.0,
        ),
        ("patch: calcifications", mammogram.simulate_patch(cluster, density="B", seed=32), 3600.0),
        ("patch: normal tissue", mammogram.simulate_patch(density="C", seed=5), 3600.0),
    ]


def ultrasounds() -> list[tuple[str, Any, float]]:
    """Return title, image and white level of ultrasound images."""
    benign, malignant = (
        ultrasound.Mass(False, 16.0, 9.0, -14.0, "enhancement", rim="capsule"),
        ultrasound.Mass(True, 10, 13, -15, "shadow", "irregular", "spiculated", "halo", "heterogeneous"),
    )
    cyst, combined = (
        ultrasound.Mass(False, 12.0, 8.0, -36.0, "enhancement"),
        ultrasound.Mass(True, 13, 10, -13, "combined", "irregular", "indistinct", "none", "heterogeneous", True),
    )
    cases: list[tuple[str, ultrasound.Mass | None, int]] = [
        ("normal breast", None, 2),
        ("benign, enhancement", benign, 4),
        ("cyst", cyst, 12),
        ("malignant, shadow", malignant, 8),
    ]
    cases += [("malignant, combined", combined, 5)]
    return [(title, ultrasound.simulate(mass, image_shape=(320, 320), seed=seed), 255.0) for title, mass, seed in cases]


def nodules() -> list[tuple[str, Any, float]]:
    """Return title, image and white level of lung nodules."""
    cases = {
        "benign, smooth": nodule.Nodule(False, 9.0, "round", "smooth", "solid"),
        "benign, calcified": nodule.Nodule(False, 11.0, "round", "smooth", "solid", True),
        "benign, lobulated": nodule.Nodule(False, 10.0, "lobulated", "smooth", "solid"),
        "malignant, lobulated": nodule.Nodule(True, 14.0, "lobulated", "spiculated", "solid"),
        "malignant, part-solid": nodule.Nodule(True, 16.0, "round", "spiculated", "part-solid"),
        "malignant, spiculated": nodule.Nodule(True, 17.0, "round", "spiculated", "solid"),
    }
    return [(title, nodule.simulate(each, seed=seed), 400.0) for seed, (title, each) in enumerate(cases.items())]


def show(axes: Any, title: str, image: Any, white: float) -> None:
    """Draw one image in grey, -1000 HU or 0 as black, and the outline of its mask."""
    mask: NDArray[np.bool_] = image.mask if hasattr(image, "mask") else image.lesion_mask
    black = -1000 if image.pixels.min() < 0 else 0
    axes.imshow(image.pixels, cmap="gray", vmin=black, vmax=white, aspect=image.spacing_mm[0] / image.spacing_mm[1])
    if mask.any():
        axes.contour(mask, levels=[0.5], colors="#ff4040", linewidths=0.7)
    axes.set_title(title, fontsize=7, pad=3)
    axes.axis("off")


def main() -> None:
    """Write the figure."""
    figure = plt.figure(figsize=(9.4, 5.8), dpi=110)
    rows = figure.subfigures(3, 1, height_ratios=(1, 1, 0.82), hspace=0)
    drawn = ((mammograms(), (0.5, 0.5, 1, 1, 1, 1)), (ultrasounds(), (1,) * 5), (nodules(), (1,) * 6))
    for part, (cases, ratios) in zip(rows, drawn, strict=True):
        grid = part.subplots(1, len(cases), width_ratios=ratios)
        part.subplots_adjust(left=0.005, right=0.995, bottom=0.005, top=0.905, wspace=0.03)
        for axes, case in zip(grid, cases, strict=True):
            show(axes, *case)
    figure.savefig(FIGURE)


if __name__ == "__main__":
    main()
