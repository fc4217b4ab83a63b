"""The ensemble of the benchmarks: the demo members, repeated to a given number.

Repetition changes neither the arithmetic of one gradient nor the map, which is that of the demo model.
"""

from dataclasses import replace
from pathlib import Path

from radlens.families.cdmam.export import export_bundle
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.training import TrainedRun, load_run

DEMO = Path(__file__).parents[1] / "export" / "cdmam_demo"


def demo_run(n_members: int) -> TrainedRun:
    """Return the run of the demo members, repeated to ``n_members``."""
    run = load_run(DEMO)
    repeated = tuple(run.members[number % len(run.members)] for number in range(n_members))
    return replace(run, members=repeated)


def demo_bundle(folder: Path, n_members: int) -> Bundle:
    """Export the run of `demo_run` to ``folder``."""
    return export_bundle(demo_run(n_members), folder, version=f"{n_members}.0")
