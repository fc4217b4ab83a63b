"""Make the archive of a CDMAM ensemble from scratch: train -> trace -> ONNX -> bundle -> archive.

    python export/cdmam.py runs/standard --preset standard --version 2.0

An interrupted run resumes. Without ``--preset`` the run must be finished, like that of the demo members beside this
file: ``python export/cdmam.py export/cdmam_demo``.
"""

import argparse
from pathlib import Path

from radlens.archives import FORMS
from radlens.cli.console import stages
from radlens.cli.export import export_run
from radlens.families.cdmam.training import PRESETS, train


def main() -> None:
    """Parse the arguments, train if requested, and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run")
    parser.add_argument("--preset", choices=PRESETS, help="preset to train with before the export")
    parser.add_argument("--recordings", type=Path, help="folder of real phantom images with cdc.csv")
    parser.add_argument("--version", default="1.0", help="version of the archive (default 1.0)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="model store (default model_store)")
    parser.add_argument(
        "--form", choices=FORMS, default="zip", help="one .mar file, or the directory form of TorchServe"
    )
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
