"""``radlens evaluate``: measures of a classifier and its maps, or of a phantom model."""

import json
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any

import typer

from radlens.cli.console import examples, note, stages, table
from radlens.cli.options import require
from radlens.errors import InvalidParameter

__all__ = ["EPILOG", "command"]

EPILOG = examples(
    "radlens evaluate runs/ultrasound -o evaluation/",
    "radlens evaluate runs/busi --data busi --root /data/Dataset_BUSI_with_GT -o evaluation/",
    "radlens evaluate model_store/bundles/patches-1.0 --simulated 20 --methods saliency,cam --measures iou -o e/",
    "radlens evaluate model_store/bundles/cdmam-1.0 --causal --phantoms 20 --per-group 100 -o causal/",
    "radlens evaluate model_store/bundles/ultrasound-1.0 --causal --simulated 100",
    "radlens evaluate model_store/bundles/cdmam-1.0 --domain --phantoms 200 -o domain/",
)

_IMAGES = "Images"
_BOXES = "Boxes"
_FAITHFULNESS = "Faithfulness"
_CAUSES = "Causes"
_PHANTOMS = "Phantom models"


def command(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", exists=True, file_okay=False, help="Folder of a finished training run, or a bundle."
        ),
    ],
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to; required for classifiers.")
    ] = None,
    simulated: Annotated[
        int,
        typer.Option(
            metavar="N", min=2, rich_help_panel=_IMAGES, help="Number of simulated images, half of them malignant."
        ),
    ] = 40,
    data: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_IMAGES,
            help="Data set instead of simulated images: busi, cbis-ddsm, cbis-ddsm-patches, oasbud, omi-db or "
            "rsna-2022.",
        ),
    ] = None,
    root: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, rich_help_panel=_IMAGES, help="Folder of the data set."
        ),
    ] = None,
    part: Annotated[
        str,
        typer.Option(
            rich_help_panel=_IMAGES,
            help="test: patients that training leaves out; all: every patient, for models not trained by radlens.",
        ),
    ] = "test",
    task: Annotated[
        str | None,
        typer.Option(
            rich_help_panel=_IMAGES,
            help="patches, mammograms, ultrasound or nodules, if the model does not state the images of its training.",
        ),
    ] = None,
    mapped: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Number of images to explain; by default every image.")
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(metavar="A,B,...", help="Methods to measure; by default every method that the model allows."),
    ] = None,
    measures: Annotated[
        str,
        typer.Option(
            metavar="A,B,...", help="Measures: classification, iou, pointing, faithfulness and randomisation."
        ),
    ] = "classification,iou,pointing,faithfulness,randomisation",
    target: Annotated[str, typer.Option(help="Class to explain: positive (malignant), or predicted.")] = "positive",
    quantile: Annotated[
        float,
        typer.Option(min=0, max=1, rich_help_panel=_BOXES, help="Quantile of a map above which pixels are kept."),
    ] = 0.98,
    opening: Annotated[
        int | None,
        typer.Option(
            min=1,
            rich_help_panel=_BOXES,
            help="Odd side of the square of erosion and dilation; by default that of the dilation of maps plus 2.",
        ),
    ] = None,
    n_faithful: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=_FAITHFULNESS, help="Number of images whose maps are measured."
        ),
    ] = 4,
    n_randomised: Annotated[
        int,
        typer.Option(
            metavar="N", min=1, rich_help_panel=_FAITHFULNESS, help="Number of images of the randomisation check."
        ),
    ] = 2,
    n_steps: Annotated[
        int,
        typer.Option(
            min=1, rich_help_panel=_FAITHFULNESS, help="Number of steps in which pixels are removed or put back."
        ),
    ] = 25,
    seed: Annotated[int, typer.Option(min=0, help="Seed of squares, noise, phantoms and random weights.")] = 0,
    engine: Annotated[
        str, typer.Option(help="auto for the fastest, the name of an engine, or eager for torch without graphs.")
    ] = "auto",
    causal: Annotated[
        bool,
        typer.Option(
            "--causal",
            rich_help_panel=_CAUSES,
            help="Phantom models: measure how the curve depends on disks, noise, grid, position and other causes. "
            "Classifiers: measure how the score changes when the lesions of --simulated images are removed.",
        ),
    ] = False,
    domain: Annotated[
        bool,
        typer.Option(
            "--domain",
            rich_help_panel=_PHANTOMS,
            help="Measure which images of the training range the model refuses, and which wrong images it judges.",
        ),
    ] = False,
    phantoms: Annotated[
        int,
        typer.Option(
            metavar="N",
            min=2,
            rich_help_panel=_PHANTOMS,
            help="Number of phantoms whose causes are changed; with --domain, images of the training range.",
        ),
    ] = 8,
    per_group: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            rich_help_panel=_PHANTOMS,
            help="Number of phantoms of each scenario and of random exposures, by default that of --phantoms; with "
            "--domain, images of each other kind, by default 2.",
        ),
    ] = None,
    spacing: Annotated[
        float, typer.Option(metavar="MM", min=0.01, max=5, rich_help_panel=_PHANTOMS, help="Pixel spacing, mm.")
    ] = 0.07,
    max_error: Annotated[
        float,
        typer.Option(
            min=0,
            rich_help_panel=_PHANTOMS,
            help="Limit of the root mean square of log(predicted / true) of the midpoint: 0.12, or 0.08 for preset "
            "standard.",
        ),
    ] = 0.12,
    workers: Annotated[
        int, typer.Option(metavar="N", min=1, rich_help_panel=_PHANTOMS, help="Number of processes that read phantoms.")
    ] = 1,
    keep: Annotated[
        bool,
        typer.Option(
            "--keep",
            rich_help_panel=_PHANTOMS,
            help="With --causal and a training run: add the record to training.json, which an export includes.",
        ),
    ] = False,
) -> None:
    """Measure a classifier and the maps of its explanations, or, with --causal or --domain, a phantom model.

    The measures are classification at the corner of the ROC curve; boxes from maps and their IoU (Sam Millan 2023); the
    pointing game (Byra et al. 2022); deletion, insertion, infidelity and max-sensitivity; and the randomisation of the
    weights. A measure that needs ground truth is left out if the images have none, and the page says so.

    The command writes index.html, results.json, tables as CSV, pictures as PNG, and the folder work. If it was
    interrupted, the same command continues from there.

    With --causal and a phantom model, the command simulates new phantoms, changes one cause at a time, and prints each
    quantity with its required range; -o writes causal.json and the readings so far, from which the same command
    continues. With --causal and a classifier of simulated images, it removes the lesions of new images, and healthy
    tissue of the same size, and prints how often and by how much the score of malignancy falls.

    With --domain, the model gets unseen images of the training range, of which it may refuse 1 %, and many kinds of
    wrong images, all of which it must refuse; -o writes domain.json, and of a phantom model the judgements so far. The
    bundle of a classifier gets --simulated images of its own kind.
    """
    if causal and _is_classifier(model):
        from radlens.cli.evaluate_lesions import evaluate_lesions

        evaluate_lesions(model, output, n=simulated, seed=seed, engine=engine, task=task)
    elif causal:
        from radlens.cli.evaluate_causal import evaluate_causal

        evaluate_causal(
            model,
            output,
            n=phantoms,
            n_coverage=per_group,
            seed=seed,
            spacing_mm=spacing,
            max_error=max_error,
            n_workers=workers,
            is_kept=keep,
        )
    if domain and _is_classifier(model):
        from radlens.cli.evaluate_image_domain import evaluate_image_domain

        evaluate_image_domain(model, output, n=simulated, n_each=per_group or 2, seed=seed, task=task)
    elif domain:
        from radlens.cli.evaluate_domain import evaluate_domain

        evaluate_domain(model, output, n_trained=phantoms, n_each=per_group or 2, seed=seed, spacing_mm=spacing)
    if causal or domain:
        return
    if output is None:
        raise InvalidParameter("--output must be given, got none")
    from radlens import studies

    require("--part", part, ("test", "all"))
    require("--target", target, ("positive", "predicted"))
    plan = studies.Plan(
        methods=None if methods is None else _names(methods),
        measures=_names(measures),
        target=target,  # type: ignore[arg-type]  # checked above
        rule=studies.BoxRule(quantile, opening),
        n_mapped=mapped,
        n_faithful=n_faithful,
        n_randomised=n_randomised,
        effort=studies.Effort(n_steps=n_steps, seed=seed),
        seed=seed,
    )
    with stages() as report:
        opened = _opened(model, output, engine, report)
        source = studies.source_of(
            opened,
            n_simulated=simulated,
            data=data,
            root=root,
            part=part,  # type: ignore[arg-type]
            task=task,
        )
        files = studies.evaluate(opened, source, output, plan, on_progress=report)
    _print_results(json.loads(files[1].read_text(encoding="utf-8")))
    note(f"wrote {files[0]} and {len(files) - 1} more files in {output}")


