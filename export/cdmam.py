"""CDMAM ensemble, from nothing to an archive: train -> trace -> ONNX -> bundle -> archive.

    python export/cdmam.py runs/standard --preset standard --version 2.0

Interrupted, it continues where it was. Without ``--preset`` the run must be trained already, like the demo members
beside this file: ``python export/cdmam.py export/cdmam_demo``.
"""

import argparse
from pathlib import Path

from radlens.archives import FORMS
from radlens.cli.console import stages
from radlens.cli.export import export_run
from radlens.families.cdmam.training import PRESETS, train


def main() -> None:
    """Read the arguments and do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run")
    parser.add_argument("--preset", choices=PRESETS, help="train with this recipe first")
    parser.add_argument("--recordings", type=Path, help="folder of real phantom images with cdc.csv")
    parser.add_argument("--version", default="1.0", help="of the archive, 1.0 by default")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="model store, model_store by default")
    parser.add_argument("--form", choices=FORMS, default="zip", help="one .mar file, or TorchServe's directory form")
    arguments = parser.parse_args()
    with stages() as report:
        if arguments.preset:
            preset = PRESETS[arguments.preset]
            train(arguments.run, preset, recordings=arguments.recordings, on_progress=report)
        _, made = export_run(
            arguments.run,
            arguments.store,
            name="cdmam",
            version=arguments.version,
            form=arguments.form,
            report=report,
        )
    print(made)


if __name__ == "__main__":
    main()
