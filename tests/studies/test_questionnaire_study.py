"""Reader studies: the choice of lesions, pictures and orders, and what the page and the key say."""

import base64
import hashlib
import io
import json
import re
import shutil
import stat
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from labelled_images import make_images
from PIL import Image
from small_classifier import CLASSES, SHAPE, EagerMember

from radlens import explainers
from radlens.datasets import ModelInput
from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation.reader_answers import read_study_key
from radlens.figures.pictures import grey_picture, map_picture
from radlens.images import read, to_npy, to_png
from radlens.studies import StudyModel
from radlens.studies.reader_study import FolderCases, ReaderStudy, make_reader_study, reading_orders, secret_seed

METHODS = ("saliency", "cam", "occlusion")

MODEL = StudyModel(
    name="small-secret-model",
    title="Small",
    classifier=EagerMember(n_outputs=2),
    input=ModelInput(SHAPE),
    classes=CLASSES[2],
    identity="5ec4e7" * 10,
    methods=(*METHODS, "lime"),
    refused={"shap": "it takes too long"},
)


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """Images of both classes, and the threshold between them."""
    root = tmp_path_factory.mktemp("images") / "labelled"
    return root, make_images(root, MODEL)


@pytest.fixture(scope="module")
def cases(images: tuple[Path, float]) -> FolderCases:
    """These images as cases."""
    return FolderCases(images[0], MODEL)


def plan(images: tuple[Path, float], **changes: Any) -> ReaderStudy:
    """Return a plan of six lesions."""
    return ReaderStudy(**{"methods": METHODS, "n_lesions": 6, "seed": 31415926, "threshold": images[1], **changes})


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory, images: tuple[Path, float], cases: FolderCases) -> Path:
    """The folder of a study."""
    folder = tmp_path_factory.mktemp("studies") / "study"
    make_reader_study(folder, MODEL, cases, plan(images))
    return folder


def page_of(folder: Path) -> str:
    """Return the page of a study."""
    return (folder / "for-readers" / "questionnaire.html").read_text(encoding="utf-8")


