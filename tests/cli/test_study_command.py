"""``radlens study make`` and ``score``."""

import csv
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from browser import browsing, needs_browser, saved
from labelled_images import make_images
from made_once import copied
from PIL import Image
from simulated_readers import encoded, make_answers, make_key, reader_with_effect
from small_classifier import make_classifier
from study_runs import make_run, small_studies

from radlens.studies import Store, bundle_model, examine, open_cases, run_model, source_of

EFFECT = {"cam": 1.5, "saliency": -1.5}

THRESHOLD = "threshold.txt"


def make(folder: Path) -> None:
    """Write a bundle, images, and the threshold at which it classifies some of them correctly."""
    make_classifier(folder / "bundle", n_outputs=2)
    threshold = make_images(folder / "images", bundle_model(folder / "bundle"))
    (folder / THRESHOLD).write_text(repr(threshold))


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with images."""
    return copied("labelled-images", make, tmp_path_factory.mktemp("given") / "study")


@pytest.fixture
def options(given: Path) -> tuple[Any, ...]:
    """Options of a small study."""
    model = ("--bundle", given / "bundle", "--images", given / "images", "--threshold", (given / THRESHOLD).read_text())
    return (*model, "--methods", "cam,saliency", "--lesions", 4)


def answered(key: dict[str, Any], reader: str, seed: int, variant: str = "A") -> str:
    """Write the answers of a simulated reader and return the name of the file."""
    name = f"{reader}.json"
    Path(name).write_bytes(encoded(make_answers(key, reader, reader_with_effect(EFFECT, seed), variant)))
    return name


def test_a_study_from_images_to_tables(run: Callable[..., Any], options: tuple[Any, ...]) -> None:
    """Make, answer, score: the known effect of the readers is in the tables, which are written."""
    result = run("study", "make", "study", *options)
    assert result.exit_code == 0, result.stderr
    assert re.search(r"Study [0-9a-f]{8}: 4 lesions, CAM, Saliency; 24 answers per reader", result.stdout)
    assert "for readers: study/for-readers/questionnaire.html" in result.stderr
    key = json.loads(Path("study/key.json").read_text())
    files = [answered(key, f"r{i}", i, "AB"[i % 2]) for i in range(6)]
    result = run("study", "score", *files, "--key", "study/key.json", "-o", "results")
    assert result.exit_code == 0, result.stderr
    assert "6 readers (3 of A, 3 of B), lesions: 2 benign, 2 malignant" in result.stdout
    found = json.loads(Path("results/results.json").read_text())
    for criterion in ("intuitivity", "semantics", "quality"):
        means = found["tables"]["raw"]["means"][criterion]
        assert {name: each["mean"] for name, each in means.items()} == pytest.approx(EFFECT, abs=0.5)
        assert found["tables"]["raw"]["tests"][criterion]["saliency"]["p_paper"] < 0.01
    lines = [" ".join(line.replace("│", " ").split()) for line in result.stdout.splitlines()]
    cam = found["tables"]["raw"]["means"]["quality"]["cam"]
    assert any(
        line.startswith("CAM") and f"{cam['mean']:.2f} [{cam['low']:.2f}, {cam['high']:.2f}]" in line for line in lines
    )
    for title in (
        "Raw scores",
        "(Table 3 by the text",
        "(Table 3 as printed)",
        "Ranks",
        "p, t(N-2)",
        "eq. (7)",
        "t(4)",
    ):
        assert title in result.stdout
    assert f"Kaiser-Meyer-Olkin {found['kmo']:.3f}" in result.stdout
    with Path("results/answers.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert len(rows) == 6 * 24
    assert {(row["lesion"], row["class"]) for row in rows} == {
        (each["lesion"], each["label"]) for each in key["lesions"]
    }
    assert Path("results/tables.csv").read_text().startswith("table,criterion,method,mean,")
    for name in ("scores", "criteria", "preference"):
        with Image.open(f"results/{name}.png") as picture:
            assert picture.width > 600


def test_what_cannot_be_scored_is_named(run: Callable[..., Any]) -> None:
    """A damaged file, answers of another study, a missing and a double answer: warnings, and the rest is scored."""
    key = make_key()
    Path("key.json").write_bytes(encoded(key))
    effect = {"cam": 1.0, "shap": 0.0, "lime": -1.0}
    for i, name in enumerate(("ann", "bea", "cid")):
        document = make_answers(key, name, reader_with_effect(effect, i))
        if name == "bea":
            document["answers"].append({**document["answers"][0], "score": document["answers"][0]["score"] - 5})
        if name == "cid":
            del document["answers"][0]
        Path(f"{name}.json").write_bytes(encoded(document))
    Path("other.json").write_bytes(encoded(make_answers(key, "dan", lambda *_: 1, study="ffffffff")))
    Path("torn.json").write_bytes(Path("ann.json").read_bytes()[:500])
    result = run("study", "score", "ann.json", "bea.json", "cid.json", "other.json", "torn.json", "--key", "key.json")
    assert result.exit_code == 0, result.stderr
    assert "3 readers (3 of A)" in result.stdout
    warnings = [line for line in result.stderr.splitlines() if line.startswith("warning: ")]
    assert [line.split(": ")[1] for line in warnings] == ["other.json", "torn.json", "bea.json", "bea.json", "cid.json"]
    assert "answers must be to study 0123abcd, got 'ffffffff'" in warnings[0]
    assert "a file of answers must be JSON, got another or a damaged file" in warnings[1]


def test_one_variant(run: Callable[..., Any]) -> None:
    """There is no order to compare; numbers that are not defined are dashes."""
    key = make_key()
    del key["variants"]["B"]
    Path("key.json").write_bytes(encoded(key))
    Path("ann.json").write_bytes(encoded(make_answers(key, "ann", lambda *_: 1)))
    result = run("study", "score", "ann.json", "--key", "key.json")
    assert result.exit_code == 0, result.stderr
    assert "Order effects: the study has one variant." in result.stdout
    assert "1.00 [-, -]" in result.stdout
    assert "first factor: not defined" in result.stdout


def test_nothing_to_score(run: Callable[..., Any]) -> None:
    """One line and exit code 2."""
    Path("key.json").write_bytes(encoded(make_key()))
    Path("a.json").write_text("[]")
    result = run("study", "score", "a.json", "--key", "key.json")
    assert result.exit_code == 2
    assert "at least one file of answers must be readable, got none; a.json: left out" in result.stderr
    result = run("study", "score", "a.json", "--key", "a.json")
    assert (result.exit_code, result.stderr[:21]) == (2, "error: a.json: a key ")
    result = run("study", "score", "key.json", "--key", "key.json", "--reference", "omig")
    assert result.exit_code == 2


def test_simulated_images_of_a_training_run(run: Callable[..., Any], tmp_path: Path) -> None:
    """Without a folder images are simulated, those of the model's kind; the key has their seeds."""
    with small_studies():
        make_run(tmp_path / "run", "ultrasound-resnet")
        model, store = run_model(tmp_path / "run"), Store(tmp_path / "cases")
        cases = open_cases(source_of(model, n_simulated=12), store, n_workers=1)
        # The network learnt for a second and calls nothing malignant at 0.5.
        threshold = float(examine(model, cases, store).probability.mean())
        how = ("--run", "run", "--engine", "eager", "--methods", "cam,saliency", "--lesions", 2, "--simulated", 12)
        result = run("study", "make", "study", *how, "--threshold", threshold)
    assert result.exit_code == 0, result.stderr
    key = json.loads(Path("study/key.json").read_text())
    assert key["model"]["title"] == "ResNet-18"
    known = {cases[i].key["seed"][-1]: int(cases.labels[i]) for i in range(len(cases))}
    for lesion in key["lesions"]:
        assert known[lesion["image"]["seed"][-1]] == (lesion["label"] == "malignant")


