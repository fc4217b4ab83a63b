"""What a classifier of lung nodules does with images that are not patches of 45 mm in Hounsfield units."""

import io

import numpy as np
import pydicom
import pytest
from class_requests import answer, fields
from dataset_files import dicom
from pydicom import uid
from scipy.ndimage import gaussian_filter

from radlens.families.classifier.domain import fit_domain
from radlens.families.classifier.recipes import CLASSIFIER_PRESETS
from radlens.families.classifier.training_data import native_images, simulate_image
from radlens.images import to_npy
from radlens.phantoms import nodule

INPUT = CLASSIFIER_PRESETS["nodule-convnet"]["demo"].input
CLASSES = ("benign", "malignant")
N_TRAINING, N_UNSEEN = 300, 80


def patch(k=0, scale=1.0):
    """A patch of the training kind, of a scanner with other pixels than the network."""
    return simulate_image("nodules", INPUT, CLASSES[k % 2], (93, k), scale=scale)


def axial_slice(seed=0):
    """A drawing of a whole axial slice, 512x512 pixels of 350 mm in HU: body, two lungs with vessels, spine, air."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-175:175:512j, -175:175:512j]
    hounsfield = np.where((x / 165) ** 2 + (y / 115) ** 2 < 1, 40.0, -1000.0)
    vessels = gaussian_filter(rng.normal(size=x.shape), 2) > 0.12
    for side in (-75, 75):
        lung = ((x - side) / 58) ** 2 + ((y + 5) / 85) ** 2 < 1
        hounsfield[lung] = np.where(vessels[lung], 20, -850)
    hounsfield[(x / 16) ** 2 + ((y - 75) / 16) ** 2 < 1] = 300
    return gaussian_filter(hounsfield, 0.8) + rng.normal(0, 25, x.shape)


@pytest.fixture(scope="module")
def domain():
    """The domain of simulated patches, as an export fits it."""
    images = native_images("nodules", INPUT, CLASSES, N_TRAINING + N_UNSEEN, seed=78, n_workers=1)
    return fit_domain(images[:N_TRAINING], images[N_TRAINING:])


@pytest.fixture
def service(eager_service, domain):
    """A service of a network of patches, and their domain."""
    return eager_service(domain=domain, shape=INPUT.shape, input=INPUT, n_outputs=2)


def assessed(service, pixels):
    """Return the answer to a prediction."""
    response = answer(service, "predict", np.ascontiguousarray(pixels, dtype=np.float32))
    assert response.status == 200
    return fields(response)


WRONG = {
    "a whole slice": axial_slice,
    "a quarter of a slice": lambda: axial_slice()[120:376, 60:316],
    "stored values without rescale": lambda: patch() + 1024,
    "a picture of 8 bits": lambda: np.clip((patch() + 1000) / 1400 * 255, 0, 255),
    "half of the field of view": lambda: patch()[16:48, 16:48],
    "a saturated patch": lambda: np.where(patch() > -700, 3071, patch()),
    "a patch cut off below": lambda: np.maximum(patch(), -500),
    "inverted": lambda: -1000 - patch(),
}


@pytest.mark.parametrize("kind", WRONG)
def test_other_images_get_no_class(service, kind):
    """The answer says how unlike the image is; an array or a map of it is refused with 422."""
    pixels = np.ascontiguousarray(WRONG[kind](), dtype=np.float32)
    found = assessed(service, pixels)
    assert (found["assessable"], found["prediction"]["predicted"]) == (False, None)
    assert "is not of the kind that the model was trained on" in found["reasons"][0]
    assert answer(service, "explain", pixels, "application/x-npy", method="saliency").status == 422


@pytest.mark.parametrize("value", [-1024, 0, 40, 3071])
def test_a_constant_patch_gets_no_class(eager_service, service, value):
    """Air, water or a saturated detector: also without a domain, where the scaling gives other numbers than 0."""
    pixels = np.full((64, 64), value, np.float32)
    for each in (service, eager_service(shape=INPUT.shape, input=INPUT, n_outputs=2)):
        found = assessed(each, pixels)
        assert not found["assessable"]
        assert found["reasons"] == ["all pixels have one value; there is nothing to see"]


@pytest.mark.parametrize("scale", [0.75, 1.0, 1.5, 2.0])
def test_patches_of_other_sizes_get_a_class(service, scale):
    """45 mm in 48 to 128 pixels are the same patch for the network."""
    for k in range(8):
        found = assessed(service, patch(k, scale))
        assert found["assessable"], found["reasons"]
        assert found["prediction"]["predicted"] in CLASSES


@pytest.mark.parametrize("shape", [(1, 4096), (64, 1), (3, 64)])
def test_odd_sizes_get_no_class(service, shape):
    """A row, a column or a stripe is no patch."""
    rng = np.random.default_rng(1)
    assert not assessed(service, rng.normal(-800, 100, shape))["assessable"]


def test_a_stack_of_slices_is_refused(service):
    """Three axes are not an image."""
    response = answer(service, "predict", body=to_npy_stack())
    assert response.status == 422


def to_npy_stack():
    """Return three slices as a .npy file."""
    stream = io.BytesIO()
    np.save(stream, np.zeros((3, 64, 64), np.float32))
    return stream.getvalue()


def _dicom(tmp_path, pixels, *, rescaled):
    path = dicom(tmp_path / "patch.dcm", np.round(pixels + 1024).astype(np.uint16))
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
    dataset.Modality, dataset.PixelSpacing = "CT", [nodule.FIELD_MM / 64] * 2
    if rescaled:
        dataset.RescaleSlope, dataset.RescaleIntercept = 1, -1024
    dataset.save_as(path)
    return path.read_bytes()


def test_a_dicom_patch_is_read_in_hounsfield_units(service, tmp_path):
    """With its rescale it is the patch itself; without, stored values are not taken for Hounsfield units."""
    pixels = np.maximum(patch(3), -1024)
    right = fields(answer(service, "predict", body=_dicom(tmp_path, pixels, rescaled=True)))
    plain = fields(answer(service, "predict", body=to_npy(pixels.astype(np.float32))))
    assert right["assessable"]
    assert right["prediction"]["probabilities"] == plain["prediction"]["probabilities"]
    assert not fields(answer(service, "predict", body=_dicom(tmp_path, pixels, rescaled=False)))["assessable"]
