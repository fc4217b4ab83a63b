"""Make the archive of a classifier or an ensemble from scratch: train -> trace -> ONNX -> bundle -> archive.

    python export/classifier.py runs/ultrasound --model ultrasound-resnet --preset demo
    python export/classifier.py runs/patches --model patch-resnet50 --preset paper --data cbis-ddsm --root DIR
    python export/classifier.py runs/ensemble --model patch-mobilenet-v2 --preset demo --members 3 --name patches

An interrupted run resumes. Without ``--preset`` the run must be finished. The bundle contains all members as one traced
module, and for each member the ONNX graphs of prediction, gradient, guided backpropagation, feature maps and DeepLIFT.
``radlens bundle`` makes bundles of other models.
"""

import argparse
from pathlib import Path

from radlens.archives import FORMS
from radlens.cli.console import stages
from radlens.cli.export import export_run, finish
from radlens.cli.train import train_model
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS


def main() -> None:
    """Parse the arguments, train if requested, and export."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run")
    parser.add_argument("--model", choices=CLASSIFIER_PRESETS, help="model to train")
    parser.add_argument("--preset", choices=("demo", "paper"), help="preset to train with before the export")
    parser.add_argument("--data", help="training data set (default simulated images)")
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--imagenet", type=Path, help="file with initial weights")
    parser.add_argument("--members", type=int, default=1, help="number of networks to train (default 1)")
    parser.add_argument("--name", help="name of the model in URLs (default the name of the run's folder)")
    parser.add_argument("--version", default="1.0", help="version of the archive (default 1.0)")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="model store (default model_store)")
    parser.add_argument(
        "--form", choices=FORMS, default="zip", help="one .mar file, or the directory form of TorchServe"
    )
    arguments = parser.parse_args()
    if arguments.preset:
        if not arguments.model:
            parser.error("--preset needs --model, got none")
        given = {name: getattr(arguments, name) for name in ("members", "data", "root", "imagenet")}
        options = {name: value for name, value in given.items() if value is not None}
        train_model(arguments.run, arguments.model, arguments.preset, options)
    name = arguments.name or arguments.run.resolve().name
    with stages() as report:
        bundle, archived = export_run(
            arguments.run, arguments.store, name=name, version=arguments.version, form=arguments.form, report=report
        )
    finish(bundle, archived)


if __name__ == "__main__":
    main()
