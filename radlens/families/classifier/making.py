"""Creation of a classifier bundle: graphs with golden values, the methods they allow, and a test of these methods."""

import logging
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from radlens import explainers
from radlens.bundles.torchscript import save_traced
from radlens.datasets.model_input import ModelInput
from radlens.engines.golden import relative_error
from radlens.errors import BundleError, InvalidInput, InvalidParameter, RadlensError, UnsupportedOperation
from radlens.evaluation import model_randomisations
from radlens.explainers import Explainer
from radlens.explainers.eager import EagerClassifier
from radlens.families.classifier.domain import DOMAIN, LEAST_IMAGES, LEAST_UNSEEN, ImageDomain, fit_domain
from radlens.families.classifier.export import ExportReport, export_black_box, export_classifier
from radlens.families.classifier.fingerprint import network_hash
from radlens.families.classifier.lesions import CAUSAL, lesion_record
from radlens.families.classifier.manifest import TRACED, ClassifierBundle, ClassifierManifest, save_classifier
from radlens.families.classifier.model import GraphClassifier
from radlens.families.classifier.recipes import Task, lesion_options
from radlens.families.classifier.training_data import simulate_image
from radlens.graphs import asks
from radlens.graphs.black_box import onnx_of_module
from radlens.graphs.classifier import classifier_graphs
from radlens.graphs.forms import as_module, form_of, read_onnx, scripted
from radlens.graphs.logits import logits_of_file, logits_of_module
from radlens.graphs.onnx_file import OnnxFile
from radlens.graphs.onnx_module import OnnxModule
from radlens.graphs.tracing import evaluating_copy

if TYPE_CHECKING:
    from radlens.families.classifier.training import TrainedClassifier

__all__ = ["N_DEPTHS", "allowed_methods", "bundle_classifier", "bundle_run", "randomisation_record", "write_traced"]

log = logging.getLogger(__name__)

Source = nn.Module | str | os.PathLike[str]

Progress = Callable[[str, float, float], None]

_TRACED_ERROR = 1e-4
"""Largest relative error of the traced module."""

N_DEPTHS = 4
"""Number of depths to which a network is randomised for the record of a bundle."""

_RECORDED: Mapping[str, Mapping[str, Any]] = {
    "integrated_gradients": {"n_steps": 8},
    "smooth_grad": {"n_draws": 5},
    "deep_shap": {"n_baselines": 4},
    "lime": {"n_evaluations": 40, "n_segments": 16},
    "shap": {"n_evaluations": 40, "n_segments": 16},
}
"""Parameters of slow methods in the record of randomisation, which needs maps of five networks by every method. Fewer
superpixels keep the fits of LIME and SHAP determined with fewer evaluations."""

_WHOLE_IMAGE = 512
"""Shorter side, pixels, from which an image is a whole mammogram and gets the occlusion window of Sam Millan 2023."""

N_DRAWN, N_UNSEEN = 640, 200
"""Number of simulated images that describe the domain, and of others that set its limit."""

_DOMAIN_SEED = 78
"""Seed of these images; training uses other seeds."""

_MOST_IMAGES = 2000
"""Most images of each part of a data set that describe the domain."""

_EXAMPLE_SEED = 77
"""Seed of the images that check the graphs; training uses other seeds."""


