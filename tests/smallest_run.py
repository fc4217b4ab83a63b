"""The smallest training recipe: two members, twelve images, seconds."""

from pathlib import Path

from made_once import made

from radlens.families.cdmam.training_paper import PaperPreset

SMALLEST = PaperPreset(
    2, 9, 3, epochs=4, batch_size=2, learning_rate=1e-3, dense_rate=0.02, one_cycle=True, rank=2, n_test=6
)


def make(folder: Path) -> None:
    """Train it in ``folder``."""
    from radlens.families.cdmam.training import train

    train(folder, SMALLEST, device="cpu", n_workers=1)


def make_exported(folder: Path) -> None:
    """Export the trained run to ``folder``."""
    from radlens.families.cdmam.export import export_bundle
    from radlens.families.cdmam.training import load_run

    export_bundle(load_run(made("smallest", make)), folder)
