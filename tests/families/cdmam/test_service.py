"""Batches of requests: what each row gets, and that no row can spoil another's answer."""

import base64
import io
import json
import re
from dataclasses import replace

import numpy as np
import PIL.Image
import pydicom
import pytest
import torch
from fake_model import FakeModel
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sample_images import PATIENT, bad_images, dicom, every_format, noise

from radlens import explainers
from radlens.errors import BundleError
from radlens.evaluation import log_interval
from radlens.families.cdmam import MAX_PLAIN_EVALUATIONS, Service
from radlens.families.cdmam.manifest import Bundle
from radlens.images import downsample, to_npy, to_png
from radlens.networks.cdmam import CdcPrediction
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom
from radlens.service import Request, request_from_http
from radlens.wire import PROVENANCE, array_from_json

QUICK = {"n_steps": "2"}


@pytest.fixture(scope="module")
def service(bundle):
    """Return a service with the tiny bundle."""
    return Service(bundle)


@pytest.fixture(scope="module")
def phantom_file():
    """A DICOM file of a phantom with pixels of 0.4 mm."""
    return to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(0, 0.4)))


def answer(service, kind="explain", data=None, accept=None, **parameters):
    """Ask one thing and return the response."""
    data = to_npy(noise()) if data is None else data
    given = (QUICK if kind == "explain" and parameters.get("method", "omig") == "omig" else {}) | parameters
    (response,) = service.respond([Request(kind, data, accept=accept, parameters=given, request_id="id")])
    return response


def fields(response):
    """Return the body of a JSON response."""
    assert response.content_type == "application/json"
    return json.loads(response.body)


def test_a_prediction_is_the_models_own(service, bundle):
    """One draw of the bundle's sampler, normalised, through the ensemble, with the log-normal interval around it."""
    found = fields(answer(service, "predict", seed="3"))["prediction"]
    sample = downsample(noise().astype(np.float32), "stratified", seed=3).image
    expected = bundle.model().predict(bundle.preprocess(sample))
    for name, values in expected._asdict().items():
        # The same arithmetic in the same order, in a batch of one.
        np.testing.assert_array_equal(np.float32(found[f"{name}_um"]), values[0])
    np.testing.assert_allclose(found["interval_um"], log_interval(expected.mean[0], expected.total[0]), rtol=1e-6)
    assert found["midpoint_um"] == pytest.approx(np.mean(found["mean_um"]))
    assert found["diameters_mm"] == list(bundle.manifest.diameters_mm)


def test_a_prediction_of_a_phantom_comes_with_a_verdict(service, phantom_file):
    """Against the European limits, at four diameters and in words."""
    found = fields(answer(service, "predict", data=phantom_file))
    assert (found["task"], found["assessable"], found["reasons"]) == ("cdmam-cdc", True, [])
    assert found["assessment"]["correlation"] > 0.5
    verdict = found["verdict"]
    assert [point["diameter_mm"] for point in verdict["diameters"]] == [1.0, 0.5, 0.25, 0.1]
    assert verdict["acceptable"] in ("met", "not met", "not settled")
    assert verdict["achievable"] in ("met", "not met", "not settled")
    assert verdict["summary"].startswith("Acceptable limit: ")


def test_an_image_without_a_phantom_gets_no_verdict(service):
    """Noise: a model of the paper's recipe predicts a curve of anything; what keeps it from a verdict is said."""
    found = fields(answer(service, "predict"))
    assert (found["assessable"], found["verdict"]) == (False, None)
    assert len(found["reasons"]) == 1
    assert "image must show the whole grid" in found["reasons"][0]
    explained = fields(answer(service))
    assert (explained["assessable"], explained["reasons"]) == (False, found["reasons"])


def test_every_answer_says_where_it_comes_from(service, bundle):
    """All that is needed to repeat it; the header says the same as the body."""
    response = answer(service, data=dicom(noise()), seed="7", method="occlusion", window="125", stride="125")
    stated = fields(response)["provenance"]
    assert json.loads(response.headers[PROVENANCE]) == stated
    assert response.headers[PROVENANCE].isascii()
    assert (stated["model"], stated["version"], stated["bundle_hash"]) == ("cdmam", "1.0", bundle.bundle_hash)
    assert (stated["engine"], stated["precision"], stated["request_id"]) == ("torch", "f32", "id")
    sampling = {"sampler": "stratified", "seed": 7, "n_samples": 1, "start": 0, "normalize": "paper"}
    assert stated["sampling"] == sampling
    assert stated["explainer"] == {"method": "occlusion", "parameters": {"window": 125, "stride": 125}}
    assert stated["input"]["sop_instance_uid"] == "1.2.3.1"
    assert len(stated["input"]["sha256"]) == 64
    assert set(stated["libraries"]) >= {"radlens", "python", "torch", "onnxruntime", "numpy"}
    assert stated["time"].endswith("+00:00")
    assert PATIENT not in response.body.decode() + str(response.headers)


