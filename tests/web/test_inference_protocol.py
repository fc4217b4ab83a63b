"""Open Inference Protocol v2, asked with Triton's own client; the worker behind is real."""

import json
import struct

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
import tritonclient.utils as triton_utils
from front_door_site import KEY, eventually, site, version_of
from hypothesis import given
from hypothesis import strategies as st
from real_worker import real_worker
from sample_images import noise
from small_classifier import SHAPE

from radlens.client import Client
from radlens.errors import InvalidInput
from radlens.images import to_npy
from radlens.keys import KeyRing
from radlens.web.inference import _translated
from radlens.web.tensors import Tensor, answer_body, read_request


@pytest.fixture(scope="module")
def here(tmp_path_factory, classifier):
    """A site whose worker is real."""
    workdir = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch, site(workdir, real_worker(classifier, patch, workdir)) as found:
        yield found


@pytest.fixture
def client(here):
    """Triton's client."""
    found = triton.InferenceServerClient(f"127.0.0.1:{here.port}")
    yield found
    found.close()


@pytest.fixture
def name(classifier):
    """The model."""
    return classifier.manifest.name


@pytest.fixture(scope="module")
def pixels():
    """An image of the size of the model."""
    return noise(SHAPE).astype(np.float32)


@pytest.fixture
def expected(here, name, pixels):
    """What the server answers to the same image outside of this protocol."""
    with Client(here.url, model=name, token=KEY["Authorization"].split()[1]) as asked:
        yield asked.predict(to_npy(pixels))


# Triton's client adds headers to the mapping that it is given: each request gets one of its own.
def tensor_of(array, datatype, *, binary=True, name="image"):
    """Return an input of Triton's client."""
    found = triton.InferInput(name, list(array.shape), datatype)
    found.set_data_from_numpy(array, binary_data=binary)
    return found


def test_health_needs_no_key(client, name):
    """Of the server, and of a model; an unknown model is an error."""
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready(name)
    assert client.is_model_ready(name, "1.0")
    assert not client.is_model_ready("other")


def test_metadata_name_inputs_and_outputs(client, name):
    """Of the server without a key, of a model with one."""
    assert client.get_server_metadata()["extensions"] == ["binary_tensor_data"]
    with pytest.raises(triton_utils.InferenceServerException, match="expected a key"):
        client.get_model_metadata(name)
    found = client.get_model_metadata(name, headers=dict(KEY))
    assert (found["name"], found["versions"], found["parameters"]["task"]) == (name, ["1.0"], "classification")
    assert {each["name"] for each in found["inputs"]} == {"image", "mask"}
    assert {each["name"] for each in found["outputs"]} == {"answer", "map"}
    with pytest.raises(triton_utils.InferenceServerException, match="model must be one that this server has"):
        client.get_model_metadata(name, "9.0", headers=dict(KEY))


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("shape", [SHAPE, (1, *SHAPE), (1, 1, *SHAPE)])
def test_pixels_come_as_a_tensor(client, name, pixels, expected, shape, binary):
    """As numbers in JSON, or binary; the answer is that of the same image as a file."""
    inputs = [tensor_of(pixels.reshape(shape), "FP32", binary=binary)]
    found = client.infer(name, inputs, headers=dict(KEY), request_id="mine")
    np.testing.assert_allclose(found.as_numpy("probabilities"), expected["prediction"]["probabilities"], rtol=1e-6)
    assert found.as_numpy("classes").tolist() == [each.encode() for each in expected["prediction"]["classes"]]
    assert (found.get_response()["id"], found.get_response()["model_version"]) == ("mine", "1.0")
    assert json.loads(found.as_numpy("answer")[0])["prediction"].keys() == expected["prediction"].keys()


@pytest.mark.parametrize("dtype", ["UINT8", "UINT16", "INT16", "FP64"])
def test_pixels_may_have_other_types(client, name, pixels, dtype):
    """Those that a .npy file may have."""
    array = pixels.astype(triton_utils.triton_to_np_dtype(dtype))
    assert client.infer(name, [tensor_of(array, dtype)], headers=dict(KEY)).as_numpy("probabilities").shape == (3,)


def test_files_come_as_bytes(client, name, pixels, expected):
    """As they are in binary, and in base64 in JSON."""
    found = client.infer(name, [tensor_of(np.array([to_npy(pixels)], object), "BYTES")], headers=dict(KEY))
    np.testing.assert_allclose(found.as_numpy("probabilities"), expected["prediction"]["probabilities"], rtol=1e-6)


