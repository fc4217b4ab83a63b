"""Cross-validate the calibration of the phantom model: its error and coverage on held-out phantoms.

    python benchmarks/calibration.py export/cdmam_demo build/calibration

Each of 100 exposures is simulated twice at full size and read by the members of a run. A fifth of the exposures at a
time is held out, and the calibration of the others is applied to it. Two baselines have less information: one exchanges
the blur of the disks among the exposures, the other predicts the mean curve.
"""

import argparse
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from measuring import machine, machine_line, save, show
from numpy.typing import NDArray

from radlens.cli.console import stages
from radlens.families.cdmam.calibration import Calibration, calibrate
from radlens.families.cdmam.reader import DEFAULT_SAMPLES, Curve, combined, curve
from radlens.families.cdmam.training import load_run
from radlens.families.cdmam.training_registered import calibration_exposures, read_exposures
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.disk_blur import DiskBlur

N_FOLDS = 5
BINS_UM = (0.3, 0.5, 0.8, 1.1, 1.4)


class Readings(NamedTuple):
    """Readings of each image, and the true curves.

    Attributes:
        curves: (exposures, images, 12) predicted thresholds, um of gold.
        disagreement: (exposures, images, 12) relative disagreement of the members.
        blur: (exposures, images, 2) blur of the disks and its standard error, mm.
        true: (exposures, 12) true thresholds, um of gold.
    """

    curves: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    blur: NDArray[np.float64]
    true: NDArray[np.float64]


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="finished run of the registered recipe")
    parser.add_argument("folder", type=Path, help="folder for the readings, from which the command resumes")
    parser.add_argument("--exposures", type=int, default=100, help="exposures, each drawn twice (default 100)")
    parser.add_argument("--workers", type=int, default=2, help="processes (default 2)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    n, model = options.exposures, load_run(options.run).ensemble()
    with stages() as report:
        found = read_exposures(options.folder, model, range(n), options.workers, report)
    true = cdmam.expected_cdc(calibration_exposures(n))
    read = Readings(found[..., 0, :], found[..., 1, :], found[..., 2, :2], true)
    exchanged = read._replace(blur=read.blur[np.random.default_rng(0).permutation(n)])
    ways = {"as served": read, "blur exchanged": exchanged}
    rows = [{"calibration": name, **summary(left_out(each))} for name, each in ways.items()]
    mean = np.log(true.mean(axis=1))
    rows.append({"calibration": "mean curve", "rms": float(mean.std()), "coverage": None, "width": None})
    rows.append({"calibration": "two images combined", **summary(left_out(read, together=True))})
    print(machine_line(machine()))
    show("Phantoms left out of the calibration", list(rows[0]), [list(row.values()) for row in rows])
    bins = by_midpoint(left_out(read))
    show("By true midpoint, um of gold", list(bins[0]), [list(row.values()) for row in bins])
    if options.output is not None:
        save(options.output, {"machine": machine(), "exposures": n, "ways": rows, "bins": bins})


def left_out(read: Readings, *, together: bool = False) -> list[tuple[Curve, NDArray[np.float64]]]:
    """Return a curve of each image, or of both of an exposure, calibrated without the exposure, and its truth."""
    fold = np.arange(len(read.true)) % N_FOLDS
    pairs = []
    for number in range(N_FOLDS):
        kept = fold != number
        found = calibrate(*(each[kept] for each in (read.curves, read.disagreement, read.true, read.blur)),
                          n_samples=DEFAULT_SAMPLES)  # fmt: skip
        for k in np.flatnonzero(~kept):
            curves = [one(read, found, int(k), i) for i in range(read.curves.shape[1])]
            pairs += [(each, read.true[k]) for each in ([combined(curves, found)] if together else curves)]
    return pairs


def one(read: Readings, calibration: Calibration, k: int, i: int) -> Curve:
    """Return the curve of image ``i`` of exposure ``k``."""
    predicted = partial(curve, read.curves[k, i], read.disagreement[k, i], read.disagreement[k, i])
    return predicted(calibration, n_samples=DEFAULT_SAMPLES, blur=DiskBlur(*read.blur[k, i].tolist()))


def summary(pairs: list[tuple[Curve, NDArray[np.float64]]]) -> dict[str, float]:
    """Return the error of the midpoint, the coverage of the points, and the mean width of their intervals."""
    errors = [np.log(found.midpoint / true.mean()) for found, true in pairs]
    inside = [(found.interval[:, 0] <= true) & (true <= found.interval[:, 1]) for found, true in pairs]
    width = [np.ptp(found.interval, axis=1) / found.mean for found, _ in pairs]
    return {
        "rms": float(np.sqrt(np.mean(np.square(errors)))),
        "coverage": float(np.mean(inside)),
        "width": float(np.mean(width)),
    }


def by_midpoint(pairs: list[tuple[Curve, NDArray[np.float64]]]) -> list[dict[str, float | str | int]]:
    """Return the summary by range of the true midpoint."""
    number = np.digitize([true.mean() for _, true in pairs], BINS_UM)
    edges = ["0", *(f"{edge:g}" for edge in BINS_UM), "more"]
    return [
        {
            "um": f"{edges[k]} to {edges[k + 1]}",
            "images": int(np.count_nonzero(number == k)),
            **summary([pair for pair, its in zip(pairs, number, strict=True) if its == k]),
        }
        for k in range(len(BINS_UM) + 1)
        if np.any(number == k)
    ]


if __name__ == "__main__":
    main()