def test_notes_of_a_header_are_warnings(service):
    """A contradiction that does not stop reading is said in every answer."""
    dataset = pydicom.dcmread(io.BytesIO(dicom(noise())))
    dataset.ImagerPixelSpacing, dataset.PixelSpacing = [0.07, 0.07], [0.05, 0.05]
    dataset.EstimatedRadiographicMagnificationFactor = "1.02"
    stream = io.BytesIO()
    dataset.save_as(stream)
    for kind in ("predict", "explain"):
        assert any(
            "PixelSpacing 0.05 x 0.05 mm contradicts" in said
            for said in fields(answer(service, kind, data=stream.getvalue()))["warnings"]
        )


def test_warnings_are_told(service):
    """A ``.npy`` file has no spacing."""
    assert fields(answer(service, "predict"))["warnings"] == [
        "the image states no pixel spacing; the model was trained at 0.07 mm"
    ]
    assert fields(answer(service, "predict", data=dicom(noise())))["warnings"] == []


@pytest.mark.parametrize("form", ["dicom", "png 16", "tiff", "npy"])
def test_formats_do_not_matter(service, form):
    """The same pixels give the same numbers, bit for bit."""
    found = fields(answer(service, "predict", data=every_format(noise())[form]))
    assert found["prediction"] == fields(answer(service, "predict"))["prediction"]


def test_eight_bits_are_enough_to_be_read(service):
    """A PNG of 8 bits has other grey values, and the reader is told."""
    found = fields(answer(service, "predict", data=every_format(noise())["png 8"]))
    assert [w for w in found["warnings"] if w.startswith("mean of the pixels 6")]


@pytest.mark.parametrize("method", ["omig", "sensitivity", "occlusion"])
def test_one_sample_is_scattered_on_the_sent_grid(service, bundle, method):
    """Algorithm 2 with N = 1: every value where its pixel came from, zero elsewhere."""
    parameters = {"omig": {"n_steps": "2"}, "sensitivity": {}, "occlusion": {"window": "50", "stride": "50"}}[method]
    explanation = fields(answer(service, method=method, seed="5", **parameters))["explanation"]
    found = array_from_json(explanation["map"])
    settled = {"effect": "rise"} if method == "occlusion" else {}
    explainer = explainers.create(method, **{name: int(value) for name, value in parameters.items()}, **settled)
    sample = downsample(noise().astype(np.float32), "stratified", seed=5)
    values = explainer.attribute(service._computer.model, bundle.preprocess(sample.image))[0, 0].numpy()
    expected = np.zeros(found.shape, dtype=np.float32)
    expected[sample.rows, sample.cols] = values
    np.testing.assert_array_equal(found, expected)
    assert array_from_json(explanation["visits"]).sum() == 250 * 250
    assert explanation["method"] == method
    assert explanation["unit"]


def test_a_single_sample_can_be_had_as_it_is(service):
    """Scattering its values by its rows and columns gives the map."""
    sampled = fields(answer(service, output="sampled"))["explanation"]
    values, rows, cols = (array_from_json(sampled[name]) for name in ("sampled", "rows", "cols"))
    whole = array_from_json(fields(answer(service))["explanation"]["map"])
    assert values.shape == (250, 250)
    np.testing.assert_array_equal(whole[rows, cols], values)


def test_several_samples_are_algorithm_2(service, bundle):
    """The service adds nothing to `upsample`; the batch size is the service's own."""
    found = np.load(io.BytesIO(answer(service, accept="application/x-npy", n_samples="3", normalize="visits").body))
    omig = explainers.create("omig", n_steps=2)
    expected = explainers.upsample(
        noise().astype(np.float32),
        lambda batch: omig.attribute(service._computer.model, bundle.preprocess(batch[:, 0].numpy())),
        n_samples=3,
        normalize="visits",
    )
    np.testing.assert_array_equal(found, expected.map.astype(np.float32))


