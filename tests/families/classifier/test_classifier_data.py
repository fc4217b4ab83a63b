import pickle
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from dataset_files import LIDC_SERIES, lidc_nodule, lidc_series, lidc_square, lidc_xml
from PIL import Image
from tiny_classifier import tiny

from radlens.datasets import Case, Dataset, ModelInput, Sample, draw_patches, open_busi, open_lidc_idri
from radlens.errors import InvalidParameter, TrainingError
from radlens.families.classifier import training_data as data
from radlens.families.classifier.recipes import WarmUp
from radlens.phantoms import mammogram, nodule, ultrasound


def arguments(job):
    """Return what a part's image is drawn or read from."""
    assert isinstance(job, partial)
    return job.args


def test_simulated_parts_share_no_seed():
    """Training, validation, test and warm-up draw from seeds of their own."""
    preset = tiny(warm_up=WarmUp(1, (32, 32), n_patches=9), n_training=9, n_validation=9, n_test=9)
    jobs = data._simulated(preset) | {data.WARM_UP: data._warm_up_jobs(preset)}
    seeds = [arguments(job)[-1] for part in jobs.values() for job in part]
    assert len(seeds) == len(set(seeds)) == 36


@pytest.mark.parametrize(
    "task",
    ["ultrasound-resnet", "patch-resnet50", "mammogram-efficientnet-b0", "mammogram-mobilenet", "nodule-resnet18"],
)
def test_simulated_images_are_what_the_simulator_draws(tmp_path, task):
    """Each image is the simulator's of its seed and class, prepared; half precision keeps three digits."""
    shape = (
        (224, 224)
        if task == "patch-resnet50"
        else (64, 64)
        if "nodule" in task
        else (64, 48)
        if "mammogram" in task
        else (128, 128)
    )
    network = replace(tiny(task).input, shape=shape)
    preset = tiny(task, n_training=2, n_validation=2, n_test=2, input=network, p_calcifications=0.5)
    sets = data.build_sets(tmp_path, preset, n_workers=1)
    for part, number in (("training", 0), ("validation", 1), ("test", 2)):
        found = sets[part]
        assert found.labels.tolist() == [0, 1]
        for i, category in enumerate(preset.classes):
            options = {"image_shape": shape, "seed": (preset.seed, number, i)}
            if preset.task == "ultrasound":
                drawn = ultrasound.sample(category, **options)
            elif preset.task == "nodules":
                drawn = nodule.sample(category, **options)
            elif preset.task == "patches":
                drawn = mammogram.sample_patch(category, p_calcifications=0.5, **options)
            else:
                drawn = mammogram.sample(category, p_calcifications=0.5, masses=preset.masses, **options)
            expected = network.prepare(drawn.pixels).pixels
            # Half precision has 11 bits.
            np.testing.assert_allclose(found.images[i], expected, rtol=2**-11, atol=1e-4)


def test_warm_up_patches_have_the_spacing_of_the_whole_images(tmp_path):
    """An image of 256 rows is 233 mm high, so a pixel is 0.91 mm."""
    preset = tiny(
        "mammogram-efficientnet-b0",
        input=ModelInput((256, 128), framing="breast"),
        warm_up=WarmUp(1, (64, 64), n_patches=2),
        n_training=2,
        n_validation=2,
        n_test=2,
        p_calcifications=0.0,
    )
    patches = data.build_sets(tmp_path, preset, n_workers=1)[data.WARM_UP]
    spacing = mammogram.FIELD_HEIGHT_MM / 256
    options = {"image_shape": (64, 64), "spacing_mm": spacing, "p_calcifications": 0.0, "seed": (1, 3, 1)}
    expected = ModelInput((64, 64)).prepare(mammogram.sample_patch("malignant", **options).pixels).pixels
    np.testing.assert_allclose(patches.images[1], expected, rtol=2**-11, atol=1e-4)
    assert patches.labels.tolist() == [0, 1]


def test_warm_up_patches_have_the_classes_masses_and_spacing_of_the_recipe(tmp_path):
    """Rows and columns of their own, where the crop to the breast is stretched."""
    masses = mammogram.Masses((10.0, 12.0), 1.5)
    plan = WarmUp(1, (64, 96), n_patches=2, spacing_mm=(0.75, 0.47))
    preset = tiny("mammogram-mobilenet", warm_up=plan, masses=masses, input=ModelInput((64, 48)), n_training=2, seed=3)
    patches = data.build_sets(tmp_path, preset, n_workers=1)[data.WARM_UP]
    options = {"image_shape": (64, 96), "spacing_mm": (0.75, 0.47), "masses": masses}
    for i, category in enumerate(("healthy", "mass")):
        drawn = mammogram.sample_patch(category, seed=(3, 3, i), **options)
        expected = ModelInput((64, 96)).prepare(drawn.pixels).pixels
        np.testing.assert_allclose(patches.images[i], expected, rtol=2**-11, atol=1e-4)


