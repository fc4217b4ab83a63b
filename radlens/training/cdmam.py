"""Training of the CDMAM ensemble: Amanova et al. 2022, section 2.2 and Appendix D.

A run is a folder: the drawn data, one checkpoint per member while it trains, one ``member-NN.npz`` when it is done and
``training.json``, the record. Starting it again continues after the last finished epoch.
"""

import json
import multiprocessing
import platform
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens import __version__
from radlens.errors import InvalidParameter, TrainingError
from radlens.evaluation import cdc
from radlens.networks import CdmamNet, FoldedCdmamEnsemble
from radlens.training.cdmam_data import (
    N_STEPS,
    TrainingSet,
    build_training_set,
    scenario_set,
    simulated_set,
)

__all__ = ["PRESETS", "Preset", "TrainedRun", "load_run", "negative_log_likelihood", "train"]

RECORD = "training.json"

_SECONDS = "training_seconds"

DATA_SEED = 1
TEST_SEED = 2
"""Test images are drawn from another seed than training images, so none is in both."""


@dataclass(frozen=True)
class Preset:
    """A recipe.

    Args:
        n_members: networks in the ensemble.
        n_simulated: simulated images.
        n_recorded: images sampled from recordings, or from phantoms drawn in full that stand for them.
        epochs: passes in all; each of the four steps of Appendix D takes a quarter.
        batch_size: images per step.
        learning_rate: of Adam.
        dense_rate: learning rate of the first dense layer as a part of ``learning_rate``: it sums 123 008 features,
            so one Adam step moves its output by five orders of magnitude more than one of a convolution.
        one_cycle: raise and lower the learning rate over the run instead of keeping it.
        rank: of the factors of the first dense layer, ``None`` for Table 2's full layer.
        weight_decay: L2 regularisation.
        dropout: rate after the first dense layer.
        n_test: test images of each scenario and of random acquisitions.
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
        """Refuse values out of range."""
        for name in ("n_members", "n_simulated", "batch_size", "n_test"):
            if getattr(self, name) < 1:
                raise InvalidParameter(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.epochs < N_STEPS:
            raise InvalidParameter(f"epochs must be at least {N_STEPS}, one for each step, got {self.epochs}")


PRESETS: dict[str, Preset] = {
    "paper": Preset(10, 52_800, 4_800, epochs=300, batch_size=50, learning_rate=1e-5, n_test=1200),
    "standard": Preset(
        8, 4_000, 400, epochs=12, batch_size=32, learning_rate=2e-3, dense_rate=0.01, one_cycle=True, rank=8
    ),
    "demo": Preset(4, 2_400, 200, epochs=8, batch_size=32, learning_rate=2e-3, dense_rate=0.01, one_cycle=True, rank=8),
}
"""``paper``: the paper's numbers. ``standard``: about an hour on two cores. ``demo``: some twenty minutes."""

Progress = Callable[[str, float, float], None]


@dataclass(frozen=True, eq=False)
class TrainedRun:
    """A finished run.

    Attributes:
        members: the networks, outputs in um of gold, evaluation mode.
        record: the training record.
    """

    members: tuple[CdmamNet, ...]
    record: dict[str, Any]

    @property
    def mean(self) -> float:
        """Mean pixel value of the training images."""
        return float(self.record["normalisation"]["mean"])

    @property
    def std(self) -> float:
        """Standard deviation of the pixel values of the training images."""
        return float(self.record["normalisation"]["std"])


def train(
    folder: Path,
    preset: Preset,
    *,
    recordings: Path | None = None,
    device: str | None = None,
    n_workers: int = 2,
    on_progress: Progress | None = None,
) -> TrainedRun:
    """Train an ensemble, or continue an interrupted run.

    Args:
        folder: of the run; created if it is not there.
        preset: the recipe.
        recordings: folder of real phantom images with their curves.
        device: ``"cpu"`` or ``"cuda"``; the GPU if there is one.
        n_workers: members trained at the same time on a CPU, each on one core: two members side by side are done
            sooner than one after the other on two cores. A GPU trains one at a time.
        on_progress: called as ``on_progress(stage, done, total)``.

    Raises:
        TrainingError: the folder holds a run of another recipe.
    """
    report = on_progress or (lambda stage, done, total: None)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    folder.mkdir(parents=True, exist_ok=True)
    _claim(folder, preset)
    data = build_training_set(
        folder / "data",
        n_simulated=preset.n_simulated,
        n_recorded=preset.n_recorded,
        seed=DATA_SEED,
        recordings=recordings,
        on_progress=lambda done, total: report("drawing images", done, total),
    )
    record = _open_record(folder, preset, data, recordings is not None)
    _train_members(folder, preset, n_workers if device == "cpu" else 1, device, report)
    record["seconds_per_member"] = [_seconds(_member_file(folder, i)) for i in range(preset.n_members)]
    run = TrainedRun(_load_members(folder, preset), record)
    if "evaluation" not in record:
        record["evaluation"] = _evaluate(run, preset.n_test, report)
        _write_record(folder, record)
    return run


