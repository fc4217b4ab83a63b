"""Results as `radlens predict` and `radlens read-out` write them, made without a model."""

from typing import Any

import numpy as np

from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

CURVE_UM = np.array([0.06, 0.075, 0.09, 0.105, 0.135, 0.19, 0.25, 0.34, 0.48, 0.72, 1.2, 1.9])


def image_stated(number: int, **changes: Any) -> dict[str, Any]:
    """What a result says of one image, acquired on a day of January 2026."""
    return {
        "sha256": f"{number:064x}",
        "sop_instance_uid": f"1.2.3.{number}",
        "acquired": f"2026-01-{number:02d}T08:30:00",
        "station_name": "MG1",
        "device_serial_number": "4711",
    } | changes


def curve_fields(scale: float) -> dict[str, Any]:
    """A curve and an interval of a tenth to either side."""
    mean = scale * CURVE_UM
    return {
        "diameters_mm": list(CDC_DIAMETERS_MM),
        "mean_um": mean.tolist(),
        "interval_um": np.stack([0.9 * mean, 1.1 * mean], axis=-1).tolist(),
    }


def prediction(number: int = 1, scale: float = 1.0, **changes: Any) -> dict[str, Any]:
    """A prediction of one image; `changes` are of what is said of the image."""
    return {
        "assessable": True,
        "reasons": [],
        "prediction": curve_fields(scale),
        "provenance": {
            "model": "cdmam",
            "version": "2.0",
            "bundle_hash": "ab" * 32,
            "libraries": {"radlens": "0.1.0"},
            "input": image_stated(number, **changes),
            "time": "2026-03-04T05:06:07.000+00:00",
        },
    }


def read_out(first: int = 1, n_images: int = 16, **changes: Any) -> dict[str, Any]:
    """A read-out of several images."""
    images = [image_stated(1, sop_instance_uid=f"1.2.4.{first + i}", **changes) for i in range(n_images)]
    stated = {"libraries": {"radlens": "0.1.0"}, "time": "2026-03-04T05:06:07.000+00:00"}
    return {"assessable": True, "read_out": curve_fields(1.0), "images": images, "provenance": stated}
