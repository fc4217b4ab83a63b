"""``radlens explain``: a map of the parts of an image that drove the prediction."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from radlens.cli.console import LoggedProgress, err, examples, note, warn
from radlens.cli.options import (
    BundleOption,
    DicomOption,
    ImageArgument,
    LocalOption,
    MemoryOption,
    ModelOption,
    ServerOption,
    TokenOption,
    VersionOption,
    connected,
    limited,
)
from radlens.errors import InvalidParameter, NotAssessable, exit_code

if TYPE_CHECKING:
    from radlens import client as client_module
    from radlens.cli.local import Spread
    from radlens.client import Client
    from radlens.explainers import Checkpoint
    from radlens.families.cdmam.computing import Workers
    from radlens.families.cdmam.manifest import Bundle

__all__ = ["EPILOG", "command", "explained"]

EPILOG = examples(
    "radlens explain phantom.dcm --method omig --upsample 500 -o out/",
    "radlens explain phantom.dcm --method omig --upsample auto --reliability 0.95 -o out/",
    "radlens explain phantom.dcm --method omig --upsample 5000 -o out/ --local --checkpoint run.npz",
    "radlens explain phantom.dcm --method omig --upsample 5000 -o out/ --local --workers 2",
    "radlens explain phantom.dcm --method omig --upsample 500 -o out/ --dicom results/",
    "radlens explain phantom.png --method occlusion --window 10 --stride 5 -o out/",
    "radlens explain phantom.dcm --members each --upsample 100 -o out/",
    "radlens explain mammogram.dcm --model mammogram-efficientnet-b0 --target malignant --trust -o out/",
    "radlens explain lump.png --model ultrasound-resnet --method shap -p n_segments=80 --members each -o out/",
)

_METHOD, _CLASSES, _ENSEMBLES = "Parameters of methods", "Classifiers", "Ensembles"
_SAMPLES, _WORKERS = "Samples (CDMAM)", "Workers (CDMAM)"


def command(
    image: ImageArgument,
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    method: Annotated[
        str | None,
        typer.Option(
            help="Method of explanation; `radlens methods BUNDLE` lists those of a model with their parameters.",
            show_default="omig, or integrated_gradients",
        ),
    ] = None,
    n_steps: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG (L), integrated gradients: number of gradients on the path.",
            show_default="8 for registered phantoms, otherwise 50",
        ),
    ] = None,
    path_length: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG: length of the path (c).",
            show_default="250 for registered phantoms, otherwise 1",
        ),
    ] = None,
    zscore: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG: standard deviations beyond which gradients are dropped (t).",
            show_default="10 for registered phantoms, otherwise 3",
        ),
    ] = None,
    window: Annotated[
        int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: side of the squares in pixels.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: distance between squares in pixels.")
    ] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            rich_help_panel=_METHOD,
            help="Any parameter of the method; repeatable. An unknown name prints the known ones.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            rich_help_panel=_CLASSES,
            help="Class to explain, by name or number.",
            show_default="the predicted class",
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            metavar="mean|each",
            rich_help_panel=_ENSEMBLES,
            help="each: explain every member of an ensemble and show where members disagree.",
            show_default="mean",
        ),
    ] = None,
    mask: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            exists=True,
            dir_okay=False,
            rich_help_panel=_CLASSES,
            help="PNG or .npy of the size of the image, not 0 in the organ: counterfactual changes nothing else.",
        ),
    ] = None,
    dicom: DicomOption = None,
    trust: Annotated[
        bool, typer.Option("--trust", rich_help_panel=_CLASSES, help="Measure how well the map describes the network.")
    ] = False,
    upsample: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            rich_help_panel=_SAMPLES,
            help="Number of samples of 250x250 pixels to merge; auto: as many as --reliability needs.",
            show_default="1",
        ),
    ] = None,
    reliability: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            rich_help_panel=_SAMPLES,
            help="Reliability that ends auto: correlation with the map of as many other samples, between 0 and 1.",
            show_default="0.95",
        ),
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=_SAMPLES,
            help="Largest number of samples of auto.",
            show_default="5000",
        ),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(rich_help_panel=_SAMPLES, help="grid, jitter or stratified; by default that of the model."),
    ] = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=_SAMPLES, help="Seed of the samples.")] = None,
    normalize: Annotated[
        str | None,
        typer.Option(rich_help_panel=_SAMPLES, help="paper: divide by N; visits: divide by the visits of each pixel."),
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            rich_help_panel=_SAMPLES,
            help="File to save samples to; after an interruption, the same command continues from it.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            metavar="S",
            min=0,
            rich_help_panel=_SAMPLES,
            help="Seconds between two saves; with a server, every 64 samples are saved.",
        ),
    ] = 30.0,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=_WORKERS,
            help="With --local: explain samples with N workers of a Ray cluster, by default a new one on this machine.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT",
            rich_help_panel=_WORKERS,
            help="Address of a running cluster for --workers; ray://host:port from outside the cluster.",
        ),
    ] = None,
    worker_cores: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=_WORKERS,
            help="Number of cores of each worker; by default an equal share of the cluster's cores.",
        ),
    ] = None,
    worker_gpus: Annotated[
        float,
        typer.Option(
            metavar="N", min=0, rich_help_panel=_WORKERS, help="Number of GPUs of each worker; 0.5 is half a GPU."
        ),
    ] = 0,
    server: ServerOption = None,
    token: TokenOption = None,
    model: ModelOption = None,
    model_version: VersionOption = None,
    local: LocalOption = False,
    bundle: BundleOption = None,
    memory_limit: MemoryOption = None,
) -> None:
    """Explain the prediction for an image.

    The command writes map.npy (the values), map.png, overlay.png, overlay.dcm (a Secondary Capture of the same study)
    and explanation.json; for CDMAM also visits.npy; with --members each also members.npy, members.png,
    disagreement.npy and disagreement.png; with --trust also trust.json. With --dicom it also writes capture.dcm,
    report.dcm, map.dcm, segmentation.dcm and presentation.dcm, which a PACS stores beside the image.

    For phantom models, the method ablation removes the disks of one cell after the other and writes ablation.png and
    ablation.csv. A sentence replaces a map that does not mark the disks of the image. An image that the model cannot
    judge is not explained, and the exit code is 9.

    The progress bar shows the reliability of a map of several samples: its expected correlation with the map of as many
    other samples, in squares of 8x8 pixels.
    """
    parameters = {
        "method": method,
        "n_steps": n_steps,
        "path_length": path_length,
        "zscore": zscore,
        "window": window,
        "stride": stride,
        "sampler": sampler,
        "seed": seed,
        "normalize": normalize,
        "reliability": reliability,
        "max_samples": max_samples,
        "target": target,
        "members": members,
        "trust": "true" if trust else None,
    }
    parameters |= _further(parameter or (), [name for name, value in parameters.items() if value is not None])
    if output.is_file():
        raise InvalidParameter(f"--output must be a folder, got the file {output}")
    is_local = local or bundle is not None
    if memory_limit is not None and not is_local:
        raise InvalidParameter("--memory-limit needs --local or --bundle; a server has its own (radlens serve)")
    saved = _checkpoint(checkpoint, checkpoint_every) if is_local else None
    spread = _spread(
        workers, ray_address, worker_cores, worker_gpus, is_possible=is_local and upsample not in (None, "1")
    )
    with limited(memory_limit), connected(server, token, model, local, bundle, saved, spread) as client:
        of_server = None if is_local else checkpoint
        answer = explained(
            client, image, model_version, parameters, n_samples=upsample, checkpoint=of_server, mask=mask
        )
    from radlens.cli.results import print_trust, write_dicom, write_explanation

    if answer["explanation"] is not None:
        if sentence := answer["explanation"].get("numbers", {}).get("sentence"):
            note(sentence)
        _tell_reliability(answer)
        _tell_disks(answer["explanation"])
    print_trust(answer)
    warn(answer["warnings"])
    data = image.read_bytes()
    for file in write_explanation(answer, data, output):
        note(f"wrote {file}")
    for file in () if dicom is None else write_dicom(answer, [data], dicom):
        note(f"wrote {file}")
    if answer["explanation"] is None:
        for reason in answer["reasons"]:
            err.print(f"[yellow]not assessable:[/yellow] {escape(reason)}", soft_wrap=True)
        raise typer.Exit(exit_code(NotAssessable()))


def _tell_disks(found: Mapping[str, Any]) -> None:
    """Print whether a map marks the disks of the image, or the summary of an ablation."""
    if found.get("disks"):
        note(found["disks"]["sentence"])
    if "statement" in found:
        note(found["statement"])


def _further(pairs: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises:
        InvalidParameter: A pair has another form, or a name is given twice.
    """
    found: dict[str, str] = {}
    for pair in pairs:
        name, sign, value = pair.partition("=")
        if not (re.fullmatch("[A-Za-z_]+", name) and sign):
            raise InvalidParameter(f"--parameter must be NAME=VALUE, got {pair!r}")
        if name in given or name in found:
            raise InvalidParameter(f"{name} must be given once, got it twice")
        found[name] = value
    return found


