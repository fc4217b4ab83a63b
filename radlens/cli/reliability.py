"""``radlens reliability``: the number of samples that each sampler needs.

Amanova et al. 2022, section 2.3.2, used 5000 samples.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, permutations
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from radlens.cli.console import examples, note, stages, table
from radlens.cli.options import DEFAULT_STORE

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from radlens.explainers import Explainer, Halves
    from radlens.figures import ReliabilityCurve
    from radlens.images import Image

__all__ = ["EPILOG", "Study", "command", "compared"]

EPILOG = examples(
    "radlens reliability -o reliability/",
    "radlens reliability model_store/bundles/cdmam-1.0 --image phantom.dcm --samples 1000 --n-steps 50 -o reliability/",
)

_NEVER = 1 - 1e-12
"""Reliability that no run reaches, so that an automatic run computes every sample and estimates it on the way."""

_METHOD = "Parameters of methods"


def command(
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Folder to write to.")],
    bundle: Annotated[
        Path | None,
        typer.Argument(metavar="BUNDLE", exists=True, help="Bundle or archive; by default the newest of the store."),
    ] = None,
    image: Annotated[
        Path | None,
        typer.Option(exists=True, dir_okay=False, help="DICOM, PNG, TIFF or .npy; by default a simulated phantom."),
    ] = None,
    samples: Annotated[int, typer.Option(metavar="N", min=16, help="Number of samples of each run.")] = 512,
    seeds: Annotated[int, typer.Option(min=2, help="Number of runs of each sampler, whose maps are compared.")] = 2,
    scale_px: Annotated[int, typer.Option(min=1, help="Side of the compared squares in pixels.")] = 8,
    method: Annotated[str, typer.Option(help="omig, sensitivity or occlusion.")] = "omig",
    n_steps: Annotated[
        int | None,
        typer.Option(
            rich_help_panel=_METHOD,
            help="OMIG: number of gradients on the path (L).",
            show_default="8 for registered phantoms, otherwise 4",
        ),
    ] = None,
    path_length: Annotated[
        float | None, typer.Option(rich_help_panel=_METHOD, help="OMIG: length of the path (c).")
    ] = None,
    zscore: Annotated[
        float | None,
        typer.Option(rich_help_panel=_METHOD, help="OMIG: standard deviations beyond which gradients are dropped (t)."),
    ] = None,
    window: Annotated[
        int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: side of the squares in pixels.")
    ] = None,
    stride: Annotated[
        int | None, typer.Option(rich_help_panel=_METHOD, help="Occlusion: distance between squares in pixels.")
    ] = None,
) -> None:
    """Measure the reliability of maps for growing numbers of samples, with the samplers grid, jitter and stratified.

    For each sampler, the command prints the correlation of the maps of two seeds, which defines reliability, and the
    estimate from the halves of a single run, which a user gets. The paper's sampler draws rows and columns (grid). Maps
    of registered phantoms are compared on the phantom's own grid. An image that the model cannot judge is not
    explained, and the exit code is 9.

    The command writes reliability.png, reliability.csv (the curves), needed.csv (samples for the same reliability) and
    the folder runs. If it was interrupted, the same command continues from there.
    """
    from radlens.cli.local import open_cdmam_bundle
    from radlens.cli.studies import assessed_view
    from radlens.families.cdmam.model import open_bundle
    from radlens.studies.amanova_recipes import bundle_recipe

    given = {"n_steps": n_steps, "path_length": path_length, "zscore": zscore, "window": window, "stride": stride}
    pixels = _image(image)
    with open_cdmam_bundle(bundle, DEFAULT_STORE) as found:
        explainer = _explainer(method, given, registered=found.manifest.input.registered)
        engine = open_bundle(found)
        view = assessed_view(pixels, found, bundle_recipe(found.manifest.name, found, engine, engine=engine.name))
        study = Study(
            view.values,
            lambda images: explainer.attribute(engine, images),
            identity={"explainer": repr(explainer), "model": found.bundle_hash, "engine": engine.name},
            n_samples=samples,
            n_seeds=seeds,
            scale_px=scale_px,
            folder=output / "runs",
            batch_size=max(8, engine.batch_size),
        )
        with stages() as report:
            curves, likeness = study.run(lambda done, total: report("explaining samples", done, total))
        title = f"{found.manifest.name} {found.manifest.version}, {explainer}"
    for file in _written(curves, likeness, output, title, scale_px):
        note(f"wrote {file}")


class _Look(NamedTuple):
    """State of a run: number of samples, reliability estimated from its halves, and binned map, NaN if unvisited."""

    n_samples: int
    estimate: float
    binned: np.ndarray


@dataclass(frozen=True, eq=False)
class Study:
    """Several runs of each sampler over one image.

    Args:
        pixels: image ``(H, W)`` float32, normalised.
        explain: function from samples to maps, as for :func:`radlens.explainers.upsample`.
        identity: properties of ``explain`` by name, such as the method and the model.
        n_samples: number of samples of each run.
        n_seeds: number of runs of each sampler, at least 2.
        scale_px: side of the bins in pixels.
        folder: folder of the runs; created if it is missing.
        batch_size: number of samples explained together.
    """

    pixels: np.ndarray
    explain: Callable[[Tensor], Tensor]
    identity: dict[str, str]
    n_samples: int
    n_seeds: int
    scale_px: int
    folder: Path
    batch_size: int

    def run(self, on_progress: Callable[[int, int], None]) -> tuple[list[ReliabilityCurve], dict[str, float]]:
        """Return a curve for each sampler, the default one first, and the likeness of its map to the first map.

        Likeness is the correlation of the maps of all samples, corrected for their reliability. It is 1 if both
        samplers have the same expected map and differ by chance alone.
        """
        import numpy as np

        from radlens.images.sampling import SAMPLERS

        samplers = sorted(SAMPLERS, key=lambda name: name != "stratified")
        seeds, total = range(self.n_seeds), len(samplers) * self.n_seeds * self.n_samples
        progress = _Counter(on_progress, total)
        runs = {sampler: [self._looks(sampler, seed, progress) for seed in seeds] for sampler in samplers}
        curves = [_curve(sampler, runs[sampler]) for sampler in samplers]
        reliable = {curve.label: float(curve.agreement[-1]) for curve in curves}
        likeness = {}
        for sampler in samplers:
            ends = [(runs[samplers[0]][a][-1].binned, runs[sampler][b][-1].binned) for a, b in permutations(seeds, 2)]
            found = float(np.mean([_correlation(*maps) for maps in ends]))
            likeness[sampler] = found / math.sqrt(reliable[samplers[0]] * reliable[sampler])
        return curves, likeness

    def _looks(self, sampler: str, seed: int, progress: _Counter) -> list[_Look]:
        """Compute or continue one run, and return its looks."""
        from radlens.explainers import Checkpoint, upsample
        from radlens.explainers.upsampling import AUTO

        self.folder.mkdir(parents=True, exist_ok=True)
        stem = f"{sampler}-{seed}-{self._digest()}"
        kept = _Kept(self.folder / f"{stem}-looks.npz")
        looks = {look.n_samples: look for look in kept.load()}

        def look(done: int, _: int | None, partial: Any) -> None:
            progress.of_run(done)
            if done in schedule:
                halves = partial().halves
                looks[done] = _Look(done, halves.reliability(), _binned(halves))
                kept.save([looks[n] for n in sorted(looks)])

        schedule = set(_schedule(self.n_samples))
        if self.n_samples not in looks:
            upsample(
                self.pixels,
                self.explain,
                n_samples=AUTO,
                reliability=_NEVER,
                min_samples=2,
                max_samples=self.n_samples,
                sampler=sampler,
                seed=seed,
                batch_size=self.batch_size,
                scale_px=self.scale_px,
                on_progress=look,
                checkpoint=Checkpoint(self.folder / f"{stem}-sums.npz", self.identity),
            )
            (self.folder / f"{stem}-sums.npz").unlink()
        progress.end_run(self.n_samples)
        return [looks[n] for n in sorted(looks) if n <= self.n_samples]

    def _digest(self) -> str:
        """Return a digest of the measurement, so that other measurements in the same folder are left alone."""
        image = hashlib.sha256(self.pixels.tobytes()).hexdigest()
        text = json.dumps([image, self.identity, self.scale_px, self.n_samples], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:12]


class _Counter:
    """Counts the samples of several runs, one after the other."""

    def __init__(self, on_progress: Callable[[int, int], None], total: int) -> None:
        self._on_progress, self._total, self._before = on_progress, total, 0

    def of_run(self, done: int) -> None:
        """Report the progress of the present run."""
        self._on_progress(self._before + done, self._total)

    def end_run(self, n_samples: int) -> None:
        """Go on to the next run."""
        self._before += n_samples
        self.of_run(0)


class _Kept:
    """File of the looks of a run."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[_Look]:
        import numpy as np

        if not self._path.exists():
            return []
        with np.load(self._path) as saved:
            columns = (saved["n_samples"].tolist(), saved["estimates"].tolist(), saved["binned"])
        return [_Look(*row) for row in zip(*columns, strict=True)]

    def save(self, looks: Sequence[_Look]) -> None:
        import numpy as np

        beside = self._path.with_suffix(".part")
        with beside.open("wb") as file:
            np.savez(
                file,
                n_samples=np.array([look.n_samples for look in looks]),
                estimates=np.array([look.estimate for look in looks]),
                binned=np.stack([look.binned for look in looks]),
            )
        beside.replace(self._path)