def data_of(folder: Path) -> dict[str, Any]:
    """Return the data of the page of a study."""
    (found,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', page_of(folder), re.S)
    return json.loads(found)


def key_of(folder: Path) -> dict[str, Any]:
    """Return the key of a study."""
    return json.loads((folder / "key.json").read_text(encoding="utf-8"))


def decoded(uri: str) -> bytes:
    """Return the bytes of a data URI."""
    return base64.b64decode(uri.partition(",")[2])


def test_lesions_are_correctly_classified(study: Path, images: tuple[Path, float]) -> None:
    """Half of each class, each one once, and the model itself agrees with the folder that they lie in."""
    root, threshold = images
    lesions = key_of(study)["lesions"]
    assert sorted(lesion["label"] for lesion in lesions) == ["benign"] * 3 + ["malignant"] * 3
    assert len({lesion["image"]["file"] for lesion in lesions}) == 6
    for lesion in lesions:
        assert lesion["image"]["file"].startswith(f"{lesion['label']}/")
        pixels = read((root / lesion["image"]["file"]).read_bytes()).pixels
        probability = float(MODEL.probability(torch.from_numpy(MODEL.input.prepare(pixels).pixels[None]))[0])
        assert lesion["probability"] == pytest.approx(probability, abs=1e-6)
        assert (probability > threshold) == (lesion["label"] == "malignant")


def test_pictures_are_the_maps_that_the_key_says(study: Path, images: tuple[Path, float]) -> None:
    """Each picture of the page is that of its lesion and method, computed alone; originals are the images."""
    key, data = key_of(study), data_of(study)
    lesions = {lesion["lesion"]: lesion for lesion in key["lesions"]}
    assert data["pictures"].keys() == key["pictures"].keys()
    assert len(key["pictures"]) == 6 * len(METHODS)
    for code, place in key["pictures"].items():
        prepared = MODEL.input.prepare(
            read((images[0] / lesions[place["lesion"]]["image"]["file"]).read_bytes()).pixels
        )
        image = torch.from_numpy(prepared.pixels)
        task = explainers.create(place["method"]).work(image, 1)
        with torch.no_grad():
            (found,) = explainers.complete(MODEL.classifier, [task])
        # Pixels of the page are those of the image, not scaled; a linear change does not show.
        grey = prepared.in_pixels(prepared.pixels)
        expected = map_picture(grey, found.map.sum(dim=0).numpy(), "overlay")
        shown = read_rgb(decoded(data["pictures"][code]))
        assert np.abs(shown.astype(int) - expected.astype(int)).max() <= 2  # sums in another order round differently
        assert hashlib.sha256(decoded(data["pictures"][code])).hexdigest() == place["sha256"]
        original = read_rgb(decoded(data["originals"][place["lesion"]]))
        assert np.abs(original.astype(int) - grey_picture(grey).astype(int)).max() <= 1


def read_rgb(png: bytes) -> np.ndarray:
    """Return the pixels of a picture."""
    with Image.open(io.BytesIO(png)) as opened:
        return np.asarray(opened.convert("RGB"))


def test_the_page_cannot_unblind(study: Path, images: tuple[Path, float]) -> None:
    """Neither methods nor model, seed, probabilities or files are in it, nor anything but pixels in its pictures."""
    key, data = key_of(study), data_of(study)
    pictures = [*data.pop("pictures").values(), *data.pop("originals").values()]
    page = page_of(study)
    for uri in pictures:
        page = page.replace(uri, "")
    hidden = [*METHODS, "CAM", "Saliency", "Occlusion", MODEL.name, MODEL.identity, str(key["seed"]), "image-", ".png"]
    hidden += [f"{lesion['probability']:.4f}" for lesion in key["lesions"]]
    hidden += [lesion["sha256"][:8] for lesion in key["lesions"]]
    assert [word for word in hidden if word.lower() in page.lower()] == []
    for uri in pictures:
        png, at, chunks = decoded(uri), 8, []
        while at < len(png):
            chunks.append(png[at + 4 : at + 8].decode())
            at += 12 + int.from_bytes(png[at : at + 4], "big")
        assert set(chunks) == {"IHDR", "IDAT", "IEND"}
    assert key["page_sha256"] == hashlib.sha256(page_of(study).encode()).hexdigest()
    assert stat.S_IMODE((study / "key.json").stat().st_mode) == 0o600
    assert [each.name for each in (study / "for-readers").iterdir()] == ["questionnaire.html"]


def test_orders(study: Path) -> None:
    """Methods change their order from lesion to lesion; B is the reverse of A; codes do not sort by method."""
    key, data = key_of(study), data_of(study)
    assert data["variants"] == key["variants"]
    first, second = data["variants"]["A"], data["variants"]["B"]
    assert [page["lesion"] for page in second] == [page["lesion"] for page in first][::-1]
    for page in first:
        (other,) = [each for each in second if each["lesion"] == page["lesion"]]
        assert other["pictures"] == page["pictures"][::-1]
        assert sorted(key["pictures"][code]["method"] for code in page["pictures"]) == sorted(METHODS)
        assert {key["pictures"][code]["lesion"] for code in page["pictures"]} == {page["lesion"]}
    orders = {tuple(key["pictures"][code]["method"] for code in page["pictures"]) for page in first}
    assert len(orders) > 1
    by_code = [key["pictures"][code]["method"] for code in sorted(key["pictures"])]
    assert by_code != sorted(by_code)
    labels = {lesion["lesion"]: lesion["label"] for lesion in key["lesions"]}
    assert [labels[page["lesion"]] for page in first] not in (
        ["benign"] * 3 + ["malignant"] * 3,
        ["malignant"] * 3 + ["benign"] * 3,
    )


def test_positions_are_balanced() -> None:
    """Over many seeds each method comes first equally often."""
    places = {f"{i}-{method}": {"lesion": str(i), "method": method} for i in range(12) for method in METHODS}
    counts = dict.fromkeys(METHODS, 0)
    for seed in range(100):
        for page in reading_orders(places, np.random.default_rng(seed))["A"]:
            counts[places[page.pictures[0]]["method"]] += 1
    # Four standard deviations of 1200 draws of one in three.
    assert max(abs(n - 400) for n in counts.values()) < 4 * (1200 * 2 / 9) ** 0.5


def test_the_key_is_one_that_scoring_reads(study: Path) -> None:
    """Methods in the order of the plan, so that the first one is compared."""
    key = read_study_key((study / "key.json").read_bytes())
    assert key.methods == METHODS
    assert key.n_answers == 6 * 3 * 3
    assert key.titles["cam"] == "CAM"


def test_a_seed_makes_a_study(tmp_path: Path, images: tuple[Path, float], cases: FolderCases, study: Path) -> None:
    """The same seed makes the same page, another one another study."""
    make_reader_study(tmp_path / "same", MODEL, cases, plan(images))
    assert page_of(tmp_path / "same") == page_of(study)
    make_reader_study(tmp_path / "other", MODEL, cases, plan(images, seed=1))
    assert data_of(tmp_path / "other")["study"] != data_of(study)["study"]
    assert not data_of(tmp_path / "other")["pictures"].keys() & data_of(study)["pictures"].keys()


def test_one_variant_without_classes(tmp_path: Path, images: tuple[Path, float], cases: FolderCases) -> None:
    """The page has the variant asked for, and does not say what the program says."""
    key = make_reader_study(tmp_path, MODEL, cases, plan(images, variants="B", shows_class=False))
    assert list(key["variants"]) == list(data_of(tmp_path)["variants"]) == ["B"]
    assert "The program says" not in page_of(tmp_path)
    assert set(data_of(tmp_path)["verdicts"].values()) == {""}


def test_verdicts_are_the_classes(study: Path) -> None:
    """Readers see the class of each lesion, which the program got right."""
    data = data_of(study)
    for lesion in key_of(study)["lesions"]:
        assert data["verdicts"][lesion["lesion"]] == f"The program says: {lesion['label']}."


@pytest.mark.parametrize("lost", ["nothing", "key.json", "for-readers/questionnaire.html"])
def test_a_study_is_not_written_over(
    tmp_path: Path, images: tuple[Path, float], cases: FolderCases, study: Path, lost: str
) -> None:
    """Not even half of it: the key may lie elsewhere, or the page may have been handed out."""
    folder = Path(shutil.copytree(study, tmp_path / "study"))
    if lost != "nothing":
        (folder / lost).unlink()
    before = {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()}
    with pytest.raises(
        InvalidParameter, match=r"(key.json|questionnaire.html) must be a new file, got one that exists"
    ):
        make_reader_study(folder, MODEL, cases, plan(images, seed=5))
    assert {file: file.read_bytes() for file in folder.rglob("*") if file.is_file()} == before


def test_where_the_key_may_lie(tmp_path: Path, images: tuple[Path, float], cases: FolderCases) -> None:
    """Anywhere, except beside the page."""
    with pytest.raises(InvalidParameter, match="the key must lie outside the folder for-readers"):
        make_reader_study(tmp_path, MODEL, cases, plan(images), key_file=tmp_path / "work" / ".." / "for-readers" / "k")
    make_reader_study(tmp_path / "s", MODEL, cases, plan(images), key_file=tmp_path / "safe" / "k.json")
    assert not (tmp_path / "s" / "key.json").exists()
    assert read_study_key((tmp_path / "safe" / "k.json").read_bytes()).methods == METHODS


def test_secret_seeds(tmp_path: Path) -> None:
    """Each folder has its own, which stays, so that an interrupted study continues with the same lesions."""
    seeds = [secret_seed(tmp_path / name) for name in ("a", "b", "a", "b")]
    assert seeds[:2] == seeds[2:]
    assert seeds[0] != seeds[1]
    assert stat.S_IMODE((tmp_path / "a" / "work" / "seed").stat().st_mode) == 0o600


def test_too_few_correct_images(tmp_path: Path, images: tuple[Path, float], cases: FolderCases) -> None:
    """The error counts them by class."""
    message = "images must include 6 correctly classified ones that are benign, got 5 of 7; give more images"
    with pytest.raises(InvalidInput, match=message):
        make_reader_study(tmp_path, MODEL, cases, plan(images, n_lesions=12))
    with pytest.raises(InvalidInput, match="that are benign, got 0 of 7"):
        make_reader_study(tmp_path, MODEL, cases, plan(images, threshold=1e-9))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"methods": ("cam",)}, "methods must be 2 to 8 different names, got cam"),
        ({"methods": ()}, "methods must be 2 to 8 different names, got none"),
        ({"methods": ("cam", "cam")}, "different names, got cam, cam"),
        ({"methods": tuple("abcdefghi")}, "methods must be 2 to 8"),
        ({"n_lesions": 5}, "lesions must be an even number of at least 2, got 5"),
        ({"n_lesions": 0}, "lesions must be an even number"),
        ({"seed": -1}, "seed must be at least 0, got -1"),
        ({"variants": "C"}, "variant must be A, B or both, got 'C'"),
        ({"threshold": 1.0}, "threshold must be between 0 and 1"),
    ],
)
def test_plans_out_of_range(images: tuple[Path, float], changes: dict[str, Any], message: str) -> None:
    """They are refused before anything is computed."""
    with pytest.raises(InvalidParameter, match=message):
        plan(images, **changes)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        ("shap", "got shap: it takes too long"),
        ("beauty", "methods must be among saliency, cam, occlusion, lime, got beauty"),
    ],
)
def test_methods_that_the_model_does_not_allow(
    tmp_path: Path, images: tuple[Path, float], cases: FolderCases, method: str, message: str
) -> None:
    """The reason is that of the bundle."""
    with pytest.raises(InvalidParameter, match=message):
        make_reader_study(tmp_path, MODEL, cases, plan(images, methods=("cam", method)))


