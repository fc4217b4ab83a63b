"""The service of an inpainter: bodies, formats, batches, bad input."""

import base64
import io
import json
from datetime import UTC, datetime

import numpy as np
import PIL.Image
import pydicom
import pytest
import torch
from sample_images import PATIENT, bad_images, dicom
from small_inpainter import SHAPE, inpainter_files

from radlens.datasets.preprocessing import resize
from radlens.families import load, open_service
from radlens.families.inpainter.manifest import InpainterBundle
from radlens.figures import display_grey
from radlens.figures.burnt_in import enlarged
from radlens.images import read, to_npy, to_png
from radlens.phantoms import mammogram
from radlens.service import Request
from radlens.wire import PROVENANCE, array_from_json

TIME = datetime(2026, 1, 2, tzinfo=UTC)
RNG = np.random.default_rng(0)
PIXELS = RNG.normal(1000, 300, (50, 40)).astype(np.float32)
MASK = np.zeros((50, 40), dtype=np.uint8)
MASK[10:20, 8:19] = 1
MASK[40:43, 30:40] = 255


@pytest.fixture(scope="module")
def service():
    """Takes whole images."""
    return open_service(load(inpainter_files()), engine="onnxruntime", now=lambda: TIME)


@pytest.fixture(scope="module")
def of_breasts():
    """Takes crops to the breast."""
    return open_service(load(inpainter_files("breast")), engine="onnxruntime")


def multipart(*parts):
    """Return a body of parts ``(content, headers)`` and its media type."""
    body = b"".join(
        b"--x\r\n" + "".join(f"{h}\r\n" for h in head).encode() + b"\r\n" + data + b"\r\n" for data, *head in parts
    )
    return body + b"--x--\r\n", "multipart/related; boundary=x"


def sent(image=None, mask=None, *, accept=None, form="multipart", kind="predict", **parameters):
    """Return a request with an image and a mask, given as contents of files."""
    image = to_npy(PIXELS) if image is None else image
    mask = to_png(MASK) if mask is None else mask
    if form == "json":
        fields = {"image": base64.b64encode(image).decode(), "mask": base64.b64encode(mask).decode()}
        body, media_type, parameters = json.dumps(fields | parameters).encode(), "application/json", {}
    else:
        body, media_type = multipart((image,), (mask, 'Content-Disposition: attachment; name="mask"'))
    return Request(kind, body, media_type, accept, parameters, request_id="id")


def asked(service, *requests):
    """Return the responses to one batch."""
    return service.respond(requests)


def filled(response):
    """Return the pictures of an answer by name, and everything else in it."""
    assert response.status == 200, response.body
    answer = json.loads(response.body)
    return {name: array_from_json(value) for name, value in answer["prediction"].items()}, answer


def refused(service, request):
    """Return the status and the message of a refusal."""
    (response,) = asked(service, request)
    assert PATIENT not in response.body.decode()
    found = json.loads(response.body)
    assert found["code"] == response.status
    return response.status, found["message"]


def test_holes_hold_what_the_network_draws(service):
    """The network of the bundle on its own grid, resized; all other pixels are those of the image, exactly."""
    (response,) = asked(service, sent())
    found, answer = filled(response)
    spec = load(inpainter_files()).manifest.input
    prepared = spec.prepare(PIXELS)
    holes = resize(MASK.astype(bool).astype(np.float32), SHAPE) > 0.001
    with torch.no_grad():
        known = torch.from_numpy(1 - holes.astype(np.float32))[None, None]
        network = InpainterBundle.load(inpainter_files()).network()
        drawn = network(torch.from_numpy(prepared.pixels)[None], known)[0, 0].numpy()
    seen = resize(PIXELS, SHAPE).astype(np.float64)
    expected = resize((drawn * seen.std() + seen.mean()).astype(np.float32), PIXELS.shape)
    inside = MASK > 0
    np.testing.assert_allclose(found["filled"][inside], expected[inside], rtol=0, atol=1e-4 * np.abs(expected).max())
    np.testing.assert_array_equal(found["filled"][~inside], PIXELS[~inside])
    np.testing.assert_array_equal(found["change"], found["filled"] - PIXELS)
    np.testing.assert_array_equal(found["mask"], inside)
    assert (answer["task"], answer["assessable"], answer["reasons"], answer["warnings"]) == ("inpainting", True, [], [])


