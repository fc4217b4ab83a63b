"""Export of an inpainter: graph with golden values, weights, bundle."""

from collections.abc import Callable, Mapping
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from radlens.engines.golden import Golden
from radlens.engines.parity import ENGINES, measure
from radlens.errors import InvalidInput
from radlens.families.inpainter.manifest import GRAPH, WEIGHTS, InpainterBundle, InpainterManifest, save_inpainter
from radlens.families.inpainter.training import TrainedInpainter, load_inpainter_run
from radlens.graphs import forward_graph
from radlens.graphs.counterfactual import example_masks

__all__ = ["bundle_inpainter", "bundle_inpainter_run"]

_SEED = 77
Progress = Callable[[str, float, float], None]


def bundle_inpainter_run(run: Path, folder: Path, *, name: str, version: str, report: Progress) -> InpainterBundle:
    """Write the bundle of a finished run; errors as of `load_inpainter_run` and `bundle_inpainter`."""
    return bundle_inpainter(load_inpainter_run(run), folder, name=name, version=version, report=report)


def bundle_inpainter(
    trained: TrainedInpainter, folder: Path, *, name: str, version: str, report: Progress
) -> InpainterBundle:
    """Write the bundle of an inpainter.

    Args:
        trained: Network, preprocessing and record.
        folder: Folder of the bundle; empty or missing.
        name: Name of the model in URLs.
        version: Version as TorchServe takes it.
        report: Told of progress.

    Raises:
        InvalidInput: The folder is not empty.
        BundleError: The compiled graph computes other values than the network.
    """
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidInput(f"folder must be empty, got {folder.name} with files")
    report("compiling", 0, 3)
    images = torch.randn(2, *trained.model_input.image_shape, generator=torch.Generator().manual_seed(_SEED))
    masks = example_masks(images)
    graph = forward_graph(trained.network, (images, masks)).named(["images", "masks"], ["inpainted"])
    report("measuring golden values", 1, 3)
    exact = deepcopy(trained.network).double()
    networks = {torch.float32: trained.network, torch.float64: exact}

    def computed(dtype: torch.dtype, inputs: Mapping[str, Tensor]) -> list[Tensor]:
        with torch.no_grad():
            return [networks[dtype](inputs["images"], inputs["masks"])]

    given = {"images": images.numpy(), "masks": masks.numpy()}
    golden = Golden.measure(computed, given, graph.output_names)
    graph.to_onnx(folder / GRAPH, golden)
    np.savez(folder / WEIGHTS, allow_pickle=False, **{k: v.numpy() for k, v in trained.network.state_dict().items()})
    report("checking parity", 2, 3)
    errors = {"eager": max(golden.float32_errors.values())}
    measured = [each.as_json() for each in measure(folder / GRAPH)]
    report("done", 3, 3)
    return save_inpainter(
        folder,
        InpainterManifest(
            name=name,
            version=version,
            input=trained.model_input,
            width=trained.network.width,
            training=trained.record,
            parity={"inpainter": errors, ENGINES: {GRAPH: measured}},
        ),
    )
