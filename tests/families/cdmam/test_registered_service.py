"""The service of the registered recipe with a trained demo member: what is judged, what is not, and what maps say."""

import io
import json
from dataclasses import replace
from email.message import EmailMessage
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pytest
import torch

from radlens.families.cdmam import Service
from radlens.families.cdmam.manifest import WEIGHTS, Bundle, InputSpec, Manifest, save
from radlens.families.cdmam.methods import WALK
from radlens.families.cdmam.training import load_run
from radlens.networks import FoldedCdmamEnsemble
from radlens.phantoms import cdmam
from radlens.phantoms.cdmam.domain import Limits
from radlens.service import Request
from radlens.wire import parts_of

DEMO = Path(__file__).parents[3] / "export" / "cdmam_demo"
LAYOUT = cdmam.Layout.with_margin(2, 0.1)
"""The largest pixels of training, where everything takes half the time of 0.07 mm."""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """The first two demo members and their calibration, without graphs."""
    run = load_run(DEMO)
    ensemble = FoldedCdmamEnsemble.from_members(run.members[:2], logarithmic=True)
    folder = tmp_path_factory.mktemp("registered")
    torch.save(ensemble.state_dict(), folder / WEIGHTS)
    everything = (0.0, float(np.finfo(np.float32).max))
    spec = InputSpec(0.0, 1.0, 0.07, "stratified", everything, everything, registered=True, n_samples=8)
    manifest = Manifest(
        name="cdmam",
        version="1.0",
        task="cdmam-cdc",
        diameters_mm=cdmam.CDC_DIAMETERS_MM,
        input=spec,
        explainers=("omig", "sensitivity", "occlusion"),
        n_members=2,
        rank=ensemble.rank,
        logarithmic=True,
        domain=Limits().as_json(),
        training=run.record,
        parity={},
    )
    return save(folder, manifest)


@pytest.fixture(scope="module")
def service(bundle: Bundle) -> Service:
    """Serves them with torch."""
    return Service(bundle, engine="torch")


def phantom(seed: int = 5, **changes: float) -> bytes:
    """A DICOM image in scenario 1."""
    return cdmam.to_dicom(simulated(seed, **changes))


def simulated(seed: int, **changes: float) -> cdmam.PhantomImage:
    """An image in scenario 1."""
    return cdmam.simulate(cdmam.SCENARIOS["1"], LAYOUT, seed, cdmam.Changes(**changes))


def blank() -> bytes:
    """A plate without a phantom, as noisy as the phantom."""
    noise = np.random.default_rng(0).normal(1000, 10, LAYOUT.image_shape).astype(np.float32)
    return cdmam.to_dicom(cdmam.PhantomImage(noise, cdmam.SCENARIOS["1"], LAYOUT, 0))


def asked(service: Service, kind: str, data: bytes, content_type: str | None = None, **parameters: str):
    """Send one request and return the status and the last or only JSON document of the answer."""
    request = Request(kind, data, content_type=content_type, parameters=parameters, request_id="id")
    (response,) = service.respond([request])
    return response.status, json.loads(response.body)


def related(*images: bytes) -> tuple[bytes, str]:
    """Return a body of several images and its content type (RFC 2387)."""
    message = EmailMessage()
    message.make_related()
    for image in images:
        message.add_related(image, "application", "dicom", cte="binary")
    head, _, body = message.as_bytes().partition(b"\n\n")
    return body, " ".join(head.decode().split("Content-Type: ")[1].split("MIME-Version")[0].split())


@pytest.mark.slow
def test_a_phantom_gets_its_curve_and_a_verdict(service):
    """The true midpoint lies within 30 %, every interval is positive, and both limits are answered."""
    image = cdmam.simulate(cdmam.SCENARIOS["1"], cdmam.Layout.with_margin(2), 5)
    status, answer = asked(service, "predict", cdmam.to_dicom(image))
    assert status == 200
    assert (answer["assessable"], answer["reasons"]) == (True, [])
    true = cdmam.expected_cdc([cdmam.SCENARIOS["1"]])[0]
    found = np.array(answer["prediction"]["mean_um"])
    assert np.log(found.mean() / true.mean()) == pytest.approx(0, abs=0.3)
    assert np.min(answer["prediction"]["interval_um"]) > 0
    assert [each["diameter_mm"] for each in answer["verdict"]["diameters"]] == [1.0, 0.5, 0.25, 0.1]
    assert answer["verdict"]["acceptable"] == "met"
    assert answer["verdict"]["achievable"] in ("met", "not settled")


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["predict", "explain"])
def test_noise_without_a_phantom_is_not_judged(service, kind):
    """No curve, no map, no verdict, and the reason says that no phantom was found."""
    status, answer = asked(service, kind, blank())
    assert status == 200
    assert answer["assessable"] is False
    assert answer.get("prediction") is None
    assert answer.get("explanation") is None
    assert answer["reasons"]


