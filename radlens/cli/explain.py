"""``radlens explain``: a map of what in an image drove the prediction."""

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
            help="CDMAM: omig, sensitivity, occlusion or ablation. Classifiers: integrated_gradients, saliency, "
            "smooth_grad, deep_lift, occlusion, lime, shap, cam, grad_cam or guided_grad_cam, as far as the model "
            "allows them.",
            show_default="omig, or integrated_gradients",
        ),
    ] = None,
    n_steps: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG (L), integrated gradients: gradients on the path.",
            show_default="of a registered phantom 8, otherwise 50",
        ),
    ] = None,
    path_length: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG: length of the path (c).",
            show_default="of a registered phantom 250, otherwise 1",
        ),
    ] = None,
    zscore: Annotated[
        float | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG: gradients further out are dropped (t).",
            show_default="of a registered phantom 10, otherwise 3",
        ),
    ] = None,
    window: Annotated[int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: side of the square.")] = None,
    stride: Annotated[int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: distance of squares.")] = None,
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "--parameter",
            "-p",
            metavar="NAME=VALUE",
            rich_help_panel=_METHOD,
            help="Any parameter of the method, repeatable; a wrong name is answered with those that there are.",
        ),
    ] = None,
    target: Annotated[
        str | None,
        typer.Option(
            metavar="CLASS",
            rich_help_panel=_CLASSES,
            help="Class to explain, by name or number.",
            show_default="the predicted one",
        ),
    ] = None,
    members: Annotated[
        str | None,
        typer.Option(
            metavar="mean|each",
            rich_help_panel=_ENSEMBLES,
            help="each: explain every member of an ensemble, and show where they disagree.",
            show_default="mean",
        ),
    ] = None,
    trust: Annotated[
        bool, typer.Option("--trust", rich_help_panel=_CLASSES, help="Measure how far the map can be trusted.")
    ] = False,
    upsample: Annotated[
        str | None,
        typer.Option(
            metavar="N|auto",
            rich_help_panel=_SAMPLES,
            help="Samples of 250x250 pixels to join; auto: as many as --reliability takes.",
            show_default="1",
        ),
    ] = None,
    reliability: Annotated[
        float | None,
        typer.Option(
            metavar="R",
            rich_help_panel=_SAMPLES,
            help="Where auto ends: correlation with the map of as many other samples, between 0 and 1.",
            show_default="0.95",
        ),
    ] = None,
    max_samples: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            rich_help_panel=_SAMPLES,
            help="Where auto ends at the latest.",
            show_default="5000",
        ),
    ] = None,
    sampler: Annotated[
        str | None, typer.Option(rich_help_panel=_SAMPLES, help="grid, jitter or stratified; by default the model's.")
    ] = None,
    seed: Annotated[int | None, typer.Option(rich_help_panel=_SAMPLES, help="Of the sequence of samples.")] = None,
    normalize: Annotated[
        str | None, typer.Option(rich_help_panel=_SAMPLES, help="paper: divide by N; visits: by visits of the pixel.")
    ] = None,
    checkpoint: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            rich_help_panel=_SAMPLES,
            help="Save the samples there; an interrupted run goes on when the same command is given again.",
        ),
    ] = None,
    checkpoint_every: Annotated[
        float,
        typer.Option(
            metavar="S",
            min=0,
            rich_help_panel=_SAMPLES,
            help="Seconds between two writings; with a server, 64 samples.",
        ),
    ] = 30.0,
    workers: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            rich_help_panel=_WORKERS,
            help="With --local: spread the samples over N processes of a Ray cluster, by default one of this machine.",
        ),
    ] = None,
    ray_address: Annotated[
        str | None,
        typer.Option(
            metavar="HOST:PORT", rich_help_panel=_WORKERS, help="Running cluster, also ray://host:port, for --workers."
        ),
    ] = None,
    worker_cores: Annotated[
        int | None,
        typer.Option(
            metavar="N", min=1, rich_help_panel=_WORKERS, help="Of each worker; by default an equal share of all."
        ),
    ] = None,
    worker_gpus: Annotated[
        float, typer.Option(metavar="N", min=0, rich_help_panel=_WORKERS, help="Of each worker; 0.5 is half a GPU.")
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

    Of a phantom model, method ablation takes the disks of one cell after the other away and writes ablation.png and
    ablation.csv. A map that does not mark the disks of the image is replaced by a sentence; an image that cannot be
    judged gets none, and the exit code is 9.

    Writes map.npy (the values), map.png, overlay.png, overlay.dcm (a Secondary Capture of the same study) and
    explanation.json; of CDMAM also visits.npy, of an ensemble that is explained with --members each members.npy,
    members.png, disagreement.npy and disagreement.png, and with --trust trust.json.

    A map of several samples comes with its reliability, which is shown beside the progress bar: the correlation to
    expect between this map and the map of as many other samples, in squares of 8x8 pixels.
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
    is_local = local or bundle is not None
    if memory_limit is not None and not is_local:
        raise InvalidParameter("--memory-limit needs --local or --bundle; a server has its own (radlens serve)")
    saved = _checkpoint(checkpoint, checkpoint_every) if is_local else None
    spread = _spread(
        workers, ray_address, worker_cores, worker_gpus, is_possible=is_local and upsample not in (None, "1")
    )
    with limited(memory_limit), connected(server, token, model, local, bundle, saved, spread) as client:
        of_server = None if is_local else checkpoint
        answer = explained(client, image, model_version, parameters, n_samples=upsample, checkpoint=of_server)
    from radlens.cli.results import print_trust, write_explanation

    if answer["explanation"] is not None:
        _tell_reliability(answer)
        _tell_disks(answer["explanation"])
    print_trust(answer)
    warn(answer["warnings"])
    for file in write_explanation(answer, image.read_bytes(), output):
        note(f"wrote {file}")
    if answer["explanation"] is None:
        for reason in answer["reasons"]:
            err.print(f"[yellow]not assessable:[/yellow] {escape(reason)}", soft_wrap=True)
        raise typer.Exit(exit_code(NotAssessable()))


def _tell_disks(found: Mapping[str, Any]) -> None:
    """Say whether a map marks the disks of the image, and what an ablation found."""
    if found.get("disks"):
        note(found["disks"]["sentence"])
    if "statement" in found:
        note(found["statement"])


def _further(pairs: Sequence[str], given: Sequence[str]) -> dict[str, str]:
    """Read ``name=value`` pairs.

    Raises:
        InvalidParameter: one has another form, or is given twice.
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
    """Return what opens the workers; None if there are to be none.

    Raises:
        InvalidParameter: options that do not go together.
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
        # Ray prints that a worker was lost on stdout, which is for results.
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
) -> dict[str, Any]:
    """Return the explanation of ``image``, with a progress bar.

    Args:
        client: of a server, or of this process.
        image: file.
        version: of the model.
        parameters: those that are None keep their defaults.
        n_samples: number of samples, or ``"auto"``; None for models that know none, and for one of others.
        checkpoint: file that ranges of a server are saved to and continued from.
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
        return client.explain(image, version=version, on_progress=on_progress, **given)


@contextmanager
def _bar() -> Iterator[Callable[[client_module.Progress], None]]:
    """Show a bar with the reliability beside it, or lines in a log; an estimated total is marked as such."""
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
    """Say how reliable the map is, and warn where that is less than was wanted."""
    found = answer["explanation"]
    if found.get("reliability") is None:
        return
    said = f"reliability {found['reliability']:.3f} after {found['n_samples']} samples"
    if found.get("reliability_reached", True):
        note(said)
        return
    wanted = answer["provenance"]["sampling"]["wanted_reliability"]
    err.print(f"[yellow]warning:[/yellow] {said}, less than {wanted:g}: give more with --max-samples", soft_wrap=True)