@pytest.mark.parametrize("shape", [(50, 40), (32, 24), (11, 300), (400, 333)])
def test_a_hole_of_one_pixel_is_a_hole_of_the_network(service, shape):
    """However many pixels of the image one of its own covers: none of them shows what was there."""
    rng = np.random.default_rng(1)
    spec = load(inpainter_files()).manifest.input
    prepared = spec.prepare(rng.normal(size=shape))
    for _ in range(20):
        mask = np.zeros(shape, dtype=bool)
        i, j = rng.integers(shape[0]), rng.integers(shape[1])
        mask[i, j] = True
        holes = prepared.to_network(mask, SHAPE)
        assert holes[i * SHAPE[0] // shape[0], j * SHAPE[1] // shape[1]]
        assert holes.sum() <= 9 * max(1, SHAPE[0] / shape[0]) * max(1, SHAPE[1] / shape[1])


@pytest.mark.parametrize("mask", [
    to_npy(MASK), to_npy(MASK > 0), to_npy((MASK > 0).astype(np.float32)), to_npy(np.asfortranarray(MASK > 0)),
    to_png(MASK), to_png(np.where(MASK > 0, 65535, 0).astype(np.uint16)),
])  # fmt: skip
@pytest.mark.parametrize("form", ["multipart", "json"])
def test_masks_of_any_kind_mean_the_same(service, mask, form):
    """PNG of 8 and 16 bits, npy of numbers and booleans; in either body."""
    whole, one = (filled(response)[0]["filled"] for response in asked(service, sent(), sent(mask=mask, form=form)))
    np.testing.assert_array_equal(whole, one)


@pytest.mark.parametrize("output", ["filled", "change", "mask"])
@pytest.mark.parametrize("form", ["multipart", "json"])
def test_pictures_of_each_output(service, output, form):
    """As npy, PNG and DICOM the values of the JSON answer, with the same provenance."""
    image = dicom(PIXELS.clip(0, 4095).astype(np.uint16))
    values = filled(asked(service, sent(image))[0])[0][output]
    for accept in ("application/x-npy", "image/png", "application/dicom"):
        (response,) = asked(service, sent(image, accept=accept, form=form, output=output))
        assert (response.status, response.content_type) == (200, accept)
        stated = json.loads(response.headers[PROVENANCE])
        assert stated["output"] == output
        if accept == "application/x-npy":
            found = np.load(io.BytesIO(response.body))
            assert found.dtype == np.float32
            np.testing.assert_array_equal(found, values)
        elif accept == "image/png":
            np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(response.body))), display_grey(values))
        else:
            result = pydicom.dcmread(io.BytesIO(response.body))
            assert (result.PatientName, result.StudyInstanceUID) == (PATIENT, "1.2.3.2")
            assert result.SeriesDescription == "radlens Inpainting (picture)"
            assert json.loads(result.ImageComments) == stated
            shown = enlarged(np.repeat(display_grey(values)[..., None], 3, axis=2))
            np.testing.assert_array_equal(result.pixel_array[: len(shown)], shown)


def test_provenance_is_complete(service):
    """Model, engine, both files, the settings, the time; no patient data."""
    image = dicom(PIXELS.clip(0, 4095).astype(np.uint16))
    (response,) = asked(service, sent(image))
    stated = filled(response)[1]["provenance"]
    bundle = load(inpainter_files())
    expected = {
        "model": "inpainter", "version": "1.0", "bundle_hash": bundle.bundle_hash, "engine": "onnxruntime",
        "precision": "f32", "refused_engines": [], "output": "filled", "hole_pixels": int((MASK > 0).sum()),
        "time": "2026-01-02T00:00:00.000+00:00", "request_id": "id",
        "mask_sha256": read(to_png(MASK)).sha256,
    }  # fmt: skip
    assert {name: stated[name] for name in expected} == expected
    assert stated["input"]["sha256"] == read(image).sha256
    assert {"radlens", "torch", "onnxruntime"} <= set(stated["libraries"])
    assert PATIENT not in response.body.decode() + str(response.headers)
    assert json.loads(response.headers[PROVENANCE]) == stated