def load_run(folder: Path) -> TrainedRun:
    """Load a finished run.

    Raises:
        TrainingError: there is none, or it is not finished.
    """
    if not (folder / RECORD).is_file():
        raise TrainingError(f"a training run must hold {RECORD}, which is missing")
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    preset = Preset(**record["preset"])
    missing = [i for i in range(preset.n_members) if not _member_file(folder, i).exists()]
    if missing:
        raise TrainingError(
            f"the run must have {preset.n_members} trained members, got {preset.n_members - len(missing)}"
        )
    return TrainedRun(_load_members(folder, preset), record)


def negative_log_likelihood(mu: Tensor, sigma: Tensor, labels: Tensor) -> Tensor:
    """Return the mean Gaussian negative log-likelihood of ``labels``, all ``(b, 12)``, without its constant."""
    return (0.5 * ((labels - mu) / sigma) ** 2 + sigma.log()).mean()


def _claim(folder: Path, preset: Preset) -> None:
    """Write the recipe into a new run; refuse a folder that holds another one."""
    file = folder / "preset.json"
    recipe = json.dumps(asdict(preset), indent=2)
    if file.exists() and file.read_text(encoding="utf-8") != recipe:
        raise TrainingError("the folder holds a run of another recipe; choose an empty one or delete it")
    file.write_text(recipe, encoding="utf-8")


def _open_record(folder: Path, preset: Preset, data: TrainingSet, recorded: bool) -> dict[str, Any]:
    if (folder / RECORD).exists():
        return json.loads((folder / RECORD).read_text(encoding="utf-8"))
    means = np.array([image.mean() for image in data.images])
    stds = np.array([image.std() for image in data.images])
    record = {
        "preset": asdict(preset),
        "recordings": "real" if recorded else "phantoms drawn in full stand for recordings",
        "normalisation": {
            "mean": float(means.mean()),
            "std": float(np.sqrt((stds**2 + means**2).mean() - means.mean() ** 2)),
        },
        "pixel_mean_range": [float(means.min()), float(means.max())],
        "pixel_std_range": [float(stds.min()), float(stds.max())],
        "label_mean_um": data.labels.mean(axis=0).tolist(),
        "label_std_um": data.labels.std(axis=0).tolist(),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "versions": {"radlens": __version__, "torch": torch.__version__, "numpy": np.__version__},
    }
    _write_record(folder, record)
    return record


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    """Replace the record in one step, so that an interruption leaves the old one."""
    draft = folder / f"{RECORD}.tmp"
    draft.write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
    draft.replace(folder / RECORD)


def _train_members(folder: Path, preset: Preset, n_workers: int, device: str, report: Progress) -> None:
    """Train every member that is not there yet, each in a process of its own."""
    missing = [member for member in range(preset.n_members) if not _member_file(folder, member).exists()]
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager, ProcessPoolExecutor(n_workers, context) as pool:
        news = manager.Queue()
        waiting = {pool.submit(_train_in_process, folder, member, preset, device, news) for member in missing}
        while waiting:
            finished, waiting = wait(waiting, timeout=0.5)
            for future in finished:
                future.result()
            while not news.empty():
                report(*news.get())


def _train_in_process(folder: Path, member: int, preset: Preset, device: str, news: Any) -> None:
    torch.set_num_threads(1)
    data = build_training_set(folder / "data", n_simulated=0, n_recorded=0, seed=DATA_SEED)
    record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    _train_member(folder, member, preset, data, record, device, lambda *state: news.put(state))


