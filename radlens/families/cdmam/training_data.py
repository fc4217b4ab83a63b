"""Training and test images of the CDMAM ensemble: Amanova et al. 2022, section 2.2, Table 1 and Appendix D.

Images are simulated at the 250x250 pixels that a sampler takes; only those that replace recordings are simulated at
full size. They are stored in a memory-mapped file, so the paper's 57 600 images take 7 GB of disk and little memory.
"""

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from radlens import images
from radlens.errors import InvalidInput, TrainingError
from radlens.images.sampling import SAMPLED_SHAPE, downsample, sample_indices
from radlens.phantoms import cdmam
from radlens.pools import process_pool

__all__ = [
    "STEP_MARGINS",
    "TrainingSet",
    "build_training_set",
    "recorded_curves",
    "recorded_set",
    "scenario_set",
    "simulated_set",
]

STEP_MARGINS: tuple[tuple[int, ...], ...] = ((0,), (1, 2), (3, 4, 5))
"""Margin sizes that the first three training steps add (Appendix D); the fourth step adds recordings."""

N_STEPS = len(STEP_MARGINS) + 1
"""Number of training steps of Appendix D."""

_CHUNK = 50
_SHARE_OF_JITTER = 0.75
"""Share of the training images that the jitter sampler takes; the grid sampler takes the others."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, eq=False)
class TrainingSet:
    """Downsampled images with their curves.

    Attributes:
        images: ``(n, 250, 250)`` uint16 pixel values, attenuation bright; may be memory-mapped.
        labels: ``(n, 12)`` float64, threshold gold thickness in um, largest disk first.
        steps: ``(n,)`` training step, 0..3, that adds the image.
    """

    images: np.ndarray
    labels: np.ndarray
    steps: np.ndarray

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self.labels)


def build_training_set(
    folder: Path,
    *,
    n_simulated: int,
    n_recorded: int,
    seed: int,
    recordings: Path | None = None,
    n_workers: int = 2,
    on_progress: Progress | None = None,
) -> TrainingSet:
    """Simulate the training set in ``folder``, or open it if it is complete.

    Args:
        folder: folder of ``images.npy``, ``labels.npy`` and ``steps.npy``.
        n_simulated: number of simulated images, spread evenly over the first three steps.
        n_recorded: number of images of the fourth step, sampled from recordings.
        seed: seed of all random numbers.
        recordings: folder of real phantom images with a file ``cdc.csv``, as in :func:`recorded_set`; if None, phantoms
            simulated at full size replace recordings.
        n_workers: number of processes that simulate.
        on_progress: callback ``on_progress(done, total)``.

    Raises:
        InvalidInput: ``recordings`` lack an image or a valid ``cdc.csv``.
    """
    names = ("images", "labels", "steps")
    if all((folder / f"{name}.npy").exists() for name in names):
        return TrainingSet(*(np.load(folder / f"{name}.npy", mmap_mode="r") for name in names))
    folder.mkdir(parents=True, exist_ok=True)
    n = n_simulated + n_recorded
    stack = np.lib.format.open_memmap(folder / "images.tmp", mode="w+", dtype=np.uint16, shape=(n, *SAMPLED_SHAPE))
    labels = np.empty((n, 12))
    steps = np.arange(n_simulated) * len(STEP_MARGINS) // max(n_simulated, 1)
    jobs = [(range(i, min(i + _CHUNK, n_simulated)), seed) for i in range(0, n_simulated, _CHUNK)]
    with process_pool(n_workers) as pool:
        for (chunk, _), (pixels, curves) in zip(jobs, pool.map(partial(_draw_chunk, steps), jobs), strict=True):
            stack[chunk.start : chunk.stop], labels[chunk.start : chunk.stop] = pixels, curves
            if on_progress is not None:
                on_progress(chunk.stop, n)
    if n_recorded:
        recorded = recorded_set(recordings, n_recorded, seed) if recordings else _stand_ins(n_recorded, seed)
        stack[n_simulated:], labels[n_simulated:] = recorded.images, recorded.labels
    stack.flush()
    np.save(folder / "labels.npy", labels)
    np.save(folder / "steps.npy", np.concatenate([steps, np.full(n_recorded, N_STEPS - 1)]))
    # The last name to appear marks a complete set.
    (folder / "images.tmp").rename(folder / "images.npy")
    return build_training_set(folder, n_simulated=n_simulated, n_recorded=n_recorded, seed=seed)


def simulated_set(n: int, seed: int, margins: Sequence[int] = (0, 1, 2, 3, 4, 5)) -> TrainingSet:
    """Simulate ``n`` images of random acquisitions with ``margins``; another seed than in training gives new images."""
    drawn = [_draw(i, seed, margins, None) for i in range(n)]
    return _collect(drawn)


def scenario_set(scenario: str, n: int, seed: int) -> TrainingSet:
    """Simulate ``n`` images of one scenario of Table 1, with margins of every size in turn."""
    acquisition = cdmam.SCENARIOS[scenario]
    return _collect([_draw(i, seed, (i % len(cdmam.MARGINS_MM),), acquisition) for i in range(n)])


def recorded_set(folder: Path, n: int, seed: int) -> TrainingSet:
    """Sample ``n`` images from the recordings in ``folder``, each recording equally often.

    Args:
        folder: folder of images in any format that radlens reads, and ``cdc.csv``: a header line, then one line per
            image with its file name and its 12 thresholds in um of gold, largest disk first.
        n: number of images.
        seed: seed of the samples.

    Raises:
        InvalidInput: ``cdc.csv`` is missing or invalid, or names an image that is missing.
    """
    rows = recorded_curves(folder)
    pictures = [_recording(folder / name) for name in rows]
    return _sample_full(pictures, np.array(list(rows.values())), n, seed)


def recorded_curves(folder: Path) -> dict[str, list[float]]:
    """Return the 12 thresholds of each recording in ``cdc.csv`` of a folder, um of gold, largest disk first.

    Raises:
        InvalidInput: The file is missing, or a line does not hold a file name and 12 positive numbers.
    """
    table = folder / "cdc.csv"
    if not table.is_file():
        raise InvalidInput("recordings must come with a file cdc.csv, which is missing")
    with table.open(newline="", encoding="utf-8") as file:
        rows = list(csv.reader(file))[1:]
    try:
        found = {name: [float(value) for value in values] for name, *values in rows}
    except ValueError:
        found = {}
    if not found or not all(len(curve) == 12 and min(curve) > 0 for curve in found.values()):
        raise InvalidInput("cdc.csv must hold lines of a file name and 12 thresholds under one header line")
    return found


def _recording(path: Path) -> np.ndarray:
    if not path.is_file():
        raise InvalidInput("cdc.csv names an image that is not in its folder")
    return images.read(path.read_bytes()).pixels


def _stand_ins(n: int, seed: int) -> TrainingSet:
    """Sample ``n`` images from phantoms simulated at full size, 100 images each, like the paper's 4800 of 48."""
    rng = np.random.default_rng([seed, 1])
    n_full = max(1, n // 100)
    acquisitions = [cdmam.sample_acquisition(rng) for _ in range(n_full)]
    layouts = [cdmam.sample_layout(rng, (2, 3, 4, 5)) for _ in range(n_full)]
    exposed = zip(acquisitions, layouts, strict=True)
    pictures = [cdmam.simulate(*exposure, seed + i).pixels for i, exposure in enumerate(exposed)]
    return _sample_full(pictures, cdmam.expected_cdc(acquisitions), n, seed)


def _sample_full(pictures: Sequence[np.ndarray], curves: np.ndarray, n: int, seed: int) -> TrainingSet:
    chosen = np.arange(n) % len(pictures)
    stack = [
        downsample(pictures[k], _sampler(seed, i), seed=seed, index=i).image for i, k in enumerate(chosen.tolist())
    ]
    return TrainingSet(np.stack(stack).astype(np.uint16), curves[chosen], np.full(n, N_STEPS - 1))


def _draw_chunk(steps: np.ndarray, job: tuple[range, int]) -> tuple[np.ndarray, np.ndarray]:
    indices, seed = job
    part = _collect([_draw(i, seed, STEP_MARGINS[int(steps[i])], None) for i in indices])
    return part.images, part.labels


Drawn = tuple[np.ndarray, cdmam.Acquisition]


def _draw(index: int, seed: int, margins: Sequence[int], acquisition: cdmam.Acquisition | None) -> Drawn:
    rng = np.random.default_rng([seed, 0, index])
    acquisition = acquisition or cdmam.sample_acquisition(rng)
    layout = cdmam.sample_layout(rng, margins)
    rows, cols = sample_indices(layout.image_shape, _sampler(seed, index), seed=seed, index=index)
    return cdmam.simulate_sampled(acquisition, layout, rows, cols, rng), acquisition


def _sampler(seed: int, index: int) -> str:
    return "jitter" if np.random.default_rng([seed, 2, index]).random() < _SHARE_OF_JITTER else "grid"


def _collect(drawn: Sequence[Drawn]) -> TrainingSet:
    if not drawn:
        raise TrainingError("a set must hold at least 1 image, got 0")
    pixels = np.stack([picture for picture, _ in drawn]).astype(np.uint16)
    labels = cdmam.expected_cdc([acquisition for _, acquisition in drawn])
    return TrainingSet(pixels, labels, np.zeros(len(drawn), dtype=np.intp))
