"""Error, coverage and width of the curve of several images of one exposure, on exposures that no calibration saw.

    python benchmarks/combined_images.py export/cdmam_demo --exposures 12

Sixteen images of each exposure are drawn in full, with their own noise and positions, and read by the members of a run.
Their first 1, 4 and 16 are combined as ``radlens predict`` combines images.
"""

import argparse
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np
import torch
from measuring import machine, machine_line, save, show
from rich.progress import track

from radlens.families.cdmam.calibration import Calibration
from radlens.families.cdmam.reader import Curve, PhantomReader, combined
from radlens.families.cdmam.training import load_run
from radlens.networks import FoldedCdmamEnsemble
from radlens.phantoms import cdmam
from radlens.pools import process_pool

N_IMAGES = 16
COMBINED = (1, 4, 16)
SEED = 20_261_127
"""Seed of the exposures; no training or calibration uses it."""

_worker: dict[str, FoldedCdmamEnsemble] = {}


def main() -> None:
    """Measure as the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run of the registered recipe")
    parser.add_argument("--exposures", type=int, default=12, help="number of exposures (default 12)")
    parser.add_argument("--workers", type=int, default=2, help="number of processes (default 2)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = load_run(options.run)
    calibration = Calibration.from_json(run.record["calibration"])
    with process_pool(options.workers, _start, run.ensemble()) as pool:
        found = pool.map(partial(read, calibration=calibration), range(options.exposures))
        curves = list(track(found, "reading exposures", total=options.exposures))
    true = cdmam.expected_cdc([exposure(k) for k in range(options.exposures)])
    rows = [summary(n, [combined(each[:n], calibration) for each in curves], true) for n in COMBINED]
    single = rows[0]["width"]
    print(machine_line(machine()))
    table = [[*row.values(), f"{row['width'] / single:.2f}"] for row in rows]
    show(f"{options.exposures} exposures", [*rows[0], "of one image's"], table)
    if options.output is not None:
        save(options.output, {"machine": machine(), "exposures": options.exposures, "rows": rows})


def exposure(k: int) -> cdmam.Acquisition:
    """Return an exposure of the training range."""
    return cdmam.sample_acquisition(np.random.default_rng([SEED, k]))


def _start(model: FoldedCdmamEnsemble) -> None:
    torch.set_num_threads(1)
    _worker["model"] = model


def read(k: int, calibration: Calibration) -> list[Curve]:
    """Return the curve of each image of an exposure."""
    reader, rng = PhantomReader(_worker["model"], calibration), np.random.default_rng([SEED, k, 1])
    curves = []
    for i in range(N_IMAGES):
        layout = cdmam.sample_layout(rng, (1, 2, 3, 4, 5))
        image = cdmam.simulate(exposure(k), layout, seed=1_000_000 + 1_000 * k + i)
        curves.append(reader.read(cdmam.register(image.pixels, layout.spacing_mm), seed=i))
    return curves


def summary(n: int, curves: list[Curve], true: np.ndarray) -> Mapping[str, float]:
    """Return the error of the midpoint, the coverage of the points and the relative width of their intervals."""
    errors = [np.log(found.midpoint / its.mean()) for found, its in zip(curves, true, strict=True)]
    inside = [
        (found.interval[:, 0] <= its) & (its <= found.interval[:, 1]) for found, its in zip(curves, true, strict=True)
    ]
    width = [np.ptp(found.interval, axis=1) / found.mean for found in curves]
    return {
        "images": n,
        "rms": float(np.sqrt(np.mean(np.square(errors)))),
        "coverage": float(np.mean(inside)),
        "width": float(np.mean(width)),
    }


if __name__ == "__main__":
    main()