def test_a_model_that_does_not_state_its_images(run: Callable[..., Any], given: Path) -> None:
    """They must be given, or their kind."""
    result = run("study", "make", "s", "--bundle", given / "bundle", "--methods", "cam,saliency", "--lesions", 2)
    assert result.exit_code == 2
    assert "task must be one of patches, mammograms, ultrasound, nodules" in result.stderr


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        (("--run", "."), "give one of --bundle and --run, got both"),
        (("--simulated", 8), "--images excludes --data, --root and --simulated, got both"),
        (("--variant", "C"), "--variant must be one of A, B, both"),
        (("--part", "half"), "--part must be one of test, all"),
        (("--lesions", 3), "lesions must be an even number"),
        (("--methods", "cam"), "methods must be 2 to 8 different names, got cam"),
        (("--methods", "cam,shap,beauty"), "methods must be among"),
    ],
)
def test_refusals(run: Callable[..., Any], options: tuple[Any, ...], changed: tuple[Any, ...], message: str) -> None:
    """One line and exit code 2; no page."""
    result = run("study", "make", "study", *options, *changed)
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.stderr.split())
    assert not Path("study/for-readers").exists()


def test_a_model_is_needed(run: Callable[..., Any]) -> None:
    """One line."""
    result = run("study", "make", "study", "--methods", "cam,shap")
    assert (result.exit_code, result.stderr) == (2, "error: give one of --bundle and --run, got none\n")