@pytest.mark.parametrize("n_samples", ["1", "2"])
def test_samples_are_counted_from_where_one_asks(service, n_samples):
    """A range of samples is the same as part of a longer one: ranges add up to the whole."""
    parameters = {"n_samples": n_samples, "normalize": "visits", "accept": "application/x-npy"}
    first, second = (np.load(io.BytesIO(answer(service, start=start, **parameters).body)) for start in ("0", "3"))
    omig = explainers.create("omig", n_steps=2)
    expected = explainers.upsample(
        noise().astype(np.float32),
        lambda batch: omig.attribute(service._computer.model, service._computer.preprocess(batch[:, 0].numpy())),
        n_samples=int(n_samples),
        start=3,
        normalize="visits",
    )
    np.testing.assert_array_equal(second, expected.map.astype(np.float32))
    assert not np.array_equal(first, second)


AUTO = {"n_samples": "auto", "n_steps": "1", "reliability": "0.5", "max_samples": "40"}


def test_automatic_answers_say_where_they_ended(service):
    """In the provenance, which every format carries: samples, their reliability, and whether it is what was wanted."""
    response = answer(service, accept="image/png", **AUTO)
    sampling = json.loads(response.headers[PROVENANCE])["sampling"]
    assert (sampling["wanted_reliability"], sampling["max_samples"]) == (0.5, 40)
    assert (sampling["n_samples"], sampling["reliability_scale_px"]) == (40, 8)
    assert 0.5 <= sampling["reliability"] <= 1
    assert sampling["reliability_reached"] is True


def test_one_sample_has_no_reliability(service):
    """There are no two halves of it."""
    found = fields(answer(service))
    assert "reliability" not in found["explanation"]
    assert "reliability" not in found["provenance"]["sampling"]


def test_an_image_of_the_networks_size_is_taken_as_it_is(service):
    """Whatever the seed and the sampler."""
    data = to_npy(noise((250, 250)))
    answers = [
        answer(service, "predict", data=data, seed=seed, sampler=s) for seed, s in (("0", "grid"), ("9", "jitter"))
    ]
    first, second = (fields(response)["prediction"] for response in answers)
    assert first == second


def test_the_same_request_gets_the_same_map(service):
    """Bit for bit; another seed gives another."""
    first, again, other = (answer(service, accept="application/x-npy", seed=seed).body for seed in ("1", "1", "2"))
    assert first == again
    assert first != other


@pytest.mark.parametrize("output", ["map", "overlay", "sampled"])
def test_pictures_are_colour_pngs(service, output):
    """Of the size of what they show; block means keep large ones small."""
    response = answer(service, accept="image/png", output=output)
    picture = PIL.Image.open(io.BytesIO(response.body))
    assert (response.content_type, picture.mode) == ("image/png", "RGB")
    assert max(picture.size) <= 1250
    assert PROVENANCE in response.headers


def test_dicom_answers_belong_to_the_patient(service):
    """An RGB Secondary Capture in the study of the image that was sent, with the provenance in it."""
    result = pydicom.dcmread(io.BytesIO(answer(service, data=dicom(noise()), accept="application/dicom").body))
    assert (result.PatientName, result.StudyInstanceUID) == (PATIENT, "1.2.3.2")
    assert result.PhotometricInterpretation == "RGB"
    assert json.loads(result.ImageComments)["explainer"]["method"] == "omig"


def test_a_prediction_can_be_drawn(service):
    """The curve with its limits."""
    response = answer(service, "predict", accept="image/png")
    assert response.body.startswith(b"\x89PNG")


def test_a_prediction_can_be_an_array(service):
    """Mean, aleatoric, epistemic and total, 12 points each."""
    curves = np.load(io.BytesIO(answer(service, "predict", accept="application/x-npy").body))
    assert curves.shape == (4, 12)
    np.testing.assert_allclose(curves[3] ** 2, curves[1] ** 2 + curves[2] ** 2, rtol=1e-5)


def test_curves_below_zero_are_not_drawn(service, monkeypatch):
    """A logarithmic axis has no place for them; JSON has."""
    curve = torch.full((1, 12), -0.1)
    monkeypatch.setattr(service._computer.model, "predict", lambda images: CdcPrediction(curve, -curve, -curve, -curve))
    refused = answer(service, "predict", accept="image/png")
    assert refused.status == 406
    assert "a curve can be drawn if its interval is above 0 um, got -0.1" in fields(refused)["message"]
    found = fields(answer(service, "predict"))
    assert found["verdict"] is None
    assert found["prediction"]["mean_um"] == pytest.approx([-0.1] * 12)
    np.testing.assert_allclose(found["prediction"]["interval_um"], [[-0.1 - 0.196, -0.1 + 0.196]] * 12, rtol=1e-6)