def bundle_classifier(
    members: Sequence[Source],
    folder: Path | str,
    *,
    name: str,
    version: str,
    classes: Sequence[str],
    model_input: ModelInput,
    examples: np.ndarray | None = None,
    layer: str | None = None,
    companions: Mapping[str, nn.Module] | None = None,
    origins: Mapping[str, Mapping[str, str]] | None = None,
    trained_for: Mapping[str, str] | None = None,
    training: Mapping[str, Any] | None = None,
    domain: ImageDomain | None = None,
    randomise: bool = True,
    on_progress: Progress | None = None,
) -> ClassifierBundle:
    """Create a bundle of one classifier or of an ensemble.

    A softmax or sigmoid at the end of a member is left out. An ONNX file that radlens cannot differentiate is bundled
    as it is, and a module or TorchScript file that cannot be compiled is bundled as the ONNX file that torch writes of
    it, with the methods that need nothing but predictions.

    Args:
        members: modules, or TorchScript or ONNX files; ``docs/models.md`` lists the methods that each form allows.
        folder: folder of the bundle; created if it is missing, otherwise it must be empty.
        name: name of the model in URLs.
        version: version in the form of TorchServe, such as ``"1.0"``.
        classes: names of the classes; for a network with one output two names, the second for a positive logit.
        model_input: preprocessing that the network expects.
        examples: at least 2 preprocessed images ``(b, c, h, w)`` float32; the first two check the graphs and test the
            methods. If None, random noise is used.
        layer: path of the module whose feature maps CAM and its relatives use; the last feature maps by default.
        companions: other networks that methods need, by name; see :class:`radlens.graphs.asks.AskSpec`.
        origins: name, version and bundle hash of each companion, by the names of ``companions``, for the record.
        trained_for: hash of the only classifier that a companion fits, by the names of ``companions``, see
            `radlens.families.companions.Companion`.
        training: training record.
        domain: the images that the model was trained on, from `radlens.families.classifier.domain.fit_domain`; if None,
            the model judges every image that is not uniform.
        randomise: whether to measure how the maps of each method change when weights are randomised; possible for
            eager modules alone.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        InvalidInput: There are no members, the classes do not fit the outputs, the folder is not empty, or a member
            does not map images to logits and no logits are found in it.
        InvalidParameter: A companion was trained for another classifier.
        BundleError: A file cannot be read, or a written form computes other values than the member.
        UnsupportedOperation: A member can neither be compiled nor written as ONNX.
    """
    report = on_progress or (lambda stage, done, total: None)
    folder = _emptied(folder)
    if not members:
        raise InvalidInput("members must be at least one, got none")
    images = _examples(examples, model_input)
    forms = [form_of(member) for member in members]
    form = "onnx" if "onnx" in forms else forms[0]
    exported: list[ExportReport] = []
    with tempfile.TemporaryDirectory() as scratch:
        opened = [_opened(member, images, Path(scratch, str(number))) for number, member in enumerate(members)]
        n_outputs = _n_outputs(opened[0], images, classes)
        whole = [each.module for each in opened if each.module is not None]
        weights = network_hash(whole) if len(whole) == len(opened) else ""
        _require_trained_for(weights, trained_for or {})
        for number, member in enumerate(opened):
            progress = partial(_compiling, report, number, len(opened))
            how: dict[str, Any] = {"n_outputs": n_outputs, "layer": layer, "companions": companions}
            exported.append(_exported(member, folder, f"member-{number}", images, how, progress))
    modules = [each.module for each in opened if each.module is not None]
    if form != "onnx" and not any(each.is_black_box for each in exported):
        write_traced(folder / TRACED, modules, images)
    if domain is not None:
        domain.save(folder / DOMAIN)
    names = tuple(each for each in exported[0].graphs if all(each in other.graphs for other in exported))
    missing = {graph: reason for each in reversed(exported) for graph, reason in each.missing.items()}
    paths = {graph: folder / f"member-0.{graph}.onnx" for graph in names}
    # torch opens graphs at once; measuring every engine would take longer than the test of a method.
    classifier = GraphClassifier(paths, n_outputs, model_input.image_shape, engine="torch")
    report("trying methods", 0, 1)
    allowed, refused = allowed_methods(classifier, images[:1], names, missing)
    can_randomise = randomise and form == "eager"
    manifest = ClassifierManifest(
        name=name,
        version=version,
        classes=tuple(classes),
        n_outputs=n_outputs,
        input=model_input,
        n_members=len(opened),
        graphs=names,
        explainers=allowed,
        refused=refused,
        form=form,
        layer=layer,
        training=training or {},
        parity={f"member-{number}": dict(each.errors) for number, each in enumerate(exported)},
        left_out={f"member-{number}": each.ending for number, each in enumerate(opened) if each.ending is not None},
        randomisation=randomisation_record(modules[0], allowed, images[:1], layer, report, companions=companions)
        if can_randomise
        else {},
        defaults=_defaults(model_input),
        companions=origins or {},
        network_hash=weights,
    )
    return save_classifier(folder, manifest)