def compared(curves: Sequence[ReliabilityCurve]) -> Iterator[tuple[str, int, float, float, bool]]:
    """Yield, for each other sampler, how many samples reach the reliability of the first sampler.

    A row holds the sampler, the number of samples of the first sampler, their reliability, the number of samples that
    this sampler needs, and whether it is extrapolated. The first sampler's numbers are an eighth, a quarter, a half and
    all of its samples.
    """
    import numpy as np

    from radlens.figures.reliability import needed

    first = curves[0]
    nearest = [int(np.argmin(np.abs(first.n_samples - first.n_samples[-1] / share))) for share in (8, 4, 2, 1)]
    for i in dict.fromkeys(nearest):
        reliability = float(first.agreement[i])
        for curve in curves[1:]:
            yield curve.label, int(first.n_samples[i]), reliability, *needed(curve, reliability)


def _schedule(n_samples: int) -> list[int]:
    from radlens.explainers import Goal

    goal, looks = Goal(max_samples=max(n_samples, Goal.min_samples)), [0]
    while looks[-1] < n_samples:
        looks.append(min(goal.next_look(looks[-1]), n_samples))
    return looks[1:]


def _binned(halves: Halves) -> np.ndarray:
    import numpy as np

    totals, visits = halves.totals.sum(axis=0), halves.visits.sum(axis=0)
    return np.divide(totals, visits, out=np.full(totals.shape, np.nan), where=visits > 0).astype(np.float32)


