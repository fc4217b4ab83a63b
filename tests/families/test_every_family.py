"""What holds for every family of models: bundles, answers, damaged graphs, bad requests."""

import base64
import json
import shutil

import numpy as np
import pytest
import torch
from small_classifier import SHAPE, make_classifier, make_network
from small_inpainter import inpainter_files

from radlens.errors import InvalidInput, InvalidParameter
from radlens.families import load, open_service
from radlens.families.classifier.making import write_traced
from radlens.families.classifier.manifest import TRACED, save_classifier
from radlens.images import to_npy
from radlens.service import request_from_http
from radlens.wire import CDC, CLASSIFICATION, INPAINTING

EXPLAINED = pytest.mark.parametrize("task", [CDC, CLASSIFICATION], indirect=True, scope="module")
"""Families whose models have explanations."""

GRAPH = {CDC: "gradient.onnx", CLASSIFICATION: "member-0.gradient.onnx", INPAINTING: "inpainter.onnx"}
"""A graph that torch can replace."""

NEEDS_GRAPH = {
    CDC: ("explain", {"method": "omig"}),
    CLASSIFICATION: ("explain", {"method": "integrated_gradients"}),
    INPAINTING: ("predict", {}),
}
"""Request that needs it."""

COSTLY = {
    CDC: {"method": "omig", "n_steps": "1000", "n_samples": "100000"},
    CLASSIFICATION: {"method": "lime", "n_evaluations": "10000"},
}
PIXELS = {CDC: (250, 250), CLASSIFICATION: SHAPE, INPAINTING: (40, 30)}


@pytest.fixture(scope="module", params=[CDC, CLASSIFICATION, INPAINTING])
def task(request):
    """The families by their tasks."""
    return request.param


@pytest.fixture(scope="module")
def folder(task, exported, tmp_path_factory):
    """A bundle of the family, complete."""
    path = tmp_path_factory.mktemp("family") / "bundle"
    if task == CDC:
        shutil.copytree(exported.path, path)
    elif task == INPAINTING:
        shutil.copytree(inpainter_files(), path)
    else:
        bundle = make_classifier(path, n_members=3)
        write_traced(path / TRACED, [make_network(seed) for seed in range(3)], torch.zeros(2, 1, *SHAPE))
        save_classifier(path, bundle.manifest)
    return path


@pytest.fixture(scope="module")
def service(folder):
    """Serves it."""
    return open_service(load(folder))


def image(task: str) -> bytes:
    """Noise of the size that the network takes; in JSON with a mask where the model needs one."""
    pixels = to_npy(np.random.default_rng(0).normal(1000, 100, PIXELS[task]).astype(np.float32))
    if task != INPAINTING:
        return pixels
    mask = to_npy(np.eye(*PIXELS[task], dtype=bool))
    return json.dumps(
        {name: base64.b64encode(data).decode() for name, data in (("image", pixels), ("mask", mask))}
    ).encode()


def asked(service, kind: str, *bodies: bytes, **parameters: str) -> list[tuple[int, dict]]:
    """Return statuses and documents of the answers to one batch."""
    requests = []
    for body in bodies:
        media_type = "application/json" if body.startswith(b"{") else "application/octet-stream"
        headers = {"content-type": media_type, "accept": "application/json"}
        requests.append(request_from_http(kind, body, headers, parameters, "id"))
    return [(response.status, json.loads(response.body)) for response in service.respond(requests)]


def test_bundles_are_what_was_saved(folder, task):
    """They are equal each time, and state their task."""
    bundle = load(folder)
    assert bundle == load(folder)
    assert bundle.manifest.task == json.loads((folder / "bundle.json").read_text())["task"] == task
    assert len(bundle.bundle_hash) == 64
    assert not bundle.damaged


@pytest.mark.parametrize("kind", ["predict", "explain"])
def test_answers_say_where_they_come_from(service, folder, task, kind):
    """Task, whether the image can be judged, warnings, and a provenance with the same keys in every family.

    A model without explanations says so.
    """
    if kind == "explain" and not load(folder).manifest.explainers:
        ((status, answer),) = asked(service, kind, image(task))
        assert (status, answer["type"]) == (400, "UnsupportedMethod")
        assert "no explanations" in answer["message"]
        return
    ((status, answer),) = asked(service, kind, image(task))
    assert status == 200
    assert answer["task"] == task
    assert {"assessable", "reasons", "warnings", "provenance"} < set(answer)
    stated = answer["provenance"]
    assert (stated["bundle_hash"], stated["request_id"]) == (load(folder).bundle_hash, "id")
    assert {"model", "version", "engine", "precision", "refused_engines", "input", "libraries", "time"} < set(stated)
    assert stated["refused_engines"] == []
    assert (service.engine.name, service.engine.precision, service.engine.refused) == (stated["engine"], "f32", ())


@pytest.mark.slow
def test_a_damaged_graph_is_refused_and_torch_serves(folder, task, service, tmp_path):
    """It answers; provenance and metrics name graph and reason."""
    kind, parameters = NEEDS_GRAPH[task]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    file = copy / GRAPH[task]
    file.write_bytes(file.read_bytes() + b"x")
    bundle = load(copy)
    assert list(bundle.damaged) == [GRAPH[task]]
    damaged = open_service(bundle)
    (whole,), (found,) = (asked(each, kind, image(task), **parameters) for each in (service, damaged))
    assert (whole[0], found[0]) == (200, 200)
    stated = found[1]["provenance"]
    assert "torch" in (stated["engine"], stated.get("engines", {}).get("gradient"))
    reason = f"{GRAPH[task]} is not the file this bundle was made with: its SHA-256 differs"
    for refused in (stated["refused_engines"], [vars(refusal) for refusal in damaged.engine.refused]):
        assert {"engine": "onnxruntime", "graph": GRAPH[task], "reason": reason} in refused


@EXPLAINED
@pytest.mark.parametrize(
    ("parameters", "message"),
    [({"method": "tea_leaves"}, "method must be one of"), ({"n_stepz": "3"}, "n_stepz"), ({"seed": "-1"}, "seed")],
)
def test_bad_parameters_are_named(service, task, parameters, message):
    """With 400."""
    ((status, answer),) = asked(service, "explain", image(task), **parameters)
    assert status == 400
    assert message in json.dumps(answer)


def test_a_bad_image_leaves_its_neighbours_alone(service, task):
    """It gets an error of its own."""
    (first, bad, last) = asked(service, "predict", image(task), b"tea leaves", image(task))
    assert (first[0], last[0]) == (200, 200)
    assert 400 <= bad[0] < 500
    assert first[1]["prediction"] == last[1]["prediction"]


@EXPLAINED
def test_too_much_work_is_refused(service, task):
    """With 400 and the limit, before anything is computed."""
    ((status, answer),) = asked(service, "explain", image(task), **COSTLY[task])
    assert status == 400
    assert "must ask for at most" in answer["message"]
    assert "evaluations of the network" in answer["message"]


def test_precision_and_memory_are_options_of_all(folder, task):
    """Provenance states the precision; one that no engine has is named, and so is a limit that nothing fits."""
    service = open_service(load(folder), precision="f32", memory_limit=2**31, engine="onnxruntime")
    ((status, answer),) = asked(service, "predict", image(task))
    assert (status, answer["provenance"]["precision"]) == (200, "f32")
    with pytest.raises(InvalidParameter, match="precision must be one of"):
        open_service(load(folder), precision="f7")
    with pytest.raises(InvalidInput, match=f"tea must not be given for models of task {task}"):
        open_service(load(folder), tea="leaves")
