"""A family for a test: the size of a bright square, by a dense layer; explained with the help of a companion."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from radlens.bundles import BundleManifest, StoredBundle, write_manifest
from radlens.engines import golden_values
from radlens.engines import open as open_engine
from radlens.engines.base import Refusal
from radlens.explainers import Ask, Attribution, Explainer, Model, complete, register
from radlens.explainers.ranges import Whole
from radlens.explainers.work import Work
from radlens.families.base import RECORD, Family, Progress, Table, Worker
from radlens.figures import colorize
from radlens.graphs import forward_graph
from radlens.images import Image, read, to_npy, to_png
from radlens.service import Request, Response
from radlens.service.batching import BatchService
from radlens.service.batching import Work as Group
from radlens.service.bodies import open_body
from radlens.service.parameters import Choice, Parameter, method_parameters, read_parameters
from radlens.service.provenance import provenance
from radlens.wire import JSON, array_to_json

TASK = "toy-size"
SHAPE = (12, 12)


@register("blurred_difference")
@dataclass(frozen=True)
class BlurredDifference(Explainer):
    """Change of the score when each pixel is replaced by its blurred value, to first order.

    Args:
        times: Number of times that the image is blurred.
    """

    times: Annotated[int, Whole(1, 5)] = 1

    title: ClassVar[str] = "Blurred difference"
    meaning: ClassVar[str] = "change of the {score} where the blurred image replaces the pixel"
    needs: ClassVar[tuple[str, ...]] = ("blur", "gradient")
    for_classes: ClassVar[bool] = False

    def work(self, image: Tensor, target: int | None) -> Work:
        """See `Explainer`."""
        blurred = image
        for _ in range(self.times):
            (found,) = yield Ask("blur", {"images": blurred[None]}, target)
            blurred = found[0]
        (gradients,) = yield Ask("gradient", {"images": image[None]}, target)
        return Attribution(gradients[0] * (blurred - image))


class Size(nn.Module):
    """Weighted sum of the pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(SHAPE[0] * SHAPE[1], 1, bias=False)

    def forward(self, images: Tensor) -> Tensor:
        """Map ``(b, 1, h, w)`` to sizes ``(b, 1)``."""
        return self.dense(images.flatten(1))


class Blur(nn.Module):
    """The companion: a mean of 3x3 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.mean = nn.AvgPool2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Keep the shape."""
        return self.mean(images)


class Weights(nn.Module):
    """The gradient of `Size`, which is linear."""

    def __init__(self, size: Size) -> None:
        super().__init__()
        self.register_buffer("weights", size.dense.weight.detach().reshape(1, 1, *SHAPE))

    def forward(self, images: Tensor) -> Tensor:
        """Return the weights for each image."""
        return torch.zeros_like(images) + self.weights


METHODS = ("blurred_difference", "sensitivity")


class ToyModel(Model):
    """Three graphs behind engines."""

    image_shape = (1, *SHAPE)
    dtype = torch.float32

    def __init__(self, folder: Path, engine: str) -> None:
        self._engines = {name: open_engine(folder / f"{name}.onnx", engine) for name in ("score", "blur", "gradient")}
        self.name, self.precision = self._engines["score"].name, "f32"
        self.refused: tuple[Refusal, ...] = ()

    def _answer(self, name: str, targets: Tensor | None, arrays: Mapping[str, Tensor]) -> tuple[Tensor, ...]:
        found = self._engines[name].run({"images": arrays["images"].numpy()})["found"]
        return (torch.from_numpy(found)[:, 0] if name == "score" else torch.from_numpy(found),)


@dataclass(frozen=True, eq=False)
class Row:
    """A validated request."""

    request: Request
    image: Image
    explainer: Explainer | None

    def stated(self) -> dict[str, Any]:
        """Settings for the provenance."""
        if self.explainer is None:
            return {}
        return {"explainer": {"method": self.explainer.name, "parameters": asdict(self.explainer)}}


class ToyService(BatchService):
    """Answers JSON."""

    def __init__(
        self, bundle: StoredBundle[BundleManifest], engine: str = "auto", now: Callable[[], datetime] | None = None
    ):
        self._bundle, self._model = bundle, ToyModel(bundle.path, engine)
        self.engine = self._model
        self._now = now or (lambda: datetime.now(UTC))

    def _open(self, request: Request) -> Row:
        opened = open_body(request)
        given = {**request.parameters, **opened.parameters}
        method = given.get("method", "blurred_difference") if request.kind == "explain" else None
        known = FAMILY.parameters(self._bundle.manifest, request.kind, method)
        values = read_parameters(f"{request.kind}ions", known, given, request.hints)
        explainer = None
        if method is not None:
            from radlens import explainers

            explainer = explainers.create(values.pop("method"), **values)
        return Row(request, read(*opened.images[0]), explainer)

    def _work(self, rows: Sequence[Row]) -> Iterator[Group]:
        if rows:
            yield self._compute, self._respond, list(rows)

    def _compute(self, rows: Sequence[Row]) -> list[tuple[float, Any]]:
        return complete(self._model, [self._of(row) for row in rows])

    def _of(self, row: Row) -> Work:
        pixels = torch.from_numpy(np.ascontiguousarray(row.image.pixels[: SHAPE[0], : SHAPE[1]]))[None]
        (size,) = yield Ask("score", {"images": pixels[None]})
        found = None
        if row.explainer is not None:
            found = (yield from row.explainer.work(pixels, None)).map[0].numpy()
        return float(size), found

    def _context(self, row: Row) -> dict[str, Any]:
        manifest = self._bundle.manifest
        model = {"model": manifest.name, "version": manifest.version, "bundle_hash": self._bundle.bundle_hash}
        engine = {"engine": self._model.name, "precision": "f32", "refused_engines": []}
        return provenance(model | engine, row.image, row, row.request.request_id, self._now())

    def _respond(self, row: Row, result: tuple[float, Any], stated: dict[str, Any]) -> Response:
        size, found = result
        answer: dict[str, Any] = {"prediction": {"size": size}, "explanation": None}
        if row.explainer is not None:
            described = row.explainer.described(score="size", unit="pixels", image="grey value")
            answer["explanation"] = {"method": row.explainer.name, **described, "map": array_to_json(found)}
        ending = {"task": TASK, "assessable": True, "reasons": [], "warnings": [], "provenance": stated}
        return Response(200, JSON, json.dumps(answer | ending).encode())


