"""Images in and answers out, in every format and at full size."""

import base64
import io
import json
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import PIL.Image
import pydicom
import pytest
from sample_images import PATIENT, dicom, every_format, noise

from radlens.images import to_npy
from radlens.phantoms.cdmam import SCENARIOS, Layout, simulate, to_dicom
from radlens.wire import array_from_json

pytestmark = pytest.mark.serving

FULL = (3328, 4096)
"""Rows and columns of the largest mammograms in common use."""


@pytest.mark.parametrize("form", every_format(noise((250, 250))))
def test_images_come_in_every_format(client, form):
    """And get a curve and a provenance; noise shows no phantom, so there is no verdict."""
    found = client.predict(every_format(noise())[form], seed=3)
    assert len(found["prediction"]["mean_um"]) == 12
    assert (found["assessable"], found["verdict"]) == (False, None)
    assert found["provenance"]["sampling"]["seed"] == 3
    assert found["provenance"]["request_id"]


def test_json_holds_images_as_well(client, server):
    """With parameters beside them, which win over headers."""
    keys, url = server.state.keys(), server.state.url
    body = {"image": base64.b64encode(to_npy(noise())).decode(), "n_steps": 2}
    headers = {"Authorization": f"Bearer {keys.inference}", "X-Radlens-N-Steps": "1"}
    found = httpx.post(f"{url}/explanations/cdmam", json=body, headers=headers, timeout=60).json()
    assert found["provenance"]["explainer"]["parameters"]["n_steps"] == 2
    direct = client.explain(to_npy(noise()), n_steps=2)["explanation"]["map"]
    np.testing.assert_array_equal(array_from_json(found["explanation"]["map"]), direct)


def test_several_images_come_in_one_request(client, server):
    """As parts of a body, or in an array in JSON: one curve, with each image's own beside it."""
    files = [to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(0, 0.4), seed)) for seed in (1, 2)]
    together = client.predict(files)
    each = [client.predict(file)["prediction"]["midpoint_um"] for file in files]
    assert (together["assessable"], together["prediction"]["n_images"]) == (True, 2)
    assert [image["prediction"]["midpoint_um"] for image in together["images"]] == pytest.approx(each)
    assert min(each) < together["prediction"]["midpoint_um"] < max(each)
    headers = {"Authorization": f"Bearer {server.state.keys().inference}"}
    body = {"images": [base64.b64encode(file).decode() for file in files]}
    found = httpx.post(f"{server.state.url}/predictions/cdmam", json=body, headers=headers, timeout=60).json()
    assert found["prediction"] == together["prediction"]


def test_explanations_go_out_in_every_format(client):
    """The same map as JSON and ``.npy``, pictures of it, and a DICOM file of the same study."""
    data = dicom(noise())
    found = client.explain(data, n_steps=2)["explanation"]["map"]
    assert found.shape == (260, 300)
    array = client.fetch("explain", data, "application/x-npy", n_steps=2)
    np.testing.assert_array_equal(np.load(io.BytesIO(array.content)), found)
    for output in ("map", "overlay", "sampled"):
        picture = client.fetch("explain", data, "image/png", n_steps=2, output=output)
        assert PIL.Image.open(io.BytesIO(picture.content)).mode == "RGB"
        assert picture.provenance["output"] == output
    capture = pydicom.dcmread(io.BytesIO(client.fetch("explain", data, "application/dicom", n_steps=2).content))
    assert (capture.PatientName, capture.StudyInstanceUID) == (PATIENT, "1.2.3.2")
    made = [pydicom.dcmread(io.BytesIO(each)) for each in client.dicom(data, objects=["all"], n_steps=2)]
    assert [each.Modality for each in made] == ["OT", "SR", "OT", "SEG", "PR"]
    assert made[0].SOPInstanceUID == capture.SOPInstanceUID
    np.testing.assert_array_equal(made[2].pixel_array.reshape(found.shape), found)


def test_predictions_go_out_in_every_format(client):
    """JSON, an array and a plot."""
    mean = client.predict(dicom(noise()))["prediction"]["mean_um"]
    array = np.load(io.BytesIO(client.fetch("predict", dicom(noise()), "application/x-npy").content))
    np.testing.assert_allclose(array[0], mean, rtol=1e-6)
    assert client.fetch("predict", dicom(noise()), "image/png").content.startswith(b"\x89PNG")


@pytest.mark.slow
def test_full_size_images_pass_in_both_directions(client, workers):
    """27 MB of DICOM in, 55 MB of map out; and 109 MB of float64 in."""
    pixels = noise(FULL)
    answer = client.fetch("explain", dicom(pixels), "application/x-npy", n_steps=1)
    full = np.load(io.BytesIO(answer.content))
    assert full.shape == FULL
    assert np.count_nonzero(full) > 60_000
    assert len(client.predict(to_npy(pixels.astype(np.float64)))["prediction"]["mean_um"]) == 12


@pytest.mark.slow
def test_full_size_maps_pass_as_json(client, workers):
    """Sent in base64 in JSON, and back as JSON."""
    data = to_npy(noise(FULL))
    found = client.explain(data, n_steps=1, n_samples=2)["explanation"]
    assert found["map"].shape == FULL
    assert found["visits"].sum() == 2 * 250 * 250


@pytest.mark.slow
def test_large_answers_share_a_batch(client, workers):
    """Four maps of 55 MB at once: in one message of TorchServe's protocol they would take it hours to read."""
    data = to_npy(noise(FULL))
    with ThreadPoolExecutor(4) as pool:
        asked = [
            pool.submit(client.fetch, "explain", data, "application/x-npy", method="sensitivity", seed=seed % 2)
            for seed in range(4)
        ]
        contents = [each.result().content for each in asked]
    assert contents[0] == contents[2] != contents[1]
    assert len(contents[0]) == 4 * FULL[0] * FULL[1] + 128


def test_answers_are_json_by_default(server):
    """For a client that says nothing, and for curl, which accepts anything."""
    headers = {"Authorization": f"Bearer {server.state.keys().inference}", "Content-Type": "application/dicom"}
    url = f"{server.state.url}/predictions/cdmam"
    response = httpx.post(url, content=dicom(noise()), headers=headers, timeout=60)
    assert response.headers["content-type"] == "application/json"
    assert json.loads(response.headers["X-Radlens-Provenance"]) == response.json()["provenance"]
    assert response.headers["x-request-id"] == response.json()["provenance"]["request_id"]