def _is_classifier(folder: Path) -> bool:
    """Return whether a folder holds a bundle or a run of classifiers; damaged files are reported on opening."""
    from radlens.wire import CLASSIFICATION

    for name in ("bundle.json", "training.json"):
        if (folder / name).is_file():
            try:
                return bool(json.loads((folder / name).read_text(encoding="utf-8")).get("task") == CLASSIFICATION)
            except (ValueError, AttributeError):
                return False
    return False


def _opened(folder: Path, output: Path, engine: str, report: Any) -> Any:
    from radlens import studies

    eager = engine == "eager"
    if studies.is_bundle(folder):
        return studies.bundle_model(folder, engine="auto" if eager else engine)
    graphs = None if eager else output / "graphs"
    return studies.run_model(folder, graphs, engine=engine, on_progress=report)


def _print_results(results: dict[str, Any]) -> None:
    if "classification" in results:
        found = results["classification"]
        rows = [
            (title, f"{found[name]['value']:.3f}", f"{found[name]['low']:.3f} to {found[name]['high']:.3f}")
            for name, title in _CLASSIFICATION.items()
        ]
        table(["measure", "value", "95 % interval"], rows, title="Classification")
    columns = {title: found for title, found in _of_methods(results).items() if found}
    if columns:
        lines: list[tuple[str, ...]] = [
            (name, *(f"{found[name]:.3g}" if name in found else "-" for found in columns.values()))
            for name in results["maps"]["parameters"]
        ]
        lines += _baselines(results, columns)
        table(["method", *columns], lines, title="Maps")
        for measure, found in (("mean IoU", results.get("iou")), ("pointing", results.get("pointing"))):
            if measure in columns and found is not None:
                note(f"{measure}: {_better(found)}")