def _require_trained_for(weights: str, trained_for: Mapping[str, str]) -> None:
    """Raise InvalidParameter unless the companions were trained for the classifier with this hash of its weights."""
    for kind, expected in trained_for.items():
        if expected != weights:
            raise InvalidParameter(
                f"the {kind} must have been trained for this classifier, whose weights have the hash "
                f"{weights[:12] or 'none, as it has no gradient'}, got {kind} for {expected[:12]}; train them with "
                f"radlens companion {kind}"
            )


@dataclass(frozen=True)
class _Opened:
    """A member, without a softmax or sigmoid at its end.

    Attributes:
        module: Module; None if there is only a file, which radlens cannot differentiate.
        as_file: Function that returns the member as an ONNX file.
        reason: Reason why there is no module.
        ending: What was left out at the end, such as ``"Softmax"``; None if nothing was.
    """

    module: nn.Module | None
    as_file: Callable[[], OnnxFile]
    reason: str = ""
    ending: str | None = None

    def outputs(self, images: Tensor) -> Any:
        """Return what the member computes from images."""
        if self.module is None:
            return torch.from_numpy(self.as_file().run(images.numpy()))
        with torch.no_grad():
            return self.module.eval()(images.clone())


def _opened(member: Source, images: Tensor, scratch: Path) -> _Opened:
    """Open a member; files that are written for it lie in the folder ``scratch``."""
    form = form_of(member)
    if form == "onnx":
        file = logits_of_file(read_onnx(member, images), images.numpy())
        try:
            return _Opened(OnnxModule(file, images), lambda: file, ending=file.ending)
        except BundleError as error:
            return _Opened(None, lambda: file, str(error), file.ending)
    if form == "eager":
        module, ending = logits_of_module(evaluating_copy(as_module(member, images)), images)
        return _Opened(module, lambda: _written(module, images, scratch), ending=ending)
    script = scripted(member)
    try:
        module, ending = logits_of_module(evaluating_copy(as_module(script, images)), images)
    except UnsupportedOperation as error:
        file, reason = logits_of_file(_written(script, images, scratch), images.numpy()), str(error)
        return _Opened(None, lambda: file, reason, file.ending)

    def as_file() -> OnnxFile:
        # The script still has the end that the module does not.
        found = _written(script, images, scratch)
        return found if ending is None else logits_of_file(found, images.numpy())

    return _Opened(module, as_file, ending=ending)


def _written(module: nn.Module, images: Tensor, scratch: Path) -> OnnxFile:
    scratch.mkdir()
    # Messages name the file.
    return onnx_of_module(module, images, scratch / "the network")


def _exported(
    member: _Opened, folder: Path, prefix: str, images: Tensor, how: Mapping[str, Any], report: Callable[..., None]
) -> ExportReport:
    """Write the graphs of a member: those that can be compiled, or the prediction as ONNX Runtime computes it."""
    reason = member.reason
    if member.module is not None:
        graphs = classifier_graphs(member.module, images, **how)
        found = export_classifier(graphs, folder, prefix, images, how["n_outputs"], on_progress=report)
        if asks.PREDICTION in found.graphs:
            return found
        reason = found.missing[asks.PREDICTION]
    try:
        file = member.as_file()
    except UnsupportedOperation as error:
        raise UnsupportedOperation(
            f"the network must be one that can be compiled or written as ONNX: {reason}; {error}"
        ) from error
    reason = f"radlens cannot differentiate {file.path.name}: {reason}"
    return export_black_box(file, folder, prefix, images, reason)