def test_json_bodies_are_binary_bodies(service):
    """An image in base64 beside its parameters gets the same answer; its fields win over the query."""
    body = json.dumps({"image": base64.b64encode(to_npy(noise())).decode(), "n_steps": 2, "seed": 4}).encode()
    request = Request("explain", body, "application/json", "application/x-npy", {"n_steps": "50", "output": "map"})
    (response,) = service.respond([request])
    assert response.body == answer(service, accept="application/x-npy", seed="4").body


def mixed_batch():
    """Return a batch of everything: predictions, explanations by two methods, in all formats, and bad rows."""
    images = [to_npy(noise(seed=seed)) for seed in range(3)]
    return [
        Request("predict", images[0], request_id="0"),
        Request("explain", images[1], parameters=QUICK, accept="application/x-npy"),
        Request("predict", b"", request_id="2"),
        Request("explain", images[0], parameters=QUICK | {"seed": "9", "output": "sampled"}),
        Request("explain", images[2], parameters={"method": "sensitivity"}, accept="application/x-npy"),
        Request("predict", images[2], parameters={"seed": "1"}),
        Request("explain", images[2], parameters={"method": "lime"}),
        Request("explain", images[1], parameters=QUICK | {"n_samples": "2"}, accept="application/x-npy"),
        Request("explain", images[0], parameters=QUICK | {"path_length": "1e300"}),
    ]


def numbers(response):
    """Return what a response holds as one array, or its status."""
    if response.status != 200:
        return np.array([response.status])
    if response.content_type == "application/x-npy":
        return np.load(io.BytesIO(response.body))
    body = fields(response)
    if "prediction" in body:
        return np.array(body["prediction"]["mean_um"])
    return array_from_json(body["explanation"]["sampled"])


def test_a_batch_is_its_rows(service):
    """Each row gets what it gets alone.

    Convolutions add in another order for another batch size: a few units in the last place of float32, times the
    number of steps. A step of OMIG can also put a component on the other side of the outlier limit; with two steps
    and 62 500 pixels that is a handful.
    """
    together = service.respond(mixed_batch())
    for request, response in zip(mixed_batch(), together, strict=True):
        (alone,) = service.respond([request])
        assert (response.status, response.content_type) == (alone.status, alone.content_type)
        found, expected = numbers(response), numbers(alone)
        differs = ~np.isclose(found, expected, rtol=0, atol=1e-5 * np.abs(expected).max())
        assert differs.sum() <= 10
    assert [response.status for response in together] == [200, 200, 400, 200, 200, 200, 400, 200, 400]


def test_rows_share_work(service, monkeypatch):
    """One call of the model for all predictions, one of the explainer for all maps with the same parameters."""
    calls, model = [], service._computer.model
    predict, ask = model.predict, model.ask

    def spied_predict(images):
        calls.append(("predict", len(images)))
        return predict(images)

    def spied_ask(name, targets=None, /, **arrays):
        calls.append((name, len(arrays["images"])))
        return ask(name, targets, **arrays)

    monkeypatch.setattr(model, "predict", spied_predict)
    monkeypatch.setattr(model, "ask", spied_ask)
    data = to_npy(noise())
    explain = [Request("explain", data, parameters={"n_steps": "1", "seed": str(seed)}) for seed in range(3)]
    other = Request("explain", data, parameters={"method": "sensitivity"})
    service.respond([Request("predict", data), *explain, other, Request("predict", data)])
    assert sorted(calls) == [("gradient", 1), ("gradient", 3), ("predict", 2)]


@pytest.mark.parametrize("name", bad_images())
def test_bad_images_get_their_own_status(service, name):
    """One clear 4xx for each; its neighbours are answered."""
    body, status = bad_images()[name]
    good = Request("predict", to_npy(noise()))
    before, bad, after = service.respond([good, Request("predict", body, request_id="bad"), good])
    assert (before.status, bad.status, after.status) == (200, status, 200)
    assert fields(bad)["request_id"] == "bad"
    assert len(fields(bad)["message"]) > 20


def test_overflowing_maps_are_refused(service):
    """A path so long that its map is not finite."""
    response = answer(service, path_length="1e300")
    assert response.status == 400
    assert "path_length and pixels must be small enough for a finite map" in fields(response)["message"]