def _checkpoint(file: Path | None, every_s: float) -> Checkpoint | None:
    from radlens.explainers import Checkpoint

    return None if file is None else Checkpoint(file, every_s=every_s)


def _spread(
    workers: int | None, address: str | None, cores: int | None, gpus: float, *, is_possible: bool
) -> Spread | None:
    """Return a function that opens the workers; None without workers.

    Raises:
        InvalidParameter: The options exclude each other.
    """
    if workers is None:
        if address is not None or cores is not None or gpus:
            raise InvalidParameter("--ray-address, --worker-cores and --worker-gpus need --workers, got none")
        return None
    if not is_possible:
        raise InvalidParameter("--workers needs --local or --bundle, and --upsample of several samples")
    from radlens.families.cdmam.cluster import open_cluster

    @contextmanager
    def opened(bundle: Bundle) -> Iterator[Workers]:
        # Ray reports lost workers on stdout, which is for results.
        with (
            redirect_stdout(sys.stderr),
            open_cluster(bundle, workers, address=address, cores=cores, gpus=gpus) as cluster,
        ):
            yield cluster

    return opened


def explained(
    client: Client,
    image: Path,
    version: str | None,
    parameters: Mapping[str, Any],
    *,
    n_samples: int | str | None,
    checkpoint: Path | None = None,
    mask: Path | None = None,
) -> dict[str, Any]:
    """Return the explanation of ``image``, with a progress bar.

    Args:
        client: client of a server, or of a service in this process.
        image: path of the image.
        version: version of the model; None for the default.
        parameters: parameters of the explanation; values of None keep the defaults.
        n_samples: number of samples, or ``"auto"``; None for the default, and for models without samples.
        checkpoint: file to save the ranges of a server's answers to, and to continue from.
        mask: mask of the organ for methods that take one.
    """
    given = {name: value for name, value in parameters.items() if value is not None}
    with _bar() as on_progress:
        if checkpoint is not None:
            from radlens.families.cdmam.ranges import explain_in_ranges

            return explain_in_ranges(
                client, image, checkpoint, version=version, on_progress=on_progress, n_samples=n_samples or 1, **given
            )
        if n_samples is not None:
            given["n_samples"] = n_samples
        if mask is not None:
            given["mask"] = mask
        return client.explain(image, version=version, on_progress=on_progress, **given)