def test_data_sets_do_not_fit_the_recipe_for_masses(tmp_path):
    """They do not tell masses from calcifications, or have no healthy mammograms."""
    with pytest.raises(InvalidParameter, match="classes healthy and mass need simulated images, got cbis-ddsm"):
        data.build_sets(tmp_path, tiny("mammogram-mobilenet"), data="cbis-ddsm", root=tmp_path)


def test_what_is_there_is_not_drawn_again(tmp_path, monkeypatch):
    """An interrupted part is drawn anew, finished ones are opened; two processes draw what one does."""
    preset, parts = tiny(input=ModelInput((64, 64)), n_training=2, n_validation=2), []
    first = data.build_sets(tmp_path / "a", preset, n_workers=1)
    images = {name: found.images.copy() for name, found in first.items()}
    (tmp_path / "a" / "test-labels.npy").unlink()
    again = data.build_sets(tmp_path / "a", preset, n_workers=2, on_progress=lambda *state: parts.append(state))
    assert parts == [("test images", i, 4) for i in (1, 2, 3, 4)]
    for name, found in again.items():
        np.testing.assert_array_equal(found.images, images[name])


def _mammogram_case(patient, label, number=0):
    """Return a case of a breast of 64x48 pixels with a lesion of its label; normal ones have none."""
    pixels = np.zeros((64, 48), np.float32)
    pixels[8:56, :40] = np.random.default_rng(number).uniform(500, 600, (48, 40))
    lesion = label in ("benign", "malignant")
    sample = Sample(pixels, boxes=((4, 12, 10, 20),) * lesion, labels=(label,) * lesion)
    return Case(
        patient_id=patient, image_id=f"{patient}-{number}", label=label, name="case", paths=(), loader=lambda: sample
    )


CASES = [
    _mammogram_case(f"p{i}", label, number)
    for i, label in enumerate(["normal", "malignant", "benign", "non-malignant", "malignant", "normal"] * 3)
    for number in range(2)
]


@pytest.fixture
def data_set(monkeypatch):
    """What is opened, by whatever name, holds two images of each of 18 patients."""
    monkeypatch.setattr(data, "open_dataset", lambda name, root: Dataset(name, tuple(CASES)))


@pytest.mark.usefixtures("data_set")
def test_no_patient_is_in_two_parts():
    """A fifth of the patients is for the test, a fifth of the others for validation."""
    preset = tiny("mammogram-efficientnet-b0")
    jobs = data._recorded(preset, "rsna-2022", "root")
    patients = {part: {arguments(job)[0].patient_id for job in found} for part, found in jobs.items()}
    assert {part: len(found) for part, found in patients.items()} == {"training": 11, "validation": 3, "test": 4}
    assert len(set.union(*patients.values())) == 18
    assert sum(len(found) for found in jobs.values()) == len(CASES)


@pytest.mark.usefixtures("data_set")
def test_whole_mammograms_are_malignant_or_not(tmp_path):
    """Benign, non-malignant and normal ones are negative; each is what the network's input makes of it."""
    preset = tiny("mammogram-efficientnet-b0")
    sets = data.build_sets(tmp_path, preset, data="cbis-ddsm", root=tmp_path, n_workers=1)
    assert sum(len(found) for found in sets.values()) == len(CASES)
    assert sum(found.labels.sum() for found in sets.values()) == 12
    jobs = data._recorded(preset, "cbis-ddsm", tmp_path)["test"]
    for job, image in zip(jobs, sets["test"].images, strict=True):
        expected = preset.input.prepare(arguments(job)[0].load().pixels).pixels
        np.testing.assert_allclose(image, expected, rtol=2**-11, atol=1e-4)


@pytest.mark.usefixtures("data_set")
def test_ultrasound_leaves_out_what_is_neither(tmp_path):
    """Only benign and malignant images are read."""
    jobs = data._recorded(tiny(), "busi", tmp_path)
    assert {arguments(job)[0].label for part in jobs.values() for job in part} == {"benign", "malignant"}