def _correlation(first: np.ndarray, second: np.ndarray) -> float:
    """Return the correlation of two maps over their common bins, NaN if these are fewer than half of the bins."""
    import numpy as np

    both = np.isfinite(first) & np.isfinite(second)
    if both.mean() < 0.5:
        return float("nan")
    return float(np.corrcoef(first[both].astype(np.float64), second[both].astype(np.float64))[0, 1])


def _curve(sampler: str, runs: Sequence[Sequence[_Look]]) -> ReliabilityCurve:
    import numpy as np

    from radlens.figures import ReliabilityCurve

    # A run that was killed during a look has lost it.
    n_samples = sorted(set.intersection(*({look.n_samples for look in run} for run in runs)))
    at = [{look.n_samples: look for look in run} for run in runs]
    agreement = [np.mean([_correlation(a[n].binned, b[n].binned) for a, b in combinations(at, 2)]) for n in n_samples]
    estimates = [[run[n].estimate for n in n_samples] for run in at]
    return ReliabilityCurve(sampler, np.array(n_samples), np.array(agreement), np.array(estimates))


def _explainer(method: str, given: dict[str, Any], *, registered: bool) -> Explainer:
    from radlens.explainers import create
    from radlens.families.cdmam.methods import WALK

    parameters = {name: value for name, value in given.items() if value is not None}
    walk = WALK["omig"] if registered else {"n_steps": 4}
    defaults: Mapping[str, Any] = {"omig": walk, "occlusion": {"window": 10, "stride": 10}}.get(method, {})
    return create(method, **{**defaults, **parameters})


