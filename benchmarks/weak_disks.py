"""Measure which defects of disks lead to a refusal of the image, and the margin of intact phantoms.

    python benchmarks/weak_disks.py --phantoms 10

Disks of phantoms of the training range are removed or made thinner. The numbers are those that the domain compares with
its limits: the standard deviations by which some disks differ from what the others of the same image imply.
"""

import argparse
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
from measuring import machine, machine_line, save, show
from numpy.typing import NDArray
from rich.progress import track

from radlens.evaluation.other_phantoms import Disks, true_disks
from radlens.evaluation.wrong_phantoms import Source, thresholds_um
from radlens.phantoms.cdmam import register
from radlens.phantoms.cdmam.domain import Limits, findings, reasons

NUMBERS = ("small_disks", "smallest_disks", "faint_disks")
SPACING_MM = 0.07

Chosen = Callable[[Source, Disks], NDArray[np.bool_]]

DEFECTS: Mapping[str, tuple[Chosen, float]] = {
    "0.16 mm and less missing": (lambda _, disks: disks.diameter_mm < 0.17, 0.0),
    "0.16 mm and less at 60 %": (lambda _, disks: disks.diameter_mm < 0.17, 0.6),
    "0.25 mm and less at 50 %": (lambda _, disks: disks.diameter_mm < 0.26, 0.5),
    "below twice the threshold at 50 %": (lambda source, disks: _over(source, disks) < 2, 0.5),
    "below twice the threshold at 70 %": (lambda source, disks: _over(source, disks) < 2, 0.7),
    "above four times the threshold at 60 %": (lambda source, disks: _over(source, disks) > 4, 0.6),
}
"""Affected disks and the remaining fraction of their thickness, by the name of the defect."""


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--phantoms", type=int, default=10, help="number of phantoms (default 10)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    cases = [(name, seed) for name in ("intact", *DEFECTS) for seed in range(1, options.phantoms + 1)]
    found = {case: judged(*case) for case in track(cases, "judging phantoms")}
    rows = []
    for name in ("intact", *DEFECTS):
        its = [found[name, seed] for seed in range(1, options.phantoms + 1)]
        extremes = {key: _range([each[key] for each in its]) for key in NUMBERS}
        rows.append({"disks": name, "refused": sum(bool(each["refused"]) for each in its), **extremes})
    print(machine_line(machine()))
    limits = ", ".join(f"{name} {getattr(Limits(), name)}" for name in NUMBERS)
    show(f"{options.phantoms} phantoms each; limits: {limits}", list(rows[0]), [list(row.values()) for row in rows])
    if options.output is not None:
        save(options.output, {"machine": machine(), "phantoms": options.phantoms, "rows": rows})


def judged(name: str, seed: int) -> dict[str, float]:
    """Return the numbers of one phantom with a defect, and whether the domain refuses it without a predicted curve."""
    source = Source(seed, SPACING_MM)
    pixels = source.pixels
    if name != "intact":
        chosen, share = DEFECTS[name]
        disks = true_disks()
        thickness = np.where(chosen(source, disks), share, 1.0) * disks.thickness_um
        kept = thickness > 0
        pixels = source.with_disks(Disks(*(each[kept] for each in disks._replace(thickness_um=thickness))))
    pixels = np.rint(pixels).astype(np.float32)
    numbers = findings(register(pixels, SPACING_MM), pixels)
    return {key: getattr(numbers, key) for key in NUMBERS} | {"refused": float(bool(reasons(numbers, Limits())))}


def _over(source: Source, disks: Disks) -> NDArray[np.float64]:
    """Return the thickness of each disk over the threshold of its diameter."""
    return disks.thickness_um / thresholds_um(source, disks)


def _range(values: list[float]) -> str:
    return f"{min(values):.1f} to {max(values):.1f}"


if __name__ == "__main__":
    main()
