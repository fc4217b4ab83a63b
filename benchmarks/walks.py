"""Compare paths of OMIG: the disk statistics of maps of a phantom with and without its disks.

    python benchmarks/walks.py model_store/bundles/cdmam-1.0
    python benchmarks/walks.py model_store/bundles/cdmam-1.0 --walks 1,1,3 8,250,10 --phantoms 3 --samples 200

For each walk - steps L, length c, threshold t of the Z-score - three upsampled maps are computed: of a simulated
phantom, of its disk-free twin (the same image with its disks replaced by their surroundings), and of the same phantom
simulated without disks. The column t is the paired t of the map on large thick disks (1 mm and more, at least twice the
true threshold) against the rings around them; a share is t without disks over t with disks. The walk of the service is
the last one.
"""

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
from measuring import machine, machine_line, save, show

from radlens.explainers import upsample
from radlens.explainers.omig import Omig
from radlens.families import load
from radlens.families.cdmam.disk_statistics import counter_test, disk_statistic
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.methods import WALK
from radlens.families.cdmam.model import BundleEngine, open_bundle
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.registered import Registered

SERVED = ",".join(f"{WALK['omig'][name]:g}" for name in ("n_steps", "path_length", "zscore"))
WALKS = ("1,1,3", "8,1,3", "8,100,3", "8,250,3", SERVED)


def main() -> None:
    """Run the benchmark of the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle", type=Path, help="bundle of a phantom model")
    parser.add_argument("--walks", nargs="+", default=WALKS, metavar="L,C,T", help="walks to compare")
    parser.add_argument("--scenarios", nargs="+", default=["1"], choices=list(cdmam.SCENARIOS), help="exposures")
    parser.add_argument("--phantoms", type=int, default=1, help="number of phantoms per scenario (default 1)")
    parser.add_argument("--samples", type=int, default=96, help="samples per map (default 96)")
    parser.add_argument("--engine", default="auto", help="engine of the gradient (default auto, the fastest)")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    options = parser.parse_args()
    bundle = load(options.bundle)
    if not isinstance(bundle, Bundle):
        parser.error(f"bundle must be of a phantom model, got one of {bundle.manifest.task}")
    model = open_bundle(bundle, options.engine)
    rows = []
    for scenario in options.scenarios:
        true = cdmam.expected_cdc([cdmam.SCENARIOS[scenario]])[0]
        for seed in range(options.phantoms):
            phantom, empty = (_registered(scenario, seed, contrast) for contrast in (1.0, 0.0))
            for walk in options.walks:
                found = _measured(model, phantom, empty, true, walk, options.samples)
                rows.append({"scenario": scenario, "phantom": seed, "walk": walk, **found})
    print(machine_line(machine()))
    columns = [
        "scenario",
        "phantom",
        "L,c,t",
        "redder",
        "t",
        "t of twin",
        "share",
        "t without disks",
        "share",
        "seconds",
    ]
    show(f"Large thick disks of OMIG maps of {options.samples} samples", columns, [list(row.values()) for row in rows])
    if options.output is not None:
        save(options.output, {"machine": machine(), "samples": options.samples, "walks": rows})


def _registered(scenario: str, seed: int, contrast: float) -> Registered:
    layout = cdmam.Layout.with_margin(3)
    image = cdmam.simulate(cdmam.SCENARIOS[scenario], layout, seed, cdmam.Changes(disks=contrast))
    return cdmam.register(image.pixels, layout.spacing_mm)


def _measured(
    model: BundleEngine, phantom: Registered, empty: Registered, true_um: np.ndarray, walk: str, n_samples: int
) -> dict[str, float]:
    n_steps, path_length, zscore = (float(part) for part in walk.split(","))
    steps: dict[str, Any] = {"n_steps": int(n_steps), "path_length": path_length, "zscore": zscore}
    begin = time.perf_counter()
    found = counter_test(model, phantom, true_um, n_samples=n_samples, batch_size=16, **steps)
    seconds = time.perf_counter() - begin
    explainer = Omig(**steps)
    bare = upsample(empty.values, lambda images: explainer.attribute(model, images), n_samples=n_samples, batch_size=16)
    without = disk_statistic(bare.total, bare.visits, empty.grid, true_um).large.t
    t, twin = found.statistic.large.t, found.twin_statistic.large.t
    return {
        "redder": found.statistic.large.redder,
        "t": t,
        "t_twin": twin,
        "share_twin": twin / t,
        "t_without": without,
        "share_without": without / t,
        "seconds": seconds,
    }


if __name__ == "__main__":
    main()
