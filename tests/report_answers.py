"""Answers as a served phantom model gives them, made without one."""

from typing import Any

import numpy as np
from results import CURVE_UM, image_stated

RELATIVE_UM = 0.05


def curve_fields(scale: float = 1.0, n_images: int = 1, half_width: float = 0.1) -> dict[str, Any]:
    """A curve whose interval reaches ``half_width`` to either side."""
    mean = scale * CURVE_UM
    return {
        "mean_um": mean.tolist(),
        "aleatoric_um": (RELATIVE_UM * mean).tolist(),
        "epistemic_um": (0.02 * mean).tolist(),
        "total_um": (0.054 * mean).tolist(),
        "interval_um": np.stack([(1 - half_width) * mean, (1 + half_width) * mean], axis=-1).tolist(),
        "midpoint_um": float(mean.mean()),
        "n_images": n_images,
        "n_samples": 16,
    }


def provenance(**changes: Any) -> dict[str, Any]:
    """Where an answer comes from."""
    return {
        "model": "cdmam",
        "version": "2.0",
        "bundle_hash": "ab" * 32,
        "training": {"recordings": "none: trained on simulated images only"},
        "engine": "onnxruntime",
        "sampling": {"sampler": "stratified", "seed": 6, "n_samples": 16},
        "libraries": {"radlens": "0.1.0", "numpy": "2.4.6"},
        "input": image_stated(1),
        "time": "2026-03-04T05:06:07.000+00:00",
        "request_id": "a request",
    } | changes


def predicted(**changes: Any) -> dict[str, Any]:
    """A prediction of one image that can be judged."""
    return {
        "task": "cdmam-cdc",
        "assessable": True,
        "reasons": [],
        "assessment": {"correlation": 0.931, "missing": 0.0, "blur_mm": 0.1234, "hits": 151, "unknown_number": 2.5},
        "prediction": curve_fields(),
        "verdict": None,
        "warnings": [],
        "provenance": provenance(),
    } | changes


def refused(*reasons: str, **changes: Any) -> dict[str, Any]:
    """A prediction of an image that cannot be judged."""
    return predicted(assessable=False, reasons=list(reasons), prediction=None, **changes)


def several(n: int = 5, *, outlier: int = 2, refusal: int = 3) -> dict[str, Any]:
    """A prediction of ``n`` images, one of them an outlier and one that cannot be judged."""
    images = [
        image_stated(number)
        | {
            "assessable": number != refusal,
            "reasons": ["no phantom was found"] if number == refusal else [],
            "assessment": {"correlation": 0.9},
            "is_outlier": number == outlier,
            "is_repeated": False,
            "counts": number not in (outlier, refusal),
            "prediction": None if number == refusal else curve_fields(1 + 0.01 * number + 1.5 * (number == outlier)),
        }
        for number in range(1, n + 1)
    ]
    return predicted(
        prediction=curve_fields(n_images=n - 2, half_width=0.06),
        images=images,
        assessment={"n_images": n - 2},
        provenance=provenance(inputs=[image_stated(number) for number in range(1, n + 1)]),
        warnings=[f"2 of {n} images are left out of the combined curve"],
    )


def contrast(t: float | None, redder: float = 0.94) -> dict[str, Any]:
    """What a map says of one group of disks."""
    return {"n": 52, "disk": 0.02, "ring": 0.001, "t": t, "redder": redder, "red": 0.9}


def disks(*, marks: bool = True) -> dict[str, Any]:
    """The statistic of a map beside that of its disk-free twin."""
    t = 14.2 if marks else 2.1
    return {
        "disks": {"large": contrast(t), "middle": contrast(6.5), "small": contrast(1.2), "empty": contrast(None)},
        "twin": {name: contrast(3.1, 0.6) for name in ("large", "middle", "small", "empty")},
        "reliability": 0.81,
        "marks_disks": marks,
        "sentence": (
            "This map marks the disks of this image (paired t of 52 large thick disks 14.2, with the disks removed "
            "3.1; 94% of them are red against their surroundings)."
            if marks
            else "This map is empty: it does not mark the disks of this image (paired t of 52 large thick disks 2.1)."
        ),
    }


def explanation(shape: tuple[int, int], *, seed: int = 0, **changes: Any) -> dict[str, Any]:
    """A decoded map of an image; ``changes`` are of the map's fields."""
    values = np.random.default_rng(seed).normal(0, 0.01, shape)
    return {
        "task": "cdmam-cdc",
        "assessable": True,
        "reasons": [],
        "explanation": {
            "method": "omig",
            "unit": "standard deviations of the image's own noise, compressed by asinh",
            "meaning": "",
            "n_samples": 400,
            "normalize": "paper",
            "reliability": 0.81,
            "disks": disks(),
            "map": values.astype(np.float32),
            "visits": np.full(shape, 4),
        }
        | changes,
        "warnings": [],
        "provenance": provenance(
            explainer={"name": "omig", "parameters": {"n_steps": 4, "path_length": 1.0, "zscore": 3.0}},
            sampling={"sampler": "stratified", "seed": 6, "n_samples": 400, "reliability": 0.81},
            request_id="another request",
        ),
    }


def ablation() -> dict[str, Any]:
    """A disk ablation in which thick disks carry the curve."""
    thickness = np.arange(16)[None] * np.ones((16, 1))
    effect = np.where(thickness > 9, 0.01, 0.0)
    return {
        "task": "cdmam-cdc",
        "assessable": True,
        "reasons": [],
        "explanation": {
            "method": "ablation",
            "prediction": curve_fields(),
            "effect": [
                [None if (i + j) % 37 == 36 else float(v) for j, v in enumerate(row)] for i, row in enumerate(effect)
            ],
            "significant": (effect > 0).tolist(),
            "n_samples": 8,
            "seed": 6,
            "statement": "Disks above the line carried this prediction, disks below it did not.",
        },
        "warnings": [],
        "provenance": provenance(request_id="a third request"),
    }
