"""Export of a training run to a bundle: traced module, ONNX graphs, golden values and the parity between them."""

import logging
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens.bundles.torchscript import save_traced
from radlens.engines.golden import FLOOR, GOLDEN_TOLERANCE, Deviation, Golden, deviation
from radlens.engines.llvm_kernel import mark
from radlens.engines.parity import ENGINES, measure
from radlens.errors import BundleError
from radlens.families.cdmam.gradient import CdmamGradient, CdmamMemberGradients
from radlens.families.cdmam.manifest import (
    GRADIENT_ONNX,
    MEMBERS_ONNX,
    PREDICTION_ONNX,
    TRACED,
    WEIGHTS,
    Bundle,
    InputSpec,
    Manifest,
    save,
)
from radlens.families.cdmam.model import GRADIENT, PREDICTION
from radlens.families.cdmam.reader import DEFAULT_SAMPLES
from radlens.families.cdmam.training import TrainedRun
from radlens.families.cdmam.training_data import simulated_set
from radlens.images import downsample
from radlens.networks import CdmamEnsemble, CdmamNet, FoldedCdmamEnsemble
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM, SCENARIOS, Layout, register, simulate
from radlens.phantoms.cdmam.domain import Limits
from radlens.wire import CDC

__all__ = ["export_bundle", "write_onnx"]

EXPLAINERS = ("occlusion", "omig", "sensitivity")
"""Methods of Amanova et al. 2022; the other methods explain classes."""

N_GOLDEN = 2
"""Number of images whose float64 prediction and gradient are stored with the bundle."""

_GOLDEN_SEED = 3
_OPSET = 20
_SAMPLER = "stratified"

Stage = Callable[[str, int, int], None]


def export_bundle(
    run: TrainedRun,
    folder: Path,
    *,
    name: str = "cdmam",
    version: str = "1.0",
    on_progress: Stage | None = None,
) -> Bundle:
    """Write a bundle, and check that all forms of the model compute the same values.

    The reference is the ensemble of Table 2, member by member with autograd, in float64. A form passes if its relative
    error is at most ten times that of the same eager ensemble in float32, or 1e-5. This applies to 95 % of the values
    of each gradient; the error over all values may be 1e-2, since ReLU and pooling switch at points that float32 places
    differently (`radlens.engines.golden.body_error`). The parity report of the bundle also states the error of every
    engine of this machine in each of its precisions, or the reason of its failure.

    Args:
        run: a finished training run.
        folder: folder of the bundle; old files in it are deleted.
        name: name of the model in URLs.
        version: version in the form of TorchServe, such as ``"1.0"``.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        BundleError: A form of the model does not pass, or no engine passes.
    """
    report = on_progress or (lambda stage, done, total: None)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.iterdir():
        old.unlink()
    report("tracing", 0, 4)
    folded = FoldedCdmamEnsemble.from_members(run.members, logarithmic=run.logarithmic)
    images = _golden_images(run)
    _write_torch(folder, folded, images)
    report("exporting graphs", 1, 4)
    gradient = CdmamGradient(folded)
    write_onnx(folded, images, folder / PREDICTION_ONNX, list(PREDICTION))
    write_onnx(gradient, images, folder / GRADIENT_ONNX, list(GRADIENT))
    mark(folder / GRADIENT_ONNX)
    _write_members(run, folded, images, folder)
    report("checking parity", 2, 4)
    golden = _golden(run, images, folder)
    parity = _parity(run, folder, folded, images, golden)
    report("writing the bundle", 3, 4)
    bundle = save(folder, _manifest(run, folded, name, version, parity))
    report("done", 4, 4)
    return bundle