def test_costs_are_bounded(service):
    """One answer in one piece may cost no more than occlusion at every pixel."""
    response = answer(service, accept="image/png", n_steps="1000", n_samples="1000")
    assert response.status == 400
    expected = f"at most {MAX_PLAIN_EVALUATIONS} evaluations of the network in one image/png answer, got 1000000"
    assert expected in fields(response)["message"]
    automatic = answer(service, accept="image/png", n_steps="50", n_samples="auto")
    expected = (
        f"max_samples and .* at most {MAX_PLAIN_EVALUATIONS} evaluations .*, got 250000; application/x-ndjson allows"
    )
    assert re.search(expected, fields(automatic)["message"])
    streamed = answer(service, n_steps="1000", n_samples="100000")
    assert (
        "at most 5000000 evaluations of the network in one application/x-ndjson answer" in fields(streamed)["message"]
    )


def test_formats_that_do_not_exist_are_refused(service):
    """An overlay has no JSON, one sample no DICOM object: it is not on the grid of the image."""
    assert answer(service, accept="application/dicom", output="sampled").status == 406
    assert answer(service, accept="application/json", output="overlay").status == 406
    assert answer(service, accept="text/html").status == 406


def test_unexpected_errors_stay_in_their_row(service, monkeypatch, caplog):
    """What nobody thought of is an opaque 500 for its own row, found in the log by its request id."""
    original = service._computer.model.predict

    def predict(images):
        if images.shape[0] > 1 or images.mean() > 1:
            raise RuntimeError(f"failed on the image of {PATIENT}")
        return original(images)

    monkeypatch.setattr(service._computer.model, "predict", predict)
    bright = to_npy(noise() + 500)
    requests = [Request("predict", data, request_id=str(i)) for i, data in enumerate([to_npy(noise()), bright])]
    good, bad = service.respond(requests)
    assert (good.status, bad.status) == (200, 500)
    assert fields(bad)["message"] == "internal error, logged under request 1"
    assert PATIENT not in caplog.text + bad.body.decode()
    assert "request 1: RuntimeError" in caplog.text


def test_answers_that_cannot_be_written_stay_in_their_row(service, monkeypatch):
    """Also when the computing went well."""
    monkeypatch.setattr("radlens.families.cdmam.answers.to_png", lambda array: 1 / 0)
    requests = [
        Request("explain", to_npy(noise()), parameters=QUICK, accept=a) for a in ("image/png", "application/x-npy")
    ]
    assert [response.status for response in service.respond(requests)] == [500, 200]


def test_a_bundle_must_allow_a_method(bundle):
    """One that this library has."""
    manifest = replace(bundle.manifest, explainers=("lrb",))
    with pytest.raises(BundleError, match=r"bundle must allow one of cam, .*, smooth_grad, got none of them"):
        Service(Bundle(bundle.path, manifest, bundle.bundle_hash))


class Flat(FakeModel):
    """A model that costs nothing."""

    def predict(self, images):
        """Return the same curve for every image."""
        curve = torch.ones(len(images), 12)
        return CdcPrediction(curve, curve, curve, curve)

    def gradient(self, images):
        """Return the image."""
        return images

    def score(self, images):
        """Return its mean."""
        return images.mean(dim=(1, 2, 3))


@pytest.fixture(scope="module")
def flat(bundle):
    """Return a service with a model that costs nothing."""
    service = Service(bundle)
    service._computer = replace(service._computer, model=Flat())
    return service


NAMES = ["method", "n_steps", "path_length", "zscore", "n_samples", "sampler", "seed", "output", "window", "normalize"]
ACCEPTED = st.sampled_from(["image/png", "application/json", "*/*", "application/dicom;q=0.1"])
VALUES = st.sampled_from(["1", "2", "0", "-1", "nan", "1e3", "", "omig", "sensitivity", "grid", "overlay", "visits"])
HEADERS = st.dictionaries(
    st.sampled_from([*NAMES, *(f"X-Radlens-{name}" for name in NAMES), "Accept", "Content-Type", "x-radlens-query"]),
    VALUES
    | st.text(max_size=10)
    | st.sampled_from(["image/png", "application/json", "*/*", "application/dicom;q=0.1"]),
    max_size=5,
)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    kind=st.sampled_from(["predict", "explain"]),
    headers=HEADERS,
    query=st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), VALUES, max_size=3),
    body=st.sampled_from([to_png(noise((250, 250))), dicom(noise((251, 260)))]) | st.binary(max_size=50),
)
def test_any_request_is_answered_or_refused(flat, kind, headers, query, body):
    """Whatever a client sends gets a 200 or a 4xx, and its neighbour never notices."""
    strange = request_from_http(kind, body, headers, query, "strange")
    response, neighbour = flat.respond([strange, Request("predict", to_png(noise((250, 250))))])
    assert neighbour.status == 200
    assert response.status == 200 or 400 <= response.status < 500
    if response.status != 200:
        assert fields(response)["message"].isascii()