@contextmanager
def _bar() -> Iterator[Callable[[client_module.Progress], None]]:
    """Show a progress bar with the reliability, or lines without a terminal; an estimated total is marked."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[count]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[reliability]}"),
    )
    n_restored = 0

    def reliability_of(found: client_module.Progress) -> str:
        nonlocal n_restored
        if found.n_restored > n_restored:
            n_restored = found.n_restored
            note(f"continuing after {n_restored} samples")
        return "" if found.reliability is None else f"reliability {found.reliability:.3f}"

    if not err.is_terminal:
        with closing(LoggedProgress()) as log:
            yield lambda found: log("explaining samples", found.done, found.total, reliability_of(found))
        return
    with Progress(*columns, console=err) as progress:
        task = progress.add_task("explaining", total=None, count="", reliability="")

        def show(found: client_module.Progress) -> None:
            reliability = reliability_of(found)
            progress.update(
                task,
                description="explaining samples",
                completed=found.done,
                total=found.total,
                count=_count(found),
                reliability=reliability,
            )

        yield show


def _count(found: client_module.Progress) -> str:
    if found.total is None:
        return f"{found.done}/?"
    return f"{found.done}/{'about ' if found.total_is_estimated else ''}{found.total}"


def _tell_reliability(answer: Mapping[str, Any]) -> None:
    """Print the reliability of a map, with a warning if it is below the requested one."""
    found = answer["explanation"]
    if found.get("reliability") is None:
        return
    said = f"reliability {found['reliability']:.3f} after {found['n_samples']} samples"
    if found.get("reliability_reached", True):
        note(said)
        return
    wanted = answer["provenance"]["sampling"]["wanted_reliability"]
    err.print(f"[yellow]warning:[/yellow] {said}, less than {wanted:g}: raise --max-samples", soft_wrap=True)