def _manifest(
    run: TrainedRun, folded: FoldedCdmamEnsemble, name: str, version: str, parity: dict[str, Any]
) -> Manifest:
    spec = InputSpec(
        mean=run.mean,
        std=run.std,
        spacing_mm=0.07,
        sampler=_SAMPLER,
        pixel_mean_range=_range(run, "pixel_mean_range"),
        pixel_std_range=_range(run, "pixel_std_range"),
        registered=run.registered,
        n_samples=DEFAULT_SAMPLES if run.registered else 1,
    )
    return Manifest(
        name=name,
        version=version,
        task=CDC,
        diameters_mm=CDC_DIAMETERS_MM,
        input=spec,
        explainers=EXPLAINERS,
        n_members=folded.n_members,
        rank=folded.rank,
        logarithmic=folded.logarithmic,
        domain=Limits().as_json(),
        training=run.record,
        parity=parity,
    )


def _range(run: TrainedRun, name: str) -> tuple[float, float]:
    """Return a range of the training images; the widest range if each image is normalised by itself."""
    low, high = run.record.get(name, (0.0, float(np.finfo(np.float32).max)))
    return float(low), float(high)


def _golden_images(run: TrainedRun) -> Tensor:
    if run.registered:
        phantom = simulate(SCENARIOS["1"], Layout.with_margin(1), _GOLDEN_SEED)
        values = register(phantom.pixels, phantom.layout.spacing_mm).values
        samples = [downsample(values, _SAMPLER, seed=_GOLDEN_SEED, index=i).image for i in range(N_GOLDEN)]
        return torch.from_numpy(np.stack(samples))[:, None]
    pixels = simulated_set(N_GOLDEN, _GOLDEN_SEED).images.astype(np.float64)
    return torch.from_numpy(((pixels - run.mean) / run.std).astype(np.float32))[:, None]