@pytest.mark.usefixtures("data_set")
def test_patches_are_cut_around_lesions_and_from_normal_tissue(tmp_path):
    """Those of benign lesions are left out; an image without room for a patch gives none."""
    preset = tiny("patch-resnet50", input=ModelInput((32, 32)))
    sets = data.build_sets(tmp_path, preset, data="omi-db", root=tmp_path, n_workers=1)
    malignant = next(case for case in CASES if case.label == "malignant")
    read = partial(data._read, preset=preset, data="omi-db", classes=("normal", "malignant"), seed=(1, 0, 5))
    patches = draw_patches(malignant.load(), size=32, seed=5)
    assert [label for _, label in read(malignant)] == [int(patch.kind == "lesion") for patch in patches] == [1, 0]
    for (image, _), patch in zip(read(malignant), patches, strict=True):
        np.testing.assert_allclose(image, preset.input.prepare(patch.pixels).pixels, rtol=2**-11, atol=1e-4)
    assert [label for case in CASES[4:6] for _, label in read(case)] == [0, 0]
    assert read(CASES[0], preset=tiny("patch-resnet50", input=ModelInput((64, 64)))) == []
    assert {label for found in sets.values() for label in found.labels.tolist()} == {0, 1}


@pytest.mark.usefixtures("data_set")
def test_cropped_images_of_cbis_all_show_lesions(tmp_path):
    """Their classes are benign and malignant, and they are taken whole."""
    preset = tiny("patch-resnet50")
    assert data.classes_of(preset, "cbis-ddsm-patches") == ("benign", "malignant")
    assert data.classes_of(preset, "cbis-ddsm") == data.classes_of(preset, None) == ("normal", "malignant")
    sets = data.build_sets(tmp_path, preset, data="cbis-ddsm-patches", root=tmp_path, n_workers=1)
    assert sum(len(found) for found in sets.values()) == len(CASES)
    assert sum(found.labels.sum() for found in sets.values()) == 12


def test_real_cases_go_to_other_processes(tmp_path):
    """A case of a data set on disk, with its loader, can be pickled."""
    for folder, name in (("benign", "benign (1)"), ("malignant", "malignant (1)"), ("normal", "normal (1)")):
        (tmp_path / folder).mkdir()
        for file in (f"{name}.png", f"{name}_mask.png"):
            Image.fromarray(np.full((9, 8), 200, np.uint8)).save(tmp_path / folder / file)
    case = open_busi(tmp_path)[0]
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(case)).load().pixels, case.load().pixels)


def test_data_that_do_not_fit_are_refused(tmp_path, monkeypatch):
    """Data of another task, a name without a folder, one class only."""
    message = "data for ultrasound must be one of busi, oasbud, got rsna-2022"
    with pytest.raises(InvalidParameter, match=message):
        data.build_sets(tmp_path, tiny(), data="rsna-2022", root=tmp_path)
    with pytest.raises(InvalidParameter, match="with root, the folder where it is, got data without root"):
        data.build_sets(tmp_path, tiny(), data="busi")
    with pytest.raises(InvalidParameter, match="got root without data"):
        data.build_sets(tmp_path, tiny(), root=tmp_path)
    benign = tuple(case for case in CASES if case.label == "benign")
    monkeypatch.setattr(data, "open_dataset", lambda name, root: Dataset(name, benign))
    with pytest.raises(TrainingError, match="training images must be of both classes, got 2 images of 1"):
        data.build_sets(tmp_path, tiny(), data="busi", root=tmp_path, n_workers=1)


def test_nodules_of_lidc_idri_are_read_as_the_network_gets_them(tmp_path):
    """Patches in Hounsfield units over the range of the network, patients apart, and both classes in each part."""
    patients = 12
    for k in range(patients):
        series = f"{LIDC_SERIES}.{k}"
        folder = lidc_series(tmp_path / "data", patient=f"LIDC-IDRI-{k:04d}", series=series, seed=k)
        nodules = [
            [lidc_nodule(rating, {2: lidc_square(row, 60, 6)}, series=series) for row, rating in ((40, 1), (80, 5))]
        ] * 4
        lidc_xml(folder / "069.xml", nodules, series=series)
    preset = tiny(
        "nodule-convnet", network="convnet", input=ModelInput((64, 64), scaling="fixed", mean=(-1000,), std=(1400,))
    )
    sets = data.build_sets(tmp_path / "run", preset, data="lidc-idri", root=tmp_path / "data", n_workers=1)
    assert sum(len(found) for found in sets.values()) == 2 * patients
    for found in sets.values():
        assert sorted(set(found.labels.tolist())) == [0, 1]
        assert len(found) % 2 == 0
    cases = {case.image_id: case for case in open_lidc_idri(tmp_path / "data")}
    read = [(case.load().pixels + 1000) / 1400 for case in cases.values()]
    for image in sets["test"].images:
        assert min(float(np.abs(image[0] - each).max()) for each in read) < 1e-3


def test_a_data_set_of_breasts_does_not_fit_nodules(tmp_path):
    """The data sets that do are named."""
    with pytest.raises(InvalidParameter, match="data for nodules must be one of lidc-idri, got busi"):
        data.build_sets(tmp_path, tiny("nodule-resnet18"), data="busi", root=tmp_path)