class Toy(Family[StoredBundle[BundleManifest]]):
    """The third family."""

    task: ClassVar[str] = TASK
    worker: ClassVar[Worker] = Worker(1, 1, 8, 10, 60, 60)

    def load(self, path: Path, *, verify: bool = True) -> StoredBundle[BundleManifest]:
        """See `Family`."""
        return StoredBundle.read(path, _parse, lambda manifest, file: file == "blur.onnx", verify=verify)

    def graphs(self, bundle: StoredBundle[BundleManifest]) -> Mapping[str, Path]:
        """See `Family`."""
        return {file.name: file for file in sorted(bundle.path.glob("*.onnx"))}

    def recipes(self) -> Mapping[str, Mapping[str, Any]]:
        """See `Family`."""
        return {"toy": {"demo": 200}}

    def train(
        self, run: Path, *, model: str, preset: str, options: Mapping[str, Any], report: Progress
    ) -> Mapping[str, Any]:
        """Fit the sum of the pixels."""
        torch.manual_seed(0)
        run.mkdir(parents=True, exist_ok=True)
        size, steps = Size(), self.recipes()[model][preset]
        optimizer = torch.optim.Adam(size.parameters(), 0.05)
        for step in range(steps):
            images = torch.rand(16, 1, *SHAPE)
            loss = (size(images)[:, 0] - images.sum((1, 2, 3))).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            report("training", step + 1, steps)
        torch.save(size.state_dict(), run / "size.pt")
        record = {"task": TASK, "model": model, "error": float(loss.detach().sqrt())}
        (run / RECORD).write_text(json.dumps(record))
        return record

    def export(
        self, run: Path, folder: Path, *, name: str, version: str, report: Progress
    ) -> StoredBundle[BundleManifest]:
        """Write the graphs of the network and of its companion."""
        folder.mkdir(parents=True, exist_ok=True)
        size = Size()
        size.load_state_dict(torch.load(run / "size.pt", weights_only=True))
        images = torch.rand(2, 1, *SHAPE)
        parts = {"score": size, "blur": Blur(), "gradient": Weights(size)}
        for done, (graph, module) in enumerate(parts.items()):
            report("exporting", done, len(parts))
            file = folder / f"{graph}.onnx"
            forward_graph(module, (images,)).named(["images"], ["found"]).to_onnx(file)
            golden_values(file, {"images": images.numpy()}).save(file)
        record = json.loads((run / RECORD).read_text())
        write_manifest(
            folder, asdict(BundleManifest(name=name, version=version, task=TASK, explainers=METHODS, training=record))
        )
        return self.load(folder)

    def open_service(self, bundle: StoredBundle[BundleManifest], **options: Any) -> ToyService:
        """See `Family`."""
        return ToyService(bundle, **options)

    def parameters(self, manifest: BundleManifest, kind: str, method: str | None = None) -> Mapping[str, Parameter]:
        """See `Family`."""
        if kind == "predict":
            return {}
        method = method or manifest.explainers[0]
        return {"method": Choice(tuple(manifest.explainers), method), **method_parameters(method, {})}

    def record_tables(self, record: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        return [Table("Of the toy", ("measure", "value"), [("error", f"{record['error']:.3f}")])]

    def bundle_tables(self, bundle: StoredBundle[BundleManifest]) -> Sequence[Table | str]:
        """See `Family`."""
        return [f"methods: {', '.join(bundle.manifest.explainers)}"]

    def tables(self, answer: Mapping[str, Any]) -> Sequence[Table | str]:
        """See `Family`."""
        return [Table("Size", ("", "pixels"), [("size", f"{answer['prediction']['size']:.1f}")])]

    def files(self, answer: Mapping[str, Any], image: Image) -> dict[str, bytes]:
        """See `Family`."""
        found = answer["explanation"]["map"]
        return {"map.npy": to_npy(found), "map.png": to_png(colorize(found))}


def _parse(document: Mapping[str, Any]) -> BundleManifest:
    return BundleManifest(**{**document, "explainers": tuple(document["explainers"])})


FAMILY = Toy()