def test_a_row_of_a_batch_gets_what_it_gets_alone(service):
    """Images of several sizes with masks of their own, beside bad ones, which fail alone."""
    rng = np.random.default_rng(2)
    good = []
    for shape in ((50, 40), (33, 64), (32, 24)):
        mask = rng.random(shape) > 0.8
        good.append(sent(to_npy(rng.normal(500, 90, shape).astype(np.float32)), to_npy(mask)))
    batch = [good[0], sent(b"tea leaves"), good[1], sent(mask=to_npy(MASK[1:])), good[2]]
    responses = asked(service, *batch)
    assert [response.status for response in responses] == [200, 415, 200, 400, 200]
    for request, response in zip(batch, responses, strict=True):
        (alone,) = asked(service, request)
        if response.status != 200:
            assert response.body == alone.body
            continue
        one, other = filled(alone)[0], filled(response)[0]
        # Sums of float32 in another order.
        np.testing.assert_allclose(one["filled"], other["filled"], rtol=1e-5)
        np.testing.assert_array_equal(one["mask"], other["mask"])


def test_a_row_that_overflows_leaves_its_neighbours_alone(service, monkeypatch):
    """It is told why, in words."""
    huge = np.full((50, 40), 3e38, dtype=np.float32)
    huge[::2] = -3e38
    first, bad, last = asked(service, sent(), sent(to_npy(huge)), sent())
    assert (first.status, last.status) == (200, 200)
    assert bad.status == 422
    assert json.loads(bad.body)["message"].startswith("pixels must be small enough to be filled")
    monkeypatch.setattr(
        service._graph, "run", lambda inputs: {"inpainted": np.full((len(inputs["images"]), 1, *SHAPE), np.inf)}
    )
    status, message = refused(service, sent())
    assert status == 422
    assert message == "pixels must be small enough to be filled, got values that overflow the model"


def test_no_hole_fills_nothing(service):
    """An answer with a warning, and the image as it was sent."""
    (response,) = asked(service, sent(mask=to_png(0 * MASK)))
    found, answer = filled(response)
    np.testing.assert_array_equal(found["filled"], PIXELS)
    assert answer["warnings"] == ["the mask has no hole; nothing was filled"]
    assert answer["provenance"]["hole_pixels"] == 0


