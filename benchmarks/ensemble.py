"""The ensemble that benchmarks explain: the demo members, repeated up to the number asked for.

Repeating members changes neither the arithmetic of one gradient nor the map, which is the demo model's.
"""

from dataclasses import replace
from pathlib import Path

from radlens.families.cdmam.export import export_bundle
from radlens.families.cdmam.manifest import Bundle
from radlens.families.cdmam.training import TrainedRun, load_run

DEMO = Path(__file__).parents[1] / "export" / "cdmam_demo"


def demo_run(n_members: int) -> TrainedRun:
    """Return the run of the demo members with ``n_members`` of them."""
    run = load_run(DEMO)
    repeated = tuple(run.members[number % len(run.members)] for number in range(n_members))
    return replace(run, members=repeated)


def demo_bundle(folder: Path, n_members: int) -> Bundle:
    """Export that run into ``folder``."""
    return export_bundle(demo_run(n_members), folder, version=f"{n_members}.0")
