"""Training of members on registered, self-normalised phantoms, whose logarithmic thresholds they learn.

The network is that of Table 2 in Amanova et al. 2022. `radlens.families.cdmam.training_layers` and
`radlens.phantoms.cdmam.registered` state the differences from section 2.2 and their reasons.
"""

import hashlib
import math
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.errors import InvalidParameter
from radlens.evaluation.kept import Kept
from radlens.families.cdmam.calibration import calibrate
from radlens.families.cdmam.reader import DEFAULT_SAMPLES, PhantomReader
from radlens.families.cdmam.training_layers import LayerSet, build_layers
from radlens.networks import CdmamNet, FoldedCdmamEnsemble
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.disk_blur import DiskBlur, disk_blur
from radlens.pools import process_pool

__all__ = [
    "OUTPUT",
    "RegisteredPreset",
    "calibration_exposures",
    "condensed",
    "evaluate",
    "prepare",
    "read_exposures",
    "train_member",
]

OUTPUT = "log um"
"""Quantity that the members learn, as in the record."""

DATA_SEED = 1
CALIBRATION_SEED = 4
"""Seed of the calibration phantoms; it differs from that of the training phantoms, so the sets are disjoint."""

N_DIRECTIONS = 6
"""Number of principal components of the logarithmic curves; without the others a point changes by 0.5 %."""

_WARM_UP = 0.05
_FROZEN_NORM_AFTER = 0.7
_CHECKPOINT_EVERY = 200