def test_holes_outside_the_breast_stay(of_breasts):
    """The network does not see them; the answer says how many there are."""
    pixels = mammogram.sample("normal", image_shape=(96, 64), seed=1).pixels.astype(np.float32)
    frame = load(inpainter_files("breast")).manifest.input.prepare(pixels).frame
    x0, y0, x1, y1 = frame.box
    assert (x1 - x0) * (y1 - y0) < pixels.size
    mask = np.ones(pixels.shape, dtype=bool)
    mask[y0 : y0 + (y1 - y0) // 2, x0:x1] = False
    (response,) = asked(of_breasts, sent(to_npy(pixels), to_npy(mask)))
    found, answer = filled(response)
    inside = np.zeros_like(mask)
    inside[y0:y1, x0:x1] = True
    np.testing.assert_array_equal(found["filled"][~(mask & inside)], pixels[~(mask & inside)])
    assert (found["filled"][mask & inside] != pixels[mask & inside]).mean() > 0.9
    n_outside = int((mask & ~inside).sum())
    assert answer["warnings"] == [f"{n_outside} pixels of the mask lie outside the breast and were not filled"]
    np.testing.assert_array_equal(found["mask"], mask)


def test_an_image_without_breast_is_filled_as_a_whole(of_breasts):
    """With a warning; an image of one value is filled with it, to rounding."""
    flat = np.full((50, 40), 700, dtype=np.float32)
    found, answer = filled(asked(of_breasts, sent(to_npy(flat)))[0])
    assert answer["warnings"] == ["no breast was found in the image; the whole image was used"]
    np.testing.assert_allclose(found["filled"], flat, rtol=1e-6)


@pytest.mark.parametrize(
    ("mask", "status", "message"),
    [
        (to_png(MASK[:49]), 400, "the mask must have the size of the image, 50x40 pixels, got 49x40"),
        (to_npy(MASK.T.copy()), 400, "the mask must have the size of the image, 50x40 pixels, got 40x50"),
        (
            to_png(MASK * 0 + 1),
            400,
            "the mask must leave known pixels for the inpainter to continue, got holes everywhere",
        ),
        (b"", 400, "the mask cannot be read: expected an image in the body, got an empty body"),
        (b"tea leaves", 415, "the mask cannot be read: expected DICOM (Part 10), PNG, TIFF or .npy, got 10 bytes"),
        (to_png(np.stack([MASK] * 3, axis=2)), 422, "the mask cannot be read: expected a grey PNG, got RGB"),
        (to_npy(np.stack([MASK] * 3)), 422, "the mask cannot be read: array must have 2 dimensions (H, W), got 3"),
        (
            to_npy(np.full(MASK.shape, np.nan)),
            422,
            "the mask cannot be read: pixels must be finite as float32, got 2000 that are NaN or infinite",
        ),
    ],
)
@pytest.mark.parametrize("form", ["multipart", "json"])
def test_bad_masks_are_refused_in_words(service, mask, status, message, form):
    """With a 4xx that tells what was expected and what came."""
    found = refused(service, sent(mask=mask, form=form))
    assert found[0] == status
    assert found[1].startswith(message)


def test_bodies_of_other_kinds_are_refused(service):
    """No mask, several images, several masks, a form, an explanation, unknown parameters and media types."""
    no_mask = (
        "expected an image and its holes: multipart/related with parts named image and mask, or JSON with both in "
        "base64; got no mask"
    )
    image = to_npy(PIXELS)
    encoded = base64.b64encode(image).decode()
    masks = base64.b64encode(to_png(MASK)).decode()
    cases = [
        (Request("predict", image, "application/octet-stream"), 400, no_mask),
        (Request("predict", *multipart((image,))), 400, no_mask),
        (Request("predict", json.dumps({"image": encoded}).encode(), "application/json"), 400, no_mask),
        (
            Request("predict", json.dumps({"images": [encoded] * 2, "mask": masks}).encode(), "application/json"),
            400,
            "an inpainter takes one image in a request, got 2",
        ),
        (
            Request("predict", *multipart((image,), (image,), (to_png(MASK), "Content-ID: <mask>"))),
            400,
            "an inpainter takes one image in a request, got 2",
        ),
        (
            Request("predict", *multipart((to_png(MASK), "Content-ID: <mask>"))),
            400,
            "expected 1 to 64 images in the body, got 0",
        ),
        (Request("predict", image, "multipart/form-data; boundary=x"), 415, "of an image as the body, got a form"),
        (sent(kind="explain"), None, "an inpainter has no explanations; ask for a prediction"),
        (sent(output="tea"), 400, "output must be one of filled, change, mask"),
        (sent(n_steps="3"), 400, "n_steps"),
        (sent(accept="video/mp4"), 406, ""),
    ]  # fmt: skip
    for request, status, message in cases:
        found = refused(service, request)
        assert status in (None, found[0]), found
        assert 400 <= found[0] < 500
        assert message in found[1]


def test_bad_images_are_refused(service):
    """None of the messages has patient data."""
    for name, (data, expected) in bad_images().items():
        if name not in ("too small", "too large for the model"):
            assert refused(service, sent(data))[0] == expected, name


def test_an_error_within_withholds_its_message(service, monkeypatch, caplog):
    """It may quote the image."""

    def fail(inputs):
        raise RuntimeError(f"failed on the image of {PATIENT}")

    monkeypatch.setattr(service._graph, "run", fail)
    status, message = refused(service, sent())
    assert (status, message) == (500, "internal error, logged under request id")
    assert PATIENT not in caplog.text