def test_a_study_is_not_written_over(run: Callable[..., Any], options: tuple[Any, ...]) -> None:
    """The same command again does not destroy a key."""
    assert run("study", "make", "study", *options).exit_code == 0
    before = Path("study/key.json").read_bytes()
    result = run("study", "make", "study", *options)
    assert result.exit_code == 2
    assert "questionnaire.html must be a new file" in " ".join(result.stderr.split())
    assert Path("study/key.json").read_bytes() == before


def test_help_flows(run: Callable[..., Any]) -> None:
    """Paragraphs are wrapped to the terminal, not broken as in the source."""
    text = " ".join(run("study", "make", "--help").stdout.split())
    assert "Does it look reasonable? Does it make sense? Does it look good?" in text
    assert "radlens study score ANSWERS" not in text
    assert "make" in run("study").output


@pytest.mark.slow
@needs_browser
def test_readers_with_a_browser(run: Callable[..., Any], options: tuple[Any, ...], tmp_path: Path) -> None:
    """Two readers fill in the page of the command; the command scores their files to what they clicked."""
    assert run("study", "make", "study", *options).exit_code == 0
    key = json.loads(Path("study/key.json").read_text())
    score = {
        "cam": {"intuitivity": 3, "semantics": 2, "quality": -1},
        "saliency": {"intuitivity": -4, "semantics": -2, "quality": 4},
    }
    files = []
    with browsing(tmp_path / "browser") as browser:
        for reader, variant in (("ann", "A"), ("bea", "B")):
            browser.open(tmp_path / "study" / "for-readers" / "questionnaire.html", f"#{variant}")
            browser.reload()
            browser.click("#reader")
            browser.type(reader)
            browser.click(f"input[value={variant}]")
            browser.type("enter")
            for page in key["variants"][variant]:
                for code in page["pictures"]:
                    for criterion, value in score[key["pictures"][code]["method"]].items():
                        browser.click(f'input[name="{code} {criterion}"][value="{value}"]')
                browser.click("#next")
            browser.click("#save")
            name = f"answers-{key['study']}-{variant}-{reader}.json"
            saved(browser, name)
            files.append(browser.downloads / name)
            browser.click("#other")
        assert browser.console() == []
    result = run("study", "score", *files, "--key", "study/key.json", "-o", "results")
    assert result.exit_code == 0, result.stderr
    assert "warning" not in result.stderr
    found = json.loads(Path("results/results.json").read_text())["tables"]["raw"]["means"]
    assert {m: {c: found[c][m]["mean"] for c in found} for m in score} == score
