"""Training by the recipe of Amanova et al. 2022, section 2.2 and Appendix D.

Images are not registered but normalised by the mean and the standard deviation of the training images; the network
learns the curve in um. A model of this recipe reads noise and grid rather than disks
(`radlens.families.cdmam.training_layers` gives the reasons); it serves to reproduce the paper.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.errors import InvalidParameter
from radlens.evaluation import cdc
from radlens.families.cdmam.training_data import N_STEPS, TrainingSet, build_training_set, scenario_set, simulated_set
from radlens.networks import CdmamNet, FoldedCdmamEnsemble

__all__ = ["PaperPreset", "evaluate", "negative_log_likelihood", "prepare", "train_member"]

DATA_SEED = 1
TEST_SEED = 2
"""Seed of test images; it differs from that of training images, so the sets are disjoint."""

Report = Callable[[int, int], None]


@dataclass(frozen=True)
class PaperPreset:
    """The recipe of the paper, in any size.

    Args:
        n_members: number of networks in the ensemble.
        n_simulated: number of simulated images.
        n_recorded: number of images sampled from recordings, or from phantoms simulated at full size.
        epochs: number of epochs; each of the four steps of Appendix D takes a quarter of them.
        batch_size: number of images per optimiser step.
        learning_rate: learning rate of Adam.
        dense_rate: learning rate of the first dense layer as a fraction of ``learning_rate``: the layer sums 123 008
            features, so an Adam step changes its output by five orders of magnitude more than that of a convolution.
        one_cycle: raise and lower the learning rate over the run instead of keeping it constant.
        rank: rank of the factors of the first dense layer; None for the full layer of Table 2.
        weight_decay: L2 regularisation.
        dropout: dropout rate after the first dense layer.
        n_test: number of test images of each scenario and of random acquisitions.
    """

    n_members: int
    n_simulated: int
    n_recorded: int
    epochs: int
    batch_size: int
    learning_rate: float
    dense_rate: float = 1.0
    one_cycle: bool = False
    rank: int | None = None
    weight_decay: float = 1e-4
    dropout: float = 0.2
    n_test: int = 200

    def __post_init__(self) -> None:
        """Check the ranges of the values."""
        for name in ("n_members", "n_simulated", "batch_size", "n_test"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.epochs < N_STEPS:
            raise InvalidParameter(f"epochs must be at least {N_STEPS}, one for each step, got {self.epochs}")


def prepare(folder: Path, preset: PaperPreset, recordings: Path | None, report: Report) -> dict[str, Any]:
    """Simulate the training images of a run, or open them; return their entries of the record."""
    data = build_training_set(
        folder / "data",
        n_simulated=preset.n_simulated,
        n_recorded=preset.n_recorded,
        seed=DATA_SEED,
        recordings=recordings,
        on_progress=report,
    )
    means = np.array([image.mean() for image in data.images])
    stds = np.array([image.std() for image in data.images])
    return {
        "recordings": "real" if recordings else "replaced by phantoms simulated at full size",
        "normalisation": {
            "mean": float(means.mean()),
            "std": float(np.sqrt((stds**2 + means**2).mean() - means.mean() ** 2)),
        },
        "pixel_mean_range": [float(means.min()), float(means.max())],
        "pixel_std_range": [float(stds.min()), float(stds.max())],
        "label_mean_um": data.labels.mean(axis=0).tolist(),
        "label_std_um": data.labels.std(axis=0).tolist(),
    }


def negative_log_likelihood(mu: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """Return the mean Gaussian negative log-likelihood of ``labels``, all ``(b, 12)``, without its constant."""
    return (0.5 * ((labels - mu) / sigma) ** 2 + sigma.log()).mean()


def train_member(
    folder: Path,
    checkpoint: Path,
    member: int,
    preset: PaperPreset,
    record: Mapping[str, Any],
    device: str,
    report: Report,
) -> tuple[CdmamNet, float]:
    """Train one member, or continue after the last finished epoch of ``checkpoint``.

    Args:
        folder: folder of the run with its training images.
        checkpoint: file that is written after each epoch; the caller removes it.
        member: number of the member, which is the seed of all random numbers.
        preset: recipe.
        record: entries of the record that `prepare` returned.
        device: ``"cpu"`` or ``"cuda"``.
        report: callback ``report(step, n_steps)``.

    Returns:
        The member in evaluation mode, with outputs in um of gold, and the duration of its training in seconds.
    """
    data = build_training_set(folder / "data", n_simulated=0, n_recorded=0, seed=DATA_SEED)
    torch.manual_seed(1000 + member)
    net = CdmamNet(preset.rank, preset.dropout).to(device)
    optimizer = torch.optim.Adam(_parameter_groups(net, preset), weight_decay=preset.weight_decay)
    total = sum(len(_images_of_epoch(data, preset, epoch)) // preset.batch_size for epoch in range(preset.epochs))
    schedule = _schedule(optimizer, preset, total)
    first, seconds = 0, 0.0
    if checkpoint.exists():
        state = torch.load(checkpoint, map_location=device, weights_only=True)
        net.load_state_dict(state["net"])
        optimizer.load_state_dict(state["optimizer"])
        schedule.load_state_dict(state["schedule"])
        first, seconds = state["epoch"] + 1, state["seconds"]
    for epoch in range(first, preset.epochs):
        begin = time.monotonic()
        for images, labels in _batches(data, record, preset, member, epoch, device):
            mu, sigma = _forward(net, images)
            optimizer.zero_grad()
            negative_log_likelihood(mu, sigma, labels).backward()
            optimizer.step()
            schedule.step()
            report(schedule.last_epoch, total)
        seconds += time.monotonic() - begin
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state | {"epoch": epoch, "seconds": seconds}, checkpoint)
    net.cpu().eval()
    net.scale_output(torch.tensor(record["label_mean_um"]), torch.tensor(record["label_std_um"]))
    return net, seconds


def _forward(net: CdmamNet, images: Tensor) -> tuple[Tensor, Tensor]:
    # bfloat16 inside the network halves the time of an epoch on a CPU; the loss is computed in float32.
    with torch.autocast(images.device.type, torch.bfloat16):
        mu, sigma = net(images)
    return mu.float(), sigma.float()


def _parameter_groups(net: CdmamNet, preset: PaperPreset) -> list[dict[str, Any]]:
    layer = net.dense1 if isinstance(net.dense1, nn.Linear) else net.dense1.narrow
    slow = [layer.weight]
    fast = [parameter for parameter in net.parameters() if parameter is not layer.weight]
    rate = preset.learning_rate
    return [{"params": fast, "lr": rate}, {"params": slow, "lr": rate * preset.dense_rate}]


def _schedule(
    optimizer: torch.optim.Optimizer, preset: PaperPreset, total: int
) -> torch.optim.lr_scheduler.LRScheduler:
    if not preset.one_cycle:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    rates = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=total + 1, pct_start=0.15)


def _images_of_epoch(data: TrainingSet, preset: PaperPreset, epoch: int) -> np.ndarray:
    """Return the indices of the images of ``epoch``: those of its step and of the steps before (Appendix D)."""
    return np.flatnonzero(np.asarray(data.steps) <= epoch * N_STEPS // preset.epochs)


def _batches(
    data: TrainingSet, record: Mapping[str, Any], preset: PaperPreset, member: int, epoch: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches of one epoch; order and flips depend on ``(member, epoch)`` alone, so a run can resume."""
    torch.manual_seed(100_000 * (member + 1) + epoch)
    rng = np.random.default_rng([member, epoch])
    order = rng.permutation(_images_of_epoch(data, preset, epoch))
    norm = record["normalisation"]
    label_mean, label_std = np.array(record["label_mean_um"]), np.array(record["label_std_um"])
    for i in range(len(order) // preset.batch_size):
        # Sorted, because a memory-mapped file is read fastest in its own order.
        chosen = np.sort(order[i * preset.batch_size : (i + 1) * preset.batch_size])
        pixels = torch.from_numpy(data.images[chosen].astype(np.float32))[:, None]
        mirrors = [axis for axis in (2, 3) if rng.random() < 0.5]
        images = ((pixels - norm["mean"]) / norm["std"]).flip(mirrors)
        labels = torch.from_numpy(((data.labels[chosen] - label_mean) / label_std).astype(np.float32))
        yield images.to(device), labels.to(device)


def evaluate(members: Sequence[CdmamNet], record: Mapping[str, Any], n_test: int, report: Report) -> dict[str, Any]:
    """Return RMSE, skill and coverage on unseen images of each scenario of Table 1 and of random acquisitions."""
    model = FoldedCdmamEnsemble.from_members(members)
    groups = ["random", *(f"scenario {name}" for name in ("1", "2", "3", "4")), "scenario ood"]
    result = {}
    for i, group in enumerate(groups):
        report(i, len(groups))
        name = group.removeprefix("scenario ")
        test = simulated_set(n_test, TEST_SEED) if group == "random" else scenario_set(name, n_test, TEST_SEED)
        mean, total = _predict(record["normalisation"], model, test.images)
        result[group] = {
            "n_images": len(test),
            "rmse_um": cdc.rmse(mean, test.labels),
            "skill": cdc.skill(mean, test.labels, np.array(record["label_mean_um"])),
            "coverage": cdc.coverage(cdc.linear_interval(mean, total), test.labels),
        }
    report(len(groups), len(groups))
    return {"evaluation": result}


def _predict(
    normalisation: Mapping[str, float], model: FoldedCdmamEnsemble, pixels: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    normalised = torch.from_numpy((pixels.astype(np.float32) - normalisation["mean"]) / normalisation["std"])[
        :, None
    ].float()
    parts = [model.predict(batch) for batch in normalised.split(16)]
    return (
        torch.cat([part.mean for part in parts]).double().numpy(),
        torch.cat([part.total for part in parts]).double().numpy(),
    )