def test_explanations_are_asked_for_by_parameters(client, here, name, pixels):
    """The map is a tensor; parameters are the model's own."""
    parameters = {"method": "saliency", "target": "benign"}
    found = client.infer(name, [tensor_of(pixels, "FP32")], headers=dict(KEY), parameters=parameters)
    with Client(here.url, model=name, token=KEY["Authorization"].split()[1]) as asked:
        expected = asked.explain(to_npy(pixels), **parameters)
    np.testing.assert_allclose(found.as_numpy("map"), expected["explanation"]["map"], rtol=1e-5, atol=1e-7)
    stated = json.loads(found.as_numpy("answer")[0])["provenance"]["explainer"]
    assert stated["method"] == "saliency"
    plain = client.infer(name, [tensor_of(pixels, "FP32")], headers=dict(KEY), parameters={"explain": True})
    assert plain.as_numpy("map").shape == SHAPE


def test_outputs_can_be_chosen(client, name, pixels):
    """Some of them, each binary or in JSON; an unknown one is told with those that there are."""
    wanted = [triton.InferRequestedOutput("logits", binary_data=False), triton.InferRequestedOutput("probabilities")]
    found = client.infer(name, [tensor_of(pixels, "FP32")], outputs=wanted, headers=dict(KEY))
    stated = {each["name"]: each for each in found.get_response()["outputs"]}
    assert stated.keys() == {"logits", "probabilities"}
    assert len(stated["logits"]["data"]) == 3
    assert stated["probabilities"]["parameters"]["binary_data_size"] == 24
    with pytest.raises(triton_utils.InferenceServerException, match="outputs must be some of answer, "):
        client.infer(name, [tensor_of(pixels, "FP32")], outputs=[triton.InferRequestedOutput("x")], headers=dict(KEY))


def test_a_second_tensor_is_a_mask(client, name, pixels):
    """It goes with the image; a model that takes none says so."""
    mask = tensor_of(np.ones(SHAPE, bool), "BOOL", name="mask")
    with pytest.raises(triton_utils.InferenceServerException, match="a mask"):
        client.infer(name, [tensor_of(pixels, "FP32"), mask], headers=dict(KEY))


def test_roles_hold_here_as_well(here, client, name, pixels):
    """A key for predictions explains nothing."""
    token = KeyRing.of(here.workdir).add("reader", ["predict"])
    key = {"Authorization": f"Bearer {token}"}
    assert client.infer(name, [tensor_of(pixels, "FP32")], headers=key).as_numpy("probabilities").shape == (3,)
    with pytest.raises(triton_utils.InferenceServerException, match="the key must have the role explain"):
        client.infer(name, [tensor_of(pixels, "FP32")], headers=key, parameters={"method": "saliency"})


def test_errors_of_the_worker_pass(here, client, name, pixels):
    """With their status, in the form of this protocol and of the others."""
    with pytest.raises(triton_utils.InferenceServerException, match="n_steps must be an integer from 1"):
        client.infer(name, [tensor_of(pixels, "FP32")], headers=dict(KEY), parameters={"explain": True, "n_steps": 0})
    answer = httpx.post(f"{here.url}/v2/models/{name}/infer", json={"inputs": []}, headers=KEY)
    fields = answer.json()
    assert (answer.status_code, fields["error"]) == (400, "inputs must hold 1 to 64 tensors, got 0")
    assert fields["request_id"] == answer.headers["x-request-id"]
    assert httpx.get(f"{here.url}/v2/models/{name}/infer", headers=KEY).headers["allow"] == "OPTIONS, POST"
    assert httpx.post(f"{here.url}/v2/models/..%2fx/infer", json={}, headers=KEY).status_code == 404


def test_a_model_that_is_not_ready_is_told(here, client):
    """503, and so is the server."""
    here.torchserve.models["lost"] = [version_of("1.0", ready=0)]
    try:
        assert eventually(lambda: httpx.get(f"{here.url}/v2/models/lost/ready").status_code == 503)
        assert not client.is_model_ready("lost")
        assert eventually(lambda: not client.is_server_ready())
    finally:
        del here.torchserve.models["lost"]