def test_a_class_among_three(tmp_path: Path) -> None:
    """Images of all other classes are not malignant, and the page says so."""
    model = replace(MODEL, classifier=EagerMember(n_outputs=3), classes=CLASSES[3])
    rng = np.random.default_rng(3)
    for name in ("normal", "benign", "malignant"):
        (tmp_path / "im" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "im" / name / f"{i}.npy").write_bytes(to_npy(rng.normal(0, 1, (40, 30)).astype(np.float32)))
    found = FolderCases(tmp_path / "im", model)
    assert found.labels.tolist() == [0] * 8 + [1] * 4
    probability = model.probability(torch.stack([found[i].image for i in range(12)])).numpy()
    threshold = float(np.median(probability))
    key = make_reader_study(
        tmp_path / "s", model, found, ReaderStudy(("cam", "saliency"), n_lesions=2, threshold=threshold)
    )
    assert sorted(lesion["label"] for lesion in key["lesions"]) == ["malignant", "not malignant"]
    assert "The program says: not malignant." in page_of(tmp_path / "s")


class TestFolder:
    """Folders of labelled images."""

    PIXELS = np.random.default_rng(0).integers(0, 255, (2, 40, 30)).astype(np.uint8)

    def put(self, root: Path, *files: tuple[str, int]) -> Path:
        """Write images by name."""
        for name, number in files:
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(to_png(self.PIXELS[number]))
        return root

    def test_equal_images_count_once(self, tmp_path: Path) -> None:
        """Readers must not see a lesion twice; hidden files are skipped."""
        root = self.put(tmp_path, ("benign/a.png", 0), ("benign/sub/b.png", 0), ("malignant/c.png", 1))
        (root / "benign" / ".DS_Store").write_bytes(b"x")
        found = FolderCases(root, MODEL)
        assert [found.key(i)["file"] for i in range(len(found))] == ["benign/a.png", "malignant/c.png"]
        assert [found[i].label for i in range(2)] == found.labels.tolist() == [0, 1]

    def test_an_image_of_two_classes(self, tmp_path: Path) -> None:
        """Its class is not known."""
        root = self.put(tmp_path, ("benign/a.png", 0), ("malignant/b.png", 0))
        with pytest.raises(InvalidInput, match=r"an image must have one class, got benign and malignant for b.png"):
            FolderCases(root, MODEL)

    def test_folders_of_other_names(self, tmp_path: Path) -> None:
        """The error names the classes."""
        root = self.put(tmp_path, ("malignant/a.png", 0), ("healthy/b.png", 1))
        message = "a folder of images named malignant and one of another class of benign, malignant, got malignant"
        with pytest.raises(InvalidInput, match=message):
            FolderCases(root, MODEL)

    def test_a_file_that_is_not_an_image(self, tmp_path: Path) -> None:
        """It is named."""
        root = self.put(tmp_path, ("benign/a.png", 0), ("malignant/b.png", 1))
        (root / "benign" / "notes.txt").write_text("benign, of course")
        with pytest.raises(InvalidInput, match=r"benign/notes.txt: "):
            FolderCases(root, MODEL)