def _train_member(
    folder: Path, member: int, preset: Preset, data: TrainingSet, record: dict[str, Any], device: str, report: Progress
) -> None:
    torch.manual_seed(1000 + member)
    net = CdmamNet(preset.rank, preset.dropout).to(device)
    optimizer = torch.optim.Adam(_parameter_groups(net, preset), weight_decay=preset.weight_decay)
    total = sum(len(_images_of_epoch(data, preset, epoch)) // preset.batch_size for epoch in range(preset.epochs))
    schedule = _schedule(optimizer, preset, total)
    checkpoint = folder / f"member-{member:02d}.checkpoint.pt"
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
            report(f"member {member + 1} of {preset.n_members}", schedule.last_epoch, total)
        seconds += time.monotonic() - begin
        state = {"net": net.state_dict(), "optimizer": optimizer.state_dict(), "schedule": schedule.state_dict()}
        torch.save(state | {"epoch": epoch, "seconds": seconds}, checkpoint)
    net.cpu().eval()
    net.scale_output(torch.tensor(record["label_mean_um"]), torch.tensor(record["label_std_um"]))
    _save_member(_member_file(folder, member), net, seconds)
    checkpoint.unlink()


def _forward(net: CdmamNet, images: Tensor) -> tuple[Tensor, Tensor]:
    # Half precision inside the network halves the time of an epoch on a CPU; the loss stays in float32.
    with torch.autocast(images.device.type, torch.bfloat16):
        mu, sigma = net(images)
    return mu.float(), sigma.float()


def _parameter_groups(net: CdmamNet, preset: Preset) -> list[dict[str, Any]]:
    layer = net.dense1 if isinstance(net.dense1, nn.Linear) else net.dense1.narrow
    slow = [layer.weight]
    fast = [parameter for parameter in net.parameters() if parameter is not layer.weight]
    rate = preset.learning_rate
    return [{"params": fast, "lr": rate}, {"params": slow, "lr": rate * preset.dense_rate}]


def _schedule(optimizer: torch.optim.Optimizer, preset: Preset, total: int) -> torch.optim.lr_scheduler.LRScheduler:
    if not preset.one_cycle:
        return torch.optim.lr_scheduler.ConstantLR(optimizer, factor=1.0)
    rates = [group["lr"] for group in optimizer.param_groups]
    return torch.optim.lr_scheduler.OneCycleLR(optimizer, rates, total_steps=total + 1, pct_start=0.15)


def _images_of_epoch(data: TrainingSet, preset: Preset, epoch: int) -> np.ndarray:
    """Return the images that take part in ``epoch``: those of its step and of all steps before it (Appendix D)."""
    return np.flatnonzero(np.asarray(data.steps) <= epoch * N_STEPS // preset.epochs)


def _batches(
    data: TrainingSet, record: dict[str, Any], preset: Preset, member: int, epoch: int, device: str
) -> Iterator[tuple[Tensor, Tensor]]:
    """Give the batches of one epoch, shuffled and mirrored by ``(member, epoch)`` alone, so that a run can resume."""
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


def _member_file(folder: Path, member: int) -> Path:
    return folder / f"member-{member:02d}.npz"


def _save_member(file: Path, net: CdmamNet, seconds: float) -> None:
    """Write a member; the two large dense layers in half precision, which costs less than training noise."""
    state = {name: value.numpy() for name, value in net.state_dict().items()}
    for name in ("dense1.weight", "dense1.narrow.weight", "dense2.weight"):
        if name in state:
            # Half precision has few exponents: each row is scaled to 1 and the scale kept beside it.
            scale = np.abs(state[name]).max(axis=1, keepdims=True).clip(min=np.finfo(np.float32).tiny)
            state[f"{name}.scale"] = scale
            state[name] = (state[name] / scale).astype(np.float16)
    np.savez_compressed(file, allow_pickle=False, **(state | {_SECONDS: np.array(seconds)}))


def _seconds(file: Path) -> float:
    with np.load(file) as stored:
        return float(stored[_SECONDS])


def _load_members(folder: Path, preset: Preset) -> tuple[CdmamNet, ...]:
    return tuple(_load_member(_member_file(folder, i), preset) for i in range(preset.n_members))


def _load_member(file: Path, preset: Preset) -> CdmamNet:
    net = CdmamNet(preset.rank, preset.dropout)
    with np.load(file) as stored:
        state = {name: stored[name] for name in stored.files if not name.endswith((".scale", _SECONDS))}
        for name in stored.files:
            if name.endswith(".scale"):
                weight = name.removesuffix(".scale")
                state[weight] = state[weight].astype(np.float32) * stored[name]
    net.load_state_dict({name: torch.from_numpy(np.asarray(value)) for name, value in state.items()})
    return net.eval()


def _evaluate(run: TrainedRun, n_test: int, report: Progress) -> dict[str, Any]:
    """Return RMSE, skill and coverage on images no member has seen, per scenario of Table 1 and at random."""
    model = FoldedCdmamEnsemble.from_members(run.members)
    groups = ["random", *(f"scenario {name}" for name in ("1", "2", "3", "4")), "scenario ood"]
    result = {}
    for i, group in enumerate(groups):
        report("evaluating", i, len(groups))
        name = group.removeprefix("scenario ")
        test = simulated_set(n_test, TEST_SEED) if group == "random" else scenario_set(name, n_test, TEST_SEED)
        mean, total = _predict(run, model, test.images)
        result[group] = {
            "n_images": len(test),
            "rmse_um": cdc.rmse(mean, test.labels),
            "skill": cdc.skill(mean, test.labels, np.array(run.record["label_mean_um"])),
            "coverage": cdc.coverage(cdc.linear_interval(mean, total), test.labels),
        }
    report("evaluating", len(groups), len(groups))
    return result


def _predict(run: TrainedRun, model: FoldedCdmamEnsemble, pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    normalised = torch.from_numpy((pixels.astype(np.float32) - run.mean) / run.std)[:, None].float()
    parts = [model.predict(batch) for batch in normalised.split(16)]
    return (
        torch.cat([part.mean for part in parts]).double().numpy(),
        torch.cat([part.total for part in parts]).double().numpy(),
    )