IMAGE = {"name": "image", "shape": [1, 2], "datatype": "FP32", "data": [1, 2]}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ([], "expected a JSON object as the request, got another value"),
        ({}, "inputs must be an array of objects"),
        ({"inputs": [1]}, "inputs must be an array of objects"),
        ({"inputs": [{}]}, "each input must have a name"),
        ({"inputs": [IMAGE, IMAGE]}, "names of inputs must differ, got 'image' twice"),
        ({"inputs": [IMAGE | {"shape": [-1, 2]}]}, "shape of input 'image' must be an array of integers"),
        ({"inputs": [IMAGE | {"shape": [True, 2]}]}, "shape of input 'image' must be an array of integers"),
        ({"inputs": [IMAGE | {"datatype": "FP16"}]}, "datatype of input 'image' must be BYTES or one of BOOL, UINT8"),
        ({"inputs": [IMAGE | {"data": [1]}]}, "data of input 'image' must be 2 numbers of type FP32"),
        ({"inputs": [IMAGE | {"data": ["a", "b"]}]}, "data of input 'image' must be 2 numbers of type FP32"),
        ({"inputs": [IMAGE | {"data": None}]}, "data of input 'image' must be an array"),
        ({"inputs": [IMAGE | {"datatype": "UINT8", "data": [1, 256]}]}, "must be 2 numbers of type UINT8"),
        ({"inputs": [IMAGE | {"datatype": "UINT8", "data": [1, 2.5]}]}, "must be 2 numbers of type UINT8"),
        ({"inputs": [IMAGE | {"datatype": "BYTES", "data": ["%", "a"]}]}, "must be strings in base64"),
        ({"inputs": [IMAGE | {"datatype": "BYTES", "data": ["YQ=="]}]}, "must have the 2 elements of its shape, got 1"),
        ({"inputs": [IMAGE | {"parameters": {"binary_data_size": 9}}]}, "must be a number of bytes of the body"),
        ({"inputs": [IMAGE], "parameters": 1}, "parameters must be an object"),
        ({"inputs": [IMAGE], "outputs": [1]}, "outputs must be an array of objects"),
    ],
)
def test_wrong_requests_are_told(document, message):
    """Which field, what was expected."""
    with pytest.raises(InvalidInput, match=message):
        read_request(json.dumps(document).encode(), None)


def binary(datatype, shape, data, more=b""):
    """Return a binary request, and the length of its JSON document."""
    sized = {"name": "image", "shape": shape, "datatype": datatype, "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [sized]}).encode()
    return text + data + more, str(len(text))


def test_wrong_binary_tensors_are_told():
    """Lengths that lie."""
    cases = [
        (binary("FP32", [2], b"1234567"), "input 'image' must have 8 bytes, got 7"),
        (binary("BYTES", [1], struct.pack("<I", 9) + b"abc"), "elements of input 'image' must end where they say"),
        (binary("BYTES", [1], b"ab"), "elements of input 'image' must end where they say"),
        (binary("BYTES", [2], struct.pack("<I", 1) + b"a"), "input 'image' must have the 2 elements of its shape"),
        (binary("UINT8", [1], b"a", b"more"), "the body must end with its last tensor, got 4 bytes more"),
        ((b"{}", "3"), "inference-header-content-length must be a number up to the length of the body"),
        ((b"{", None), "expected a JSON object as the request, got 1 bytes that are not JSON"),
    ]
    for (body, length), message in cases:
        with pytest.raises(InvalidInput, match=message):
            read_request(body, length)


@given(st.binary(max_size=200), st.none() | st.integers(0, 200).map(str))
def test_any_body_is_read_or_refused(body, length):
    """Nothing but the one error."""
    try:
        read_request(body, length)
    except InvalidInput:
        return


@given(
    st.lists(st.binary(max_size=20), max_size=5),
    st.sampled_from(["BOOL", "UINT8", "UINT16", "INT32", "FP32", "FP64"]),
    st.integers(0, 5),
)
def test_tensors_survive_their_way(texts, datatype, length):
    """Packed and read again."""
    kinds = {"BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "INT32": "<i4", "FP32": "<f4", "FP64": "<f8"}
    array = np.arange(length).astype(kinds[datatype])
    sent = [Tensor("a", texts), Tensor("b", array)]
    body, size = answer_body({}, [(each, True) for each in sent])
    body = body.replace(b'"outputs"', b'"inputs" ', 1)
    found = read_request(body, str(size)).inputs
    assert found["a"].values == texts
    np.testing.assert_array_equal(found["b"].values, array)


@pytest.mark.parametrize(("shape", "data"), [([1] * 100, b"a"), ([0, 10**30], b"")])
def test_shapes_that_no_array_has_are_told(shape, data):
    """Bytes of the right number alone do not make an array."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": shape, "parameters": {"binary_data_size": len(data)}}
    text = json.dumps({"inputs": [tensor]}).encode()
    with pytest.raises(InvalidInput, match="shape of input 'image' must be that of an array"):
        read_request(text + data, str(len(text)))


def test_a_length_of_thousands_of_digits_is_told():
    """Python does not convert so many."""
    with pytest.raises(InvalidInput, match="inference-header-content-length must be a number"):
        read_request(b"{}", "9" * 5000)


@pytest.mark.parametrize(("timeout", "deadline_s"), [(10**400, 604_800.0), (2_000_000, 2.0), (0, None)])
def test_a_timeout_is_a_deadline(timeout, deadline_s):
    """In microseconds; of at most seven days."""
    tensor = {"name": "image", "datatype": "UINT8", "shape": [1, 1], "data": [1]}
    asked = read_request(json.dumps({"inputs": [tensor], "parameters": {"timeout": timeout}}).encode(), None)
    head, _ = _translated("cdmam", None, asked)
    assert head.deadline_s == deadline_s