_IMAGES_PER_EXPOSURE = 2
_DRAWN_PER_EXPOSURE = 10

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class RegisteredPreset:
    """A recipe that reads the disks.

    Args:
        n_members: number of networks in the ensemble.
        n_phantoms: number of phantoms of the training set.
        n_steps: number of optimiser steps.
        batch_size: number of images per step.
        learning_rate: peak learning rate of AdamW, after a warm-up and before a cosine decay.
        rank: rank of the factors of the first dense layer.
        weight_decay: weight decay of AdamW.
        dropout: dropout rate after the first dense layer.
        n_calibration: number of phantoms, simulated at full size, that calibrate the intervals.
        n_test: number of phantoms, simulated at full size, for each group of the evaluation.
    """

    n_members: int
    n_phantoms: int
    n_steps: int
    batch_size: int = 16
    learning_rate: float = 2e-3
    rank: int = 16
    weight_decay: float = 1e-4
    dropout: float = 0.2
    n_calibration: int = 100
    n_test: int = 100

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("n_members", "n_phantoms", "n_steps", "batch_size", "rank", "n_calibration", "n_test"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.n_phantoms < self.batch_size:
            raise InvalidParameter(f"n_phantoms must be at least batch_size, {self.batch_size}, got {self.n_phantoms}")


def prepare(folder: Path, preset: RegisteredPreset, report: Report) -> dict[str, Any]:
    """Simulate the training phantoms of a run, or open them; return their entries of the record."""
    layers = build_layers(folder / "data", preset.n_phantoms, DATA_SEED, report)
    usual = np.exp(layers.curves[:, : layers.curves.shape[1] // 2])
    return {
        "output": OUTPUT,
        "recordings": "none: trained on simulated images only",
        "normalisation": {"mean": 0.0, "std": 1.0},
        "label_mean_um": usual.mean(axis=(0, 1)).tolist(),
    }


def train_member(
    folder: Path, checkpoint: Path, member: int, preset: RegisteredPreset, device: str, report: Report
) -> tuple[CdmamNet, float]:
    """Train one member, or continue from ``checkpoint``.

    Args:
        folder: folder of the run with its training phantoms.
        checkpoint: file that is written at intervals; the caller removes it.
        member: number of the member, which is the seed of all random numbers.
        preset: recipe.
        device: ``"cpu"`` or ``"cuda"``.
        report: callback ``report(step, n_steps)``.

    Returns:
        The member in evaluation mode, with outputs in the logarithm of um of gold, and the duration of its training in
        seconds.
    """
    layers = build_layers(folder / "data", preset.n_phantoms, DATA_SEED)
    torch.manual_seed(1000 + member)
    net = CdmamNet(preset.rank, preset.dropout).to(device)
    net.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(net.parameters(), lr=preset.learning_rate, weight_decay=preset.weight_decay)
    curves = layers.curves.reshape(-1, layers.curves.shape[-1])
    mean, std = curves.mean(axis=0), curves.std(axis=0)
    first, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        torch.set_rng_state(state["random"].cpu())
        first, seconds = state["step"], state["seconds"]
    begin = time.monotonic()
    net.train()
    for step, (images, labels) in _batches(layers, preset, member, first):
        progress = step / preset.n_steps
        for group in optimizer.param_groups:
            group["lr"] = preset.learning_rate * _rate(progress)
        if progress > _FROZEN_NORM_AFTER:
            _freeze_norms(net)
        images, labels = images.to(device, memory_format=torch.channels_last), labels.to(device)
        # bfloat16 inside the network halves the time of a step on a CPU; the loss is computed in float32.
        with torch.autocast(device, torch.bfloat16):
            mu, sigma = net(images)
        scaled = (labels - torch.from_numpy(mean).to(labels)) / torch.from_numpy(std).to(labels)
        loss = (0.5 * ((scaled - mu.float()) / sigma.float()) ** 2 + sigma.float().log()).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step + 1, preset.n_steps)
        if (step + 1) % _CHECKPOINT_EVERY == 0:
            state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "step": step + 1}
            state["random"] = torch.get_rng_state()
            draft = checkpoint.with_suffix(".draft")
            torch.save(state | {"seconds": seconds + time.monotonic() - begin}, draft)
            draft.replace(checkpoint)
    net.cpu().to(memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    net.scale_output(torch.from_numpy(mean).float(), torch.from_numpy(std).float())
    return condensed(net, curves), seconds + time.monotonic() - begin


@torch.no_grad()
def condensed(net: CdmamNet, curves: np.ndarray, n_directions: int = N_DIRECTIONS) -> CdmamNet:
    """Return ``net`` with its dense layers condensed to a map of low rank.

    Table 2 has no activation between its dense layers, so they are one affine map. Its outputs are projected onto the
    principal components of the training curves, which reduces a member to a megabyte in half precision.

    Args:
        net: trained member with outputs in the logarithm of um of gold.
        curves: ``(n, 12)`` logarithms of the training curves.
        n_directions: number of principal components to keep.

    Returns:
        A network of Table 2 with a first dense layer of rank ``n_directions``, in evaluation mode.
    """
    _, _, components = np.linalg.svd(curves - curves.mean(axis=0), full_matrices=False)
    directions = torch.from_numpy(components[:n_directions].T.copy())
    head = net.mu.weight.double() @ net.dense2.weight.double()
    bias = net.mu.weight.double() @ net.dense2.bias.double() + net.mu.bias.double() + head @ net.dense1.bias.double()
    thin = CdmamNet(n_directions, net.dropout.p)
    state = {name: value for name, value in net.state_dict().items() if not name.startswith(("dense", "mu"))}
    thin.load_state_dict(state, strict=False)
    narrow = (directions.T @ head) @ net.dense1.weight.double()
    scale = narrow.abs().amax(dim=1, keepdim=True)
    first = thin.dense1
    assert not isinstance(first, nn.Linear), "the first dense layer of a rank has two factors"
    for layer in (first.wide, thin.dense2, thin.mu):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    first.narrow.weight.copy_(narrow / scale)
    first.wide.weight[:n_directions].copy_(torch.eye(n_directions))
    nn.init.eye_(thin.dense2.weight)
    thin.mu.weight[:, :n_directions].copy_(directions * scale.T)
    # Curves are projected relative to their mean, not to the origin.
    centre = torch.from_numpy(curves.mean(axis=0))
    thin.mu.bias.copy_(centre + directions @ (directions.T @ (bias - centre)))
    return thin.eval()


def _rate(progress: float) -> float:
    if progress < _WARM_UP:
        return max(progress / _WARM_UP, 1e-3)
    return 0.5 * (1 + math.cos(math.pi * (progress - _WARM_UP) / (1 - _WARM_UP)))


def _freeze_norms(net: nn.Module) -> None:
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()


def _batches(
    layers: LayerSet, preset: RegisteredPreset, member: int, first: int
) -> Iterator[tuple[int, tuple[Tensor, Tensor]]]:
    """Yield the batches from step ``first`` on; each depends on member and step alone, so a run can resume."""
    per_epoch = len(layers) // preset.batch_size
    for step in range(first, preset.n_steps):
        epoch, place = divmod(step, per_epoch)
        order = np.random.default_rng([member, 0, epoch]).permutation(len(layers))
        chosen = np.sort(order[place * preset.batch_size : (place + 1) * preset.batch_size])
        rng = np.random.default_rng([member, 1, step])
        images, labels = zip(*(layers.image(k, rng) for k in chosen.tolist()), strict=True)
        yield step, (torch.from_numpy(np.stack(images))[:, None], torch.from_numpy(np.stack(labels)).float())


def evaluate(
    folder: Path,
    model: FoldedCdmamEnsemble,
    preset: RegisteredPreset,
    n_workers: int,
    report: Callable[[str, int, int], None],
) -> dict[str, Any]:
    """Calibrate the intervals on phantoms that no member has seen, and measure the errors of the predicted curves.

    Every phantom is simulated at full size, registered and read like a request. Readings are appended to a file of the
    run, so an interrupted evaluation can continue.

    Args:
        folder: folder of the run.
        model: ensemble.
        preset: recipe.
        n_workers: number of processes.
        report: callback ``report(stage, done, total)``.

    Returns:
        The entries ``calibration`` and ``evaluation`` of the record.
    """
    n = preset.n_calibration
    found = read_exposures(folder, model, range(n), n_workers, report)
    predicted, epistemic, blur = found[..., 0, :], found[..., 1, :], found[..., 2, :2]
    true = cdmam.expected_cdc([_exposure(k, n)[0] for k in range(n)])
    calibration = calibrate(predicted, epistemic, true, blur, n_samples=DEFAULT_SAMPLES)
    predicted = np.array(
        [
            [calibration.corrected(curve, DiskBlur(*own)) for curve, own in zip(curves, blurs, strict=True)]
            for curves, blurs in zip(predicted, blur.tolist(), strict=True)
        ]
    )
    errors = np.log(predicted.mean(axis=2) / true.mean(axis=1)[:, None])
    measured = {
        "n_images": int(predicted.shape[0] * predicted.shape[1]),
        "rms_log_midpoint": float(np.sqrt(np.mean(errors**2))),
        "relative_error": np.sqrt(np.mean((np.log(predicted) - np.log(true)[:, None]) ** 2, axis=(0, 1))).tolist(),
    }
    return {"calibration": calibration.as_json(), "evaluation": {"calibration phantoms": measured}}


def read_exposures(
    folder: Path, model: FoldedCdmamEnsemble, numbers: range, n_workers: int, report: Callable[[str, int, int], None]
) -> np.ndarray:
    """Return the readings of each exposure, (exposures, images, 3, 12), with the rows of `_read_exposure`.

    Args:
        folder: folder of the readings so far, to which new ones are added. Those of other weights or of another number
            of exposures, which changes the exposures, are kept apart.
        model: ensemble.
        numbers: numbers of the exposures, from 0 on.
        n_workers: number of processes.
        report: callback ``report("calibrating", done, total)``.
    """
    n = len(numbers)
    weights = hashlib.sha256()
    for name, value in model.state_dict().items():
        weights.update(name.encode() + value.numpy().tobytes())
    identity = f"{n} exposures, {weights.hexdigest()}"
    kept: Kept[int, Any] = Kept(folder, "calibration", identity, lambda k, curves: [k, curves], tuple)
    known = kept.load()
    missing = [k for k in numbers if k not in known]
    with _readers(model, n, n_workers) as read_all:
        for done, (k, curves) in enumerate(zip(missing, read_all(missing), strict=True), start=1):
            known[k] = curves
            kept.add(k, curves)
            report("calibrating", n - len(missing) + done, n)
    return np.array([known[k] for k in numbers])


@contextmanager
def _readers(model: FoldedCdmamEnsemble, n: int, n_workers: int) -> Iterator[Callable[[list[int]], Iterable[Any]]]:
    """Yield a function that reads exposures of a set of ``n``, in this process or in several."""
    if n_workers == 1:
        _worker["model"] = model
        yield lambda numbers: map(partial(_read_exposure, n=n), numbers)
        return
    with process_pool(n_workers, _start_worker, model) as pool:
        yield lambda numbers: pool.map(partial(_read_exposure, n=n), numbers)


_worker: dict[str, FoldedCdmamEnsemble] = {}


def _start_worker(model: FoldedCdmamEnsemble) -> None:
    torch.set_num_threads(1)
    _worker["model"] = model


def _exposure(k: int, n: int) -> tuple[cdmam.Acquisition, list[cdmam.Layout]]:
    """Return exposure ``k`` of ``n`` of the calibration, and the layouts of its images."""
    rng = np.random.default_rng([CALIBRATION_SEED, k])
    return calibration_exposures(n)[k], [cdmam.sample_layout(rng, (1, 2, 3, 4, 5)) for _ in range(_IMAGES_PER_EXPOSURE)]


@lru_cache(maxsize=2)
def calibration_exposures(n: int) -> tuple[cdmam.Acquisition, ...]:
    """Return exposures of the training range with evenly spaced logarithms of their midpoints.

    Few exposures drawn as for training would have high thresholds, and errors there would be extrapolated from others.
    """
    rng = np.random.default_rng([CALIBRATION_SEED, n])
    drawn = [cdmam.sample_acquisition(rng) for _ in range(_DRAWN_PER_EXPOSURE * n)]
    midpoints = np.log(cdmam.expected_cdc(drawn).mean(axis=1))
    low, high = midpoints.min(), midpoints.max()
    chosen: list[int] = []
    for wanted in low + (np.arange(n) + 0.5) / n * (high - low):
        distance = np.abs(midpoints - wanted)
        distance[chosen] = np.inf
        chosen.append(int(distance.argmin()))
    return tuple(drawn[i] for i in chosen)


def _read_exposure(k: int, n: int) -> list[list[list[float]]]:
    """Return three rows of 12 numbers for each image of an exposure.

    The rows are the curve in um of gold, the relative disagreement of the members, and the blur of the disks and its
    error in mm, padded with zeros.
    """
    reader = PhantomReader(_worker["model"])
    acquisition, layouts = _exposure(k, n)
    curves = []
    for i, layout in enumerate(layouts):
        image = cdmam.simulate(acquisition, layout, seed=1_000 * k + i)
        phantom = cdmam.register(image.pixels, layout.spacing_mm)
        found = reader.read(phantom)
        curves.append(
            [found.mean.tolist(), (found.epistemic / found.mean).tolist(), [*disk_blur(phantom), *10 * [0.0]]]
        )
    return curves