def _golden(run: TrainedRun, images: Tensor, folder: Path) -> dict[str, Golden]:
    """Write the golden values of both graphs, and return them by the name of the graph."""

    def predicted(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        return _eager(run, dtype).predict(inputs["images"])[:3]

    def derived(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        reference = _eager(run, dtype)
        return reference.score(inputs["images"]), reference.gradient(inputs["images"])

    values: dict[str, Golden] = {}
    for name, function, outputs in (
        (PREDICTION_ONNX, predicted, PREDICTION),
        (GRADIENT_ONNX, derived, GRADIENT),
    ):
        golden = Golden.measure(function, {"images": images.numpy()}, outputs, _maps(outputs))
        if name == PREDICTION_ONNX:
            golden = _spread_like_curve(golden)
        golden.save(folder / name)
        values[name] = golden
    return values


def _spread_like_curve(golden: Golden) -> Golden:
    """Allow the spread of the members the absolute error of the curve, since it is a difference of similar numbers.

    Members that differ by 1 % lose two digits in their difference, and how much of them depends on the order of
    summation; relative to the spread, errors of 5e-5 were measured.
    """
    mean, spread = (float(np.linalg.norm(golden.outputs[key])) for key in ("mean", "epistemic"))
    if spread == 0:
        return golden
    of_curve = max(golden.float32_errors["mean"], FLOOR / GOLDEN_TOLERANCE) * mean / spread
    errors = dict(golden.float32_errors)
    return replace(golden, float32_errors={**errors, "epistemic": max(errors["epistemic"], of_curve)})


def _write_members(run: TrainedRun, folded: FoldedCdmamEnsemble, images: Tensor, folder: Path) -> None:
    """Write the graph of the members' gradients and its golden values; a single member does not need it."""
    m = folded.n_members
    if m == 1:
        return
    file, each = folder / MEMBERS_ONNX, images.expand(-1, m, -1, -1).contiguous()
    write_onnx(CdmamMemberGradients(folded), each, file, list(GRADIENT))

    def derived(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> Sequence[Tensor]:
        members = [_ensemble([member], dtype, run.logarithmic) for member in run.members]
        pairs = list(zip(members, inputs["images"].split(1, dim=1), strict=True))
        scores = torch.stack([member.score(own) for member, own in pairs], dim=1)
        return scores, torch.cat([member.gradient(own) for member, own in pairs], dim=1)

    Golden.measure(derived, {"images": each.numpy()}, GRADIENT, _maps(GRADIENT)).save(file)


def _maps(outputs: Sequence[str]) -> list[str]:
    """Return the outputs with kinks, which `Golden.body_errors` checks."""
    return [name for name in outputs if name == "gradient"]


def _eager(run: TrainedRun, dtype: torch.dtype) -> CdmamEnsemble:
    return _ensemble(run.members, dtype, run.logarithmic)


def _ensemble(members: Sequence[CdmamNet], dtype: torch.dtype, logarithmic: bool) -> CdmamEnsemble:
    return CdmamEnsemble([deepcopy(member).to(dtype) for member in members], logarithmic=logarithmic)


def _write_torch(folder: Path, folded: FoldedCdmamEnsemble, images: Tensor) -> None:
    torch.save(folded.state_dict(), folder / WEIGHTS)
    save_traced(folded, images, folder / TRACED)


def write_onnx(module: nn.Module, images: Tensor, file: Path, outputs: list[str]) -> None:
    """Export a module with one input, ``images``, for batches of any size.

    Args:
        module: the module.
        images: example input of at least 2 images, since the exporter takes a batch of 1 for a constant.
        file: ONNX file to write.
        outputs: names of the outputs.
    """
    batch = torch.export.Dim("batch", min=1, max=4096)
    with torch.no_grad(), _quiet_exporter():
        torch.onnx.export(
            module,
            (images,),
            file,
            input_names=["images"],
            output_names=outputs,
            dynamic_shapes={"images": {0: batch}},
            opset_version=_OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


@contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silence the exporter's messages about packages that radlens does not use, and about its internals."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _parity(
    run: TrainedRun, folder: Path, folded: FoldedCdmamEnsemble, images: Tensor, golden: Mapping[str, Golden]
) -> dict[str, Any]:
    """Return the relative errors of every form of the model and of every engine on this machine.

    Raises:
        BundleError: A form that needs no engine does not pass, or no engine passes.
    """
    eager = _eager(run, torch.float32)
    traced = torch.jit.load(folder / TRACED)
    with torch.no_grad():
        predictions = {
            "eager": eager.predict(images)[:3],
            "traced": traced(images),
            "folded": folded.predict(images)[:3],
        }
    curves, gradient = golden[PREDICTION_ONNX], golden[GRADIENT_ONNX]
    found: dict[str, dict[str, dict[str, Deviation]]] = {
        "prediction": {
            form: {key: deviation(value, curves.outputs[key]) for key, value in zip(PREDICTION, values, strict=True)}
            for form, values in predictions.items()
        },
        "gradient": {
            form: {"gradient": deviation(model.gradient(images), gradient.outputs["gradient"])}
            for form, model in (("eager", eager), ("folded", folded))
        },
    }
    for quantity, reference in (("prediction", curves), ("gradient", gradient)):
        for form, deviations in found[quantity].items():
            objection = reference.objection("f32", deviations)
            if objection:
                raise BundleError(f"{quantity}: {objection} ({form})")
    errors = {
        quantity: {form: max(each.error for each in deviations.values()) for form, deviations in forms.items()}
        for quantity, forms in found.items()
    }
    return errors | {
        "n_images": len(images),
        "reference": "eager ensemble of Table 2, float64",
        ENGINES: _engines(folder),
    }


def _engines(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the measurements of every engine with each graph.

    Raises:
        BundleError: No engine apart from torch computes a graph correctly in float32.
    """
    graphs = (PREDICTION_ONNX, GRADIENT_ONNX, MEMBERS_ONNX)
    found = {name: measure(folder / name) for name in graphs if (folder / name).exists()}
    for name, measurements in found.items():
        compiled = [each for each in measurements if each.precision == "f32" and not each.engine.startswith("torch")]
        if all(each.reason for each in compiled):
            reasons = "; ".join(f"{each.form}: {each.reason}" for each in compiled) or "no engine"
            raise BundleError(f"an engine must reproduce the golden values of {name}, got none that does ({reasons})")
    return {name: [each.as_json() for each in measurements] for name, measurements in found.items()}