def _image(file: Path | None) -> Image:
    from radlens.images import read, require_shape
    from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom

    data = to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(1, 0.07))) if file is None else file.read_bytes()
    image = read(data)
    require_shape(image)
    return image


def _written(
    curves: Sequence[ReliabilityCurve], likeness: dict[str, float], folder: Path, title: str, scale_px: int
) -> Iterator[Path]:
    from radlens.figures import figure_reliability, save

    _print_curves(curves, likeness)
    _print_needed(curves)
    picture = folder / "reliability.png"
    picture.write_bytes(save(figure_reliability(curves, title=title, scale_px=scale_px)))
    yield picture
    points = [
        (curve.label, n, f"{agreement:.4f}", *(f"{estimate:.4f}" for estimate in estimates))
        for curve in curves
        for n, agreement, estimates in zip(curve.n_samples, curve.agreement, curve.estimates.T, strict=True)
    ]
    columns = ["sampler", "n_samples", "agreement", *(f"estimate_{i}" for i in range(len(curves[0].estimates)))]
    yield _csv(folder / "reliability.csv", columns, points)
    rows = [(label, n, f"{r:.4f}", f"{found:.1f}", beyond) for label, n, r, found, beyond in compared(curves)]
    columns = ["sampler", f"n_samples_{curves[0].label}", "reliability", "n_samples_needed", "is_extrapolated"]
    yield _csv(folder / "needed.csv", columns, rows)


def _csv(file: Path, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Path:
    with file.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream).writerows([columns, *rows])
    return file


def _print_curves(curves: Sequence[ReliabilityCurve], likeness: dict[str, float]) -> None:
    rows = []
    for curve in curves:
        low, high = curve.estimates[:, -1].min(), curve.estimates[:, -1].max()
        told = f"{low:.3f}" if f"{low:.3f}" == f"{high:.3f}" else f"{low:.3f} to {high:.3f}"
        rows.append((curve.label, f"{curve.agreement[-1]:.3f}", told, f"{likeness[curve.label]:.3f}"))
    columns = ["sampler", "two seeds", "halves of one", f"like {curves[0].label}"]
    table(columns, rows, title=f"Reliability after {curves[0].n_samples[-1]} samples")
    note(f"like {curves[0].label}: correlation with its map, corrected for the reliability of both")


def _print_needed(curves: Sequence[ReliabilityCurve]) -> None:
    rows = [
        (label, str(n), f"{r:.3f}", f"{'about ' if beyond else ''}{found:.0f}", f"{found / n:.1f}")
        for label, n, r, found, beyond in compared(curves)
    ]
    columns = ["sampler", f"samples, {curves[0].label}", "reliability", "samples needed", "ratio"]
    table(columns, rows, title="Samples for the same reliability")
    note("about: extrapolated beyond the measured samples with the Spearman-Brown formula")