def _baselines(results: dict[str, Any], columns: dict[str, dict[str, float]]) -> list[tuple[str, ...]]:
    """Return a row for each map that knows no network, with dashes where it is not measured."""
    from radlens.evaluation.baselines import BASELINES

    known = {
        "mean IoU": results.get("iou", {}).get("baselines", {}),
        "pointing": {name: of["any"] for name, of in results.get("pointing", {}).get("baselines", {}).items()},
    }
    if not any(known[name] for name in known if name in columns):
        return []
    return [
        (
            f"baseline: {title}",
            *(f"{known[each][name]:.3g}" if name in known.get(each, {}) else "-" for each in columns),
        )
        for name, title in BASELINES.items()
    ]


def _better(found: dict[str, Any]) -> str:
    """Return which methods are better than the best baseline."""
    from radlens.evaluation.baselines import BASELINES

    tested = found["better_than_best_baseline"]
    tested = tested.get("any", tested)
    better = [name for name, p in tested["p"].items() if p < 0.05]
    best, names = BASELINES[tested["baseline"]], ", ".join(better) or "none"
    return f"better than the best baseline ({best}), p < 0.05 corrected: {names}"


_CLASSIFICATION = {"auc": "AUC", "accuracy": "accuracy", "sensitivity": "sensitivity", "specificity": "specificity"}


def _of_methods(results: dict[str, Any]) -> dict[str, dict[str, float]]:
    """Return one number for each method, by measure; a measure that is missing has an empty mapping."""
    faithful = results.get("faithfulness", {}).get("methods", {})
    return {
        "mean IoU": results.get("iou", {}).get("mean_iou", {}),
        "pointing": {
            name: found["any"]["rate"] for name, found in results.get("pointing", {}).get("tables", {}).items()
        },
        "deletion ↓": {name: fmean(found["deletion"]) for name, found in faithful.items()},
        "insertion ↑": {name: fmean(found["insertion"]) for name, found in faithful.items()},
    }


def _names(text: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in text.split(",") if name.strip())
