"""A classifier or an ensemble of them, from nothing to an archive: train -> trace -> ONNX -> bundle -> archive.

    python export/classifier.py runs/ultrasound --model ultrasound-resnet --preset demo
    python export/classifier.py runs/patches --model patch-resnet50 --preset paper --data cbis-ddsm --root DIR
    python export/classifier.py runs/ensemble --model patch-mobilenet-v2 --preset demo --members 3 --name patches

Interrupted, it continues where it was. Without ``--preset`` the run must be trained already. The bundle holds all
members as one traced module, and of each the graphs of prediction, gradient, guided backpropagation, feature maps and
DeepLIFT in ONNX. Models of your own: ``radlens bundle``.
"""

import argparse
from pathlib import Path

from radlens.archives import FORMS
from radlens.cli.export import export_classifier
from radlens.cli.train_classifier import train_classifier
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS


def main() -> None:
    """Read the arguments and do what the module says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the training run")
    parser.add_argument("--model", choices=CLASSIFIER_PRESETS, help="what to train")
    parser.add_argument("--preset", choices=("demo", "paper"), help="train with this recipe first")
    parser.add_argument("--data", help="data set to learn from, simulated images by default")
    parser.add_argument("--root", type=Path, help="folder of the data set")
    parser.add_argument("--imagenet", type=Path, help="file of weights to start from")
    parser.add_argument("--members", type=int, default=1, help="networks to train, 1 by default")
    parser.add_argument("--name", help="of the model in URLs; by default that of the run's folder")
    parser.add_argument("--version", default="1.0", help="of the archive, 1.0 by default")
    parser.add_argument("--store", type=Path, default=Path("model_store"), help="model store, model_store by default")
    parser.add_argument("--form", choices=FORMS, default="zip", help="one .mar file, or TorchServe's directory form")
    arguments = parser.parse_args()
    if arguments.preset:
        if not arguments.model:
            parser.error("--preset needs --model, got none")
        train_classifier(
            arguments.run,
            arguments.model,
            arguments.preset,
            {"n_members": arguments.members},
            data=arguments.data,
            root=arguments.root,
            imagenet=arguments.imagenet,
            device=None,
        )
    export_classifier(
        arguments.run, arguments.store, name=arguments.name, version=arguments.version, form=arguments.form
    )


if __name__ == "__main__":
    main()