def test_a_phantom_without_disks_gets_no_verdict(service):
    """The curve would be far above; the image shows none of the disks that any curve implies."""
    status, answer = asked(service, "predict", phantom(disks=0.0))
    assert status == 200
    assert answer["assessable"] is False
    assert any("disk" in reason for reason in answer["reasons"])


def test_maps_walk_far_unless_told_otherwise(service):
    """The walk of registered phantoms is the default of OMIG, and each of its parameters can be given."""
    parameters = asked(service, "explain", phantom())[1]["provenance"]["explainer"]["parameters"]
    assert parameters == dict(WALK["omig"])
    given = {"n_steps": "1", "path_length": "1"}
    parameters = asked(service, "explain", phantom(), **given)[1]["provenance"]["explainer"]["parameters"]
    assert parameters == {**WALK["omig"], "n_steps": 1, "path_length": 1.0}


@pytest.mark.slow
def test_several_images_are_one_curve(service):
    """An image that cannot be judged is left out by name; the others' interval is narrower than theirs on average."""
    body, content_type = related(phantom(1), phantom(2), blank(), phantom(3))
    status, answer = asked(service, "predict", body, content_type)
    assert status == 200
    assert answer["assessable"] is True
    each = answer["images"]
    assert [image["assessable"] for image in each] == [True, True, False, True]
    together = widths(answer)
    alone = np.mean([widths(asked(service, "predict", phantom(seed))[1]) for seed in (1, 2, 3)], axis=0)
    assert np.all(together < alone)
    # What all images of an exposure share does not average out.
    assert np.all(together > alone / np.sqrt(3))


@pytest.mark.slow
def test_copies_of_one_exposure_count_once(service):
    """Its noise tells that an image is the first one mirrored, moved by some pixels and with another gain."""
    image = simulated(1)
    copy = np.roll(image.pixels[:, ::-1], (7, -5), (0, 1)) * np.float32(0.5)
    body, content_type = related(cdmam.to_dicom(image), cdmam.to_dicom(replace(image, pixels=copy)), phantom(2))
    status, answer = asked(service, "predict", body, content_type)
    assert status == 200
    assert [each["assessable"] for each in answer["images"]] == [True, True, True]
    assert [each["is_repeated"] for each in answer["images"]] == [False, True, False]
    assert "1 of 3 images are left out of the combined curve" in answer["warnings"]


def widths(answer) -> np.ndarray:
    """Return the width of each interval of an answer, relative."""
    low, high = np.array(answer["prediction"]["interval_um"]).T
    return np.log(high / low)


def test_forms_are_refused(service):
    """Multipart forms get 415."""
    status, answer = asked(service, "predict", b"--x\r\n\r\n--x--", "multipart/form-data; boundary=x")
    assert status == 415
    assert answer["message"] == "expected the bytes of an image as the body, got a form"


def test_the_dicom_report_holds_the_curve_and_its_verdict(service: Service) -> None:
    """Every threshold and interval exactly as JSON states them, and the verdict on each limit."""
    plain, asked = (
        Request("predict", phantom(), accept=accept, parameters=parameters, request_id="id")
        for accept, parameters in (("application/json", {}), ("application/dicom", {"objects": "report"}))
    )
    stated, found = service.respond([plain, asked])
    answer, report = json.loads(stated.body), highdicom.sr.srread(io.BytesIO(found.body))
    content: Any = report.content
    groups = {each.tracking_identifier: each for each in content.get_image_measurement_groups()}
    limits = {point["diameter_mm"]: point for point in answer["verdict"]["diameters"]}
    curve = answer["prediction"]
    points = zip(curve["diameters_mm"], curve["mean_um"], curve["interval_um"], strict=True)
    for diameter, mean, (low, high) in points:
        group = groups[f"Disks of {diameter:.2f} mm"]
        values = {
            each.name.value: each[0].MeasuredValueSequence[0].FloatingPointValue for each in group.get_measurements()
        }
        assert (values["DIAMETER"], values["THRESHOLD"]) == (diameter, mean)
        assert (values["INTERVAL-LOW"], values["INTERVAL-HIGH"]) == (low, high)
        codes = {each.name.value: each.value.meaning.lower() for each in group.get_qualitative_evaluations()}
        for name in ("acceptable", "achievable") if diameter in limits else ():
            assert codes[name.upper()] == limits[diameter][name]
            assert values[f"{name.upper()}-LIMIT"] == limits[diameter][f"{name}_um"]


def test_a_map_that_is_no_finding_is_no_dicom_map(service: Service) -> None:
    """One sample shows no disks: the capture says so, and a map is refused with the sentence."""
    asked = [
        Request("explain", phantom(), accept="application/dicom", parameters={"objects": objects}, request_id="id")
        for objects in ("all", "map")
    ]
    both, refused = service.respond(asked)
    assert len(parts_of(both.content_type, both.body)) == 2
    assert refused.status == 422
    assert "A map of one sample visits one pixel in ninety" in json.loads(refused.body)["message"]