class _Members(nn.Module):
    """Module that maps images ``(b, c, h, w)`` to the logits of all members, ``(b, m, n_outputs)``."""

    def __init__(self, modules: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = nn.ModuleList(modules)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits."""
        # Copies, because the first layer of a member may change its input in place.
        return torch.stack([member(images.clone()) for member in self.members], dim=1)


def write_traced(file: Path, modules: Sequence[nn.Module], images: Tensor) -> None:
    """Write all members as one TorchScript module; leave it out where a trace cannot compute batches of other sizes.

    Raises:
        BundleError: The outputs of the module differ from those of the members.
    """
    members = _Members([evaluating_copy(module) for module in modules])
    save_traced(members, images, file)
    with torch.no_grad():
        # A batch of another size than the traced one, which a trace may have fixed.
        expected = members(images[:1]).numpy()
        try:
            found = torch.jit.load(file)(images[:1]).numpy()
        except RuntimeError:
            found = expected[:0]
        if found.shape != expected.shape:
            log.warning("no traced module is bundled: a trace of the network computes batches of %d only", len(images))
            file.unlink()
            return
    error = relative_error(found, expected)
    if not error <= _TRACED_ERROR:
        raise BundleError(f"the traced module must be within {_TRACED_ERROR:g} of its members, got {error:.1e}")


def bundle_run(
    run: Path,
    folder: Path | str,
    *,
    name: str,
    version: str,
    companions: Mapping[str, Path] | None = None,
    on_progress: Progress | None = None,
) -> ClassifierBundle:
    """Create a bundle of a finished training run, with one simulated image of each class as example.

    The bundle of a run on simulated images holds its causal record: the effect of removing lesions.

    Args:
        run: folder of the run.
        folder: folder of the bundle; created if it is missing, otherwise it must be empty.
        name: name of the model in URLs.
        version: version of the model.
        companions: folders of the bundles of companion networks, by kind; see `radlens.families.companions`.
        on_progress: callback ``on_progress(stage, done, total)``.

    Raises:
        TrainingError: The folder does not hold a finished run of a classifier.
        InvalidParameter: A companion is of an unknown kind, expects other images, or was trained for another
            classifier.
    """
    from radlens.families.classifier.training import load_classifier_run
    from radlens.families.companions import load_companions, trained_for

    trained = load_classifier_run(run)
    beside = load_companions(companions or {}, trained.model_input)
    record = trained.record
    if CAUSAL not in record and record["data"] is None:
        record = {**record, CAUSAL: _lesion_record(trained, on_progress)}
    return bundle_classifier(
        trained.members,
        folder,
        name=name,
        version=version,
        classes=trained.classes,
        model_input=trained.model_input,
        examples=_drawn(record["preset"]["task"], trained.classes, trained.model_input),
        companions={kind: each.network for kind, each in beside.items()},
        origins={kind: each.origin for kind, each in beside.items()},
        trained_for=trained_for(beside),
        training=record,
        domain=_domain(run, trained, on_progress),
        on_progress=on_progress,
    )


def _lesion_record(trained: "TrainedClassifier", on_progress: Progress | None) -> dict[str, Any]:
    preset = trained.record["preset"]
    members = [EagerClassifier(network, trained.model_input.image_shape) for network in trained.members]

    def probabilities(images: Tensor) -> Tensor:
        found = torch.stack([explainers.probabilities(member.outputs(images)) for member in members])
        return found.mean(dim=0)

    return lesion_record(
        probabilities,
        1,
        preset["task"],
        trained.model_input,
        category=trained.classes[1],
        lesions=lesion_options(preset),
        on_progress=on_progress,
    )


def _domain(run: Path, trained: "TrainedClassifier", on_progress: Progress | None) -> ImageDomain | None:
    """Return the domain of the images of a run; None if they were deleted or are too few.

    The images of a data set have passed the preprocessing, from the resolutions of their detectors. Simulated ones were
    drawn on the grid of the network, so that others are drawn here.
    """
    from radlens.families.classifier.training_data import native_images, open_set

    report = on_progress or (lambda stage, done, total: None)
    preset, given = trained.record["preset"], trained.model_input
    if trained.record["data"] is None:
        drawn = native_images(
            preset["task"],
            given,
            trained.classes,
            N_DRAWN + N_UNSEEN,
            lesions=lesion_options(preset),
            seed=_DOMAIN_SEED,
            n_workers=len(os.sched_getaffinity(0)),
            on_progress=report,
        )
        return fit_domain(drawn[:N_DRAWN], drawn[N_DRAWN:], on_progress=partial(report, "measuring images"))
    try:
        training = open_set(run / "data", "training", given.image_shape)
        unseen = open_set(run / "data", "validation", given.image_shape)
    except FileNotFoundError:
        log.warning("the run has no images any more, so the bundle cannot tell which images are not of their kind")
        return None
    if len(training) < LEAST_IMAGES or len(unseen) < LEAST_UNSEEN:
        log.warning(
            "a domain needs %d training and %d validation images, and the run has %d and %d: the bundle cannot tell "
            "which images are not of their kind",
            *(LEAST_IMAGES, LEAST_UNSEEN, len(training), len(unseen)),
        )
        return None
    return fit_domain(
        training.images[:_MOST_IMAGES], unseen.images[:_MOST_IMAGES], on_progress=partial(report, "measuring images")
    )


def _drawn(task: Task, classes: Sequence[str], model_input: ModelInput) -> np.ndarray:
    """Return a preprocessed simulated image of each class."""
    images = (simulate_image(task, model_input, name, (_EXAMPLE_SEED, k)) for k, name in enumerate(classes))
    return np.stack([model_input.prepare(pixels).pixels for pixels in images])


def _compiling(report: Progress, member: int, n_members: int, graph: str, done: int, total: int) -> None:
    report("compiling", member * total + done, n_members * total)


def allowed_methods(
    model: Any, images: Tensor, graphs: Sequence[str], missing: Mapping[str, str]
) -> tuple[tuple[str, ...], dict[str, str]]:
    """Return the methods that can explain a model, and the reasons why other methods, or alternatives, cannot.

    Args:
        model: :class:`radlens.explainers.Model` to explain.
        images: images ``(b, c, h, w)`` to test methods that need more than certain graphs.
        graphs: names of the model's graphs.
        missing: reason why the model lacks a graph, by name.
    """
    allowed, refused = [], {}
    for name in explainers.names():
        method = explainers.create(name)
        if not method.for_classes:
            continue
        lacking = {
            label: _missing(questions, graphs, missing) for label, questions in explainers.variants(name).items()
        }
        lacking[name] = lacking[name] or _objection(method, model, images)
        reasons = {label: reason for label, reason in lacking.items() if reason is not None}
        if name in reasons:
            refused[name] = reasons[name]
        else:
            allowed.append(name)
            refused |= reasons
    return tuple(allowed), refused


def _missing(questions: Sequence[str], graphs: Sequence[str], missing: Mapping[str, str]) -> str | None:
    """Return why a model lacks the graph of a question; None if it has them all."""
    needs = ["prediction" if need == "score" else need for need in questions]
    return next((missing.get(need, _lack(need)) for need in needs if need not in graphs), None)


def _lack(graph: str) -> str:
    if companions := asks.spec(graph).companions:
        return f"it needs a companion network, {', '.join(companions)}, which the bundle does not have"
    return f"it needs the graph {graph}"


def _objection(method: Explainer, model: Any, images: Tensor) -> str | None:
    """Return why a method fails although the model has its graphs; None if it works."""
    # CAM needs a certain kind of head, which no graph reveals.
    if not method.must_be_tried:
        return None
    try:
        method.attribute(model, images)
    except UnsupportedOperation as error:
        return str(error)
    return None


def randomisation_record(
    module: nn.Module,
    methods: Sequence[str],
    images: Tensor,
    layer: str | None,
    on_progress: Progress | None = None,
    *,
    companions: Mapping[str, nn.Module] | None = None,
) -> dict[str, Any]:
    """Measure how the maps of each method change when weights are randomised from the output down.

    Methods that fail on this network are left out; slow ones are computed with fewer evaluations.

    Args:
        module: network.
        methods: names of the methods.
        images: images ``(b, c, h, w)``; targets are the classes predicted before the randomisation.
        layer: path of the module with the last feature maps; if None, the module ``features`` if the network has one.
        on_progress: callback ``on_progress(stage, done, total)``.
        companions: other networks that methods need, by name; they keep their weights.

    Returns:
        For each method ``layers``, the last randomised layer at each depth, and ``spearman`` and ``ssim``, means over
        the images, None where a map is constant.
    """
    report = on_progress or (lambda stage, done, total: None)
    layer = layer or ("features" if hasattr(module, "features") else None)
    shape = (int(images.shape[1]), int(images.shape[2]), int(images.shape[3]))
    model = EagerClassifier(module, shape, layer=layer, companions=companions)
    targets = explainers.predicted(model.outputs(images))

    def explain(method: Explainer, randomised: EagerClassifier, batch: Tensor) -> Tensor:
        return method.attribute(randomised, batch, targets)

    try:
        measured = model_randomisations(
            module,
            {name: partial(explain, _recorded(name, min(shape[1:]))) for name in methods},
            images,
            view=model.with_weights,
            skip=(RadlensError,),
            n_points=N_DEPTHS,
            on_progress=partial(report, "randomising"),
        )
    except RadlensError as error:
        log.warning("the network is not randomised: %s", error)
        return {}
    return {
        name: {"layers": list(each.layers), "spearman": _means(each.spearman), "ssim": _means(each.ssim)}
        for name, each in measured.items()
    }


def _recorded(name: str, side: int) -> Explainer:
    """Return a method with the parameters of the record, for images with a shorter side of ``side`` pixels."""
    square = max(1, side // 5)
    squares = {"occlusion": {"window": square, "stride": square}}
    return explainers.create(name, **{**_RECORDED, **squares}.get(name, {}))


def _means(values: np.ndarray) -> list[float | None]:
    """Return the mean of each row ``(n, b)`` without nan; None for rows of nan, which come from constant maps."""
    rows = (row[~np.isnan(row)] for row in values)
    return [float(row.mean()) if row.size else None for row in rows]


def _emptied(folder: Path | str) -> Path:
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if any(folder.iterdir()):
        raise InvalidInput(f"the folder of a new bundle must be empty, got {folder.name} with files in it")
    return folder


def _examples(examples: np.ndarray | None, model_input: ModelInput) -> Tensor:
    shape = model_input.image_shape
    if examples is None:
        return torch.from_numpy(np.random.default_rng(0).normal(size=(2, *shape)).astype(np.float32))
    if examples.ndim != 4 or tuple(examples.shape[1:]) != shape or len(examples) < 2:
        raise InvalidInput(f"examples must be at least two images of shape {shape}, got {tuple(examples.shape)}")
    return torch.from_numpy(np.ascontiguousarray(examples[:2], dtype=np.float32))


def _n_outputs(member: _Opened, images: Tensor, classes: Sequence[str]) -> int:
    output = member.outputs(images)
    if not isinstance(output, Tensor) or output.ndim != 2:
        got = tuple(output.shape) if isinstance(output, Tensor) else type(output).__name__
        raise InvalidInput(f"the network must map {tuple(images.shape)} to logits (b, n), got {got}")
    n = int(output.shape[1])
    if len(set(classes)) != len(classes) or len(classes) != explainers.n_classes(n):
        raise InvalidInput(
            f"classes must be {explainers.n_classes(n)} different names for a network of {n} outputs, "
            f"got {', '.join(classes) or 'none'}"
        )
    return n


def _defaults(model_input: ModelInput) -> dict[str, dict[str, Any]]:
    """Return defaults of parameters for images that are smaller than whole mammograms."""
    short = min(model_input.shape)
    if short >= _WHOLE_IMAGE:
        return {}
    window = max(2, short // 7)
    return {"occlusion": {"window": window, "stride": window // 2}}
