"""``radlens study``: a blinded reader study of explanations, from questionnaire to tables."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from radlens.cli.console import examples, note, out, stages, table, warn
from radlens.cli.options import require
from radlens.errors import InvalidInput, InvalidParameter

if TYPE_CHECKING:
    from radlens.studies import StudyModel
    from radlens.studies.cases import Cases
    from radlens.studies.store import Store

__all__ = ["app"]

app = typer.Typer(
    name="study",
    help="Ask readers which explanations are better: write a blinded questionnaire, and score its answers.",
    epilog=examples(
        "radlens study make study/ --run runs/ultrasound --methods cam,integrated_gradients,occlusion",
        "radlens study make study/ --bundle model_store/bundles/lung-1.0 --images /data/patches --methods cam,shap",
        "radlens study score answers/*.json --key study/key.json -o results/",
    ),
    no_args_is_help=True,
)

_MODEL, _IMAGES, _PAGE = "Model", "Images", "Questionnaire"
_TESTED = {"raw": "Raw scores", "z_adjusted": "z-adjusted scores", "ranks": "Ranks"}
"""Tables whose tests are printed; differences of centred scores are those of raw ones."""


@app.command(
    epilog=examples(
        "radlens study make study/ --run runs/ultrasound --methods cam,integrated_gradients,occlusion",
        "radlens study make study/ --run runs/busi --data busi --root /data/BUSI --methods cam,shap,lime",
        "radlens study make study/ --bundle model_store/bundles/lung-1.0 --images /data/patches --methods cam,shap",
    )
)
def make(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", file_okay=False, help="Folder of the study.")],
    methods: Annotated[
        str,
        typer.Option(
            metavar="A,B,...",
            help="Methods to compare, 2 to 8; the results compare the first one with each of the others.",
        ),
    ],
    bundle: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR", exists=True, file_okay=False, rich_help_panel=_MODEL, help="Bundle of the classifier."
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            rich_help_panel=_MODEL,
            help="Finished training run of the classifier, instead of --bundle.",
        ),
    ] = None,
    engine: Annotated[
        str,
        typer.Option(
            rich_help_panel=_MODEL,
            help="auto for the fastest, the name of an engine, or eager for torch without graphs.",
        ),
    ] = "auto",
    images: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            exists=True,
            file_okay=False,
            rich_help_panel=_IMAGES,
            help="Folder of images that training has not seen, with a subfolder of the name of each class.",
        ),
    ] = None,
    simulated: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=2,
            rich_help_panel=_IMAGES,
            help="Number of simulated images from which the lesions are drawn; by default four times the lesions.",
        ),
    ] = None,
    data: Annotated[
        str | None, typer.Option(rich_help_panel=_IMAGES, help="Data set, as in radlens evaluate; needs --root.")
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
        typer.Option(rich_help_panel=_IMAGES, help="Kind of images, if the model does not state it."),
    ] = None,
    lesions: Annotated[
        int,
        typer.Option(
            min=2,
            rich_help_panel=_PAGE,
            help="Number of lesions, half of them malignant; drawn from the correctly classified images.",
        ),
    ] = 24,
    variant: Annotated[
        str,
        typer.Option(rich_help_panel=_PAGE, help="Variants in the page: A, B in the reverse order of A, or both."),
    ] = "both",
    threshold: Annotated[
        float,
        typer.Option(
            min=0,
            max=1,
            rich_help_panel=_PAGE,
            help="Probability above which the classifier calls a lesion malignant.",
        ),
    ] = 0.5,
    hide_class: Annotated[
        bool,
        typer.Option("--hide-class", rich_help_panel=_PAGE, help="Do not show readers the class of each lesion."),
    ] = False,
    seed: Annotated[
        int | None,
        typer.Option(
            min=0,
            rich_help_panel=_PAGE,
            help="Seed of the choice, order and codes; by default a secret one, which the key keeps.",
        ),
    ] = None,
    key: Annotated[
        Path | None,
        typer.Option(metavar="FILE", dir_okay=False, rich_help_panel=_PAGE, help="Key; by default FOLDER/key.json."),
    ] = None,
) -> None:
    """Write a blinded questionnaire as one HTML page, and the key to it.

    Readers give each picture a score from -4 to 4 for three criteria (Katzmann et al. 2021): Does it look reasonable?
    Does it make sense? Does it look good? The lesions are correctly classified, half of them malignant. Methods are
    hidden and change their order from lesion to lesion; variant B shows everything in the reverse order of A.

    FOLDER/for-readers/questionnaire.html works in any browser without a network, and saves the answers as a file. The
    key says which picture shows which method: do not give it, or the folder work, to readers. If the command was
    interrupted, the same command continues.
    """
    from radlens import studies
    from radlens.studies.reader_study import PAGE, ReaderStudy, make_reader_study, secret_seed
    from radlens.studies.store import Store

    require("--variant", variant, ("A", "B", "both"))
    require("--part", part, ("test", "all"))
    if (bundle is None) == (run is None):
        raise InvalidParameter(f"give one of --bundle and --run, got {'none' if bundle is None else 'both'}")
    if images is not None and (data is not None or root is not None or simulated is not None):
        raise InvalidParameter("--images excludes --data, --root and --simulated, got both")
    plan = ReaderStudy(
        methods=tuple(name.strip() for name in methods.split(",") if name.strip()),
        n_lesions=lesions,
        seed=secret_seed(folder) if seed is None else seed,
        variants=variant,  # type: ignore[arg-type]  # checked above
        threshold=threshold,
        shows_class=not hide_class,
    )
    with stages("opening the model") as report:
        eager = engine == "eager"
        if bundle is not None:
            model = studies.bundle_model(bundle, engine="auto" if eager else engine)
        elif run is not None:
            graphs = None if eager else folder / "work" / "graphs"
            model = studies.run_model(run, graphs, engine=engine, on_progress=report)
        store = Store(folder / "work")
        options = {"n_simulated": simulated or 4 * lesions, "data": data, "root": root, "part": part, "task": task}
        cases = _cases(model, images, options, store, report)
        made = make_reader_study(folder, model, cases, plan, key_file=key, on_progress=report)
    n_answers = len(made["pictures"]) * len(made["criteria"])
    titles = ", ".join(each["title"] for each in made["methods"].values())
    out.print(f"Study {made['study']}: {lesions} lesions, {titles}; {n_answers} answers per reader", soft_wrap=True)
    shown = " and ".join(f"{PAGE.name}#{name}" for name in made["variants"])
    note(f"for readers: {folder / PAGE} ({shown})")
    note(f"keep away from readers: {key or folder / 'key.json'}, {folder / 'work'}")
    note(f"next: radlens study score ANSWERS.json... --key {key or folder / 'key.json'}")


def _cases(model: StudyModel, images: Path | None, options: Mapping[str, Any], store: Store, report: Any) -> Cases:
    from radlens import studies
    from radlens.studies.reader_study import FolderCases

    if images is not None:
        return FolderCases(images, model)
    return studies.open_cases(studies.source_of(model, **options), store, on_progress=report)


@app.command(
    epilog=examples(
        "radlens study score answers/*.json --key study/key.json",
        "radlens study score answers/*.json --key study/key.json --reference cam -o results/",
    )
)
def score(
    answers: Annotated[
        list[Path],
        typer.Argument(
            metavar="ANSWERS...", exists=True, dir_okay=False, help="Files that readers saved from the questionnaire."
        ),
    ],
    key: Annotated[
        Path, typer.Option(metavar="FILE", exists=True, dir_okay=False, help="Key of the study, of radlens study make.")
    ],
    reference: Annotated[
        str | None,
        typer.Option(metavar="METHOD", help="Method that the others are compared with; by default the first one."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="DIR", help="Folder for results.json, tables.csv, answers.csv and three figures."
        ),
    ] = None,
) -> None:
    """Score the answers of a study (Katzmann et al. 2021, Tables 2 to 4).

    Prints raw scores, z-adjusted scores and ranks with 95 % intervals over readers, paired t-tests of one method
    against the others, the agreement of readers (eq. (7)), the Kaiser-Meyer-Olkin measure, the first principal
    component of the criteria, and the difference between the variants A and B.

    Every t has two p-values: that of the paired test over N readers, t(N - 1), and that of t(N - 2), which the paper
    names. The files of --output also have the t and the intervals of single answers, which are those that the paper
    prints, and figures of the scores by criterion and class (Fig. 7), of how criteria go together (Fig. 8), and of the
    factor of preferability (Fig. 9). Files and answers that cannot be scored are named and left out.
    """
    from radlens.evaluation.reader_answers import collect_readings, read_study_key
    from radlens.evaluation.reader_results import answers_csv, study_results, tables_csv

    try:
        known = read_study_key(key.read_bytes())
    except InvalidInput as error:
        raise InvalidInput(f"{key.name}: {error}") from error
    readings = collect_readings([(file.name, file.read_bytes()) for file in answers], known)
    results = study_results(readings, reference=reference)
    warn(readings.left_out)
    _print(results)
    if output is None:
        return
    output.mkdir(parents=True, exist_ok=True)
    for name, text in (
        ("results.json", json.dumps(results, indent=1, ensure_ascii=False)),
        ("tables.csv", tables_csv(results)),
        ("answers.csv", answers_csv(readings)),
    ):
        (output / name).write_text(text, encoding="utf-8")
        note(f"wrote {output / name}")
    _draw(results, output)


def _draw(results: Mapping[str, Any], output: Path) -> None:
    from radlens.figures.panels import save
    from radlens.figures.reader_study import figure_criteria, figure_preference, figure_reader_scores

    figures = {"scores": figure_reader_scores, "criteria": figure_criteria, "preference": figure_preference}
    for name, draw in figures.items():
        try:
            content = save(draw(results))
        except InvalidInput as error:
            warn([f"{name}.png is not drawn: {error}"])
            continue
        (output / f"{name}.png").write_bytes(content)
        note(f"wrote {output / f'{name}.png'}")


def _print(results: Mapping[str, Any]) -> None:
    from radlens.evaluation.reader_results import TABLES

    readers, reference = results["readers"], results["methods"][results["reference"]]
    lesions = ", ".join(f"{n} {label}" for label, n in results["n_lesions"].items())
    of_variants = {each["variant"]: 0 for each in readers}
    for each in readers:
        of_variants[each["variant"]] += 1
    with_variants = ", ".join(f"{n} of {name}" for name, n in sorted(of_variants.items()))
    out.print(f"Study {results['study']}: {len(readers)} readers ({with_variants}), lesions: {lesions}", soft_wrap=True)
    for name, title in TABLES.items():
        _print_table(results["tables"][name], results["methods"], title)
    out.print(f"Against {reference}: * p < .05, ** p < .01, *** p < .001, paired t(N - 1).", soft_wrap=True)
    _print_tests(results, reference)
    _print_agreement(results)
    _print_order(results)


def _print_table(found: Mapping[str, Any], titles: Mapping[str, str], title: str) -> None:
    criteria = list(found["means"])
    rows = []
    for method, name in titles.items():
        means, tests = (found[kind] for kind in ("means", "tests"))
        cells = [f"{_interval(means[each][method])} {_stars(tests[each].get(method)):<3}" for each in criteria]
        rows.append((name, *cells))
    table(["method", *criteria], rows, title=title)


def _print_tests(results: Mapping[str, Any], reference: str) -> None:
    for name, short in _TESTED.items():
        rows = [
            (
                results["methods"][method],
                criterion,
                _number(test["difference"]),
                _number(test["t"]),
                str(test["n_readers"]),
                _p(test["p"]),
                _p(test["p_paper"]),
            )
            for criterion, tests in results["tables"][name]["tests"].items()
            for method, test in tests.items()
        ]
        columns = ["method", "criterion", "difference", "t", "N", "p, t(N-1)", "p, t(N-2)"]
        table(columns, rows, title=f"{short}: {reference} minus each other method, N readers")


def _print_agreement(results: Mapping[str, Any]) -> None:
    rows = [
        (criterion, _number(found["rho"], 3), str(found["n_pairs"]), str(len(found["undefined"])))
        for criterion, found in results["agreement"].items()
    ]
    title = "Agreement of readers: mean Pearson correlation (eq. (7))"
    table(["criterion", "rho", "pairs of readers", "pairs without a correlation"], rows, title=title)
    criteria = list(results["correlation"])
    rows = [
        (first, *(_number(results["correlation"][first][each], 3) for each in criteria), _number(weight, 3))
        for first, weight in results["factor"]["weights"].items()
    ]
    share = results["factor"]["share"]
    said = "not defined" if share is None else f"{100 * share:.1f} % of the variance"
    table(["criterion", *criteria, "weight in the factor"], rows, title="Correlation of the criteria, and their factor")
    out.print(f"Kaiser-Meyer-Olkin {_number(results['kmo'], 3)}; first factor: {said}.", soft_wrap=True)
    means = [(results["methods"][name], _interval(mean)) for name, mean in results["factor"]["means"].items()]
    table(["method", "factor of preferability"], means)


def _print_order(results: Mapping[str, Any]) -> None:
    if not results["order"]:
        out.print("Order effects: the study has one variant.")
        return
    rows = [
        (f"{criterion}: {results['methods'][method]}", _number(test["difference"]), _number(test["t"]), _p(test["p"]))
        for criterion, methods in results["order"].items()
        for method, test in methods.items()
    ]
    df = next(iter(next(iter(results["order"].values())).values()))["df"]
    title = f"Order effects: variant A minus B, raw scores, two-tailed t({df})"
    table(["criterion: method", "difference", "t", "p"], rows, title=title)


def _interval(found: Mapping[str, Any]) -> str:
    return f"{_number(found['mean'])} [{_number(found['low'])}, {_number(found['high'])}]"


def _stars(test: Mapping[str, Any] | None) -> str:
    p = None if test is None else test["p"]
    return "" if p is None else "*" * sum(p < level for level in (0.05, 0.01, 0.001))


def _number(value: float | None, digits: int = 2) -> str:
    return "-" if value is None else f"{value:.{digits}f}"


def _p(value: float | None) -> str:
    return "-" if value is None else "< .001" if value < 0.001 else f"{value:.3f}".removeprefix("0")
