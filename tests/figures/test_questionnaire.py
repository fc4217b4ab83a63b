"""The questionnaire of a reader study as a page, and filled in by a browser."""

import base64
import hashlib
import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from browser import Browser, browsing, needs_browser, saved

from radlens.errors import InvalidInput
from radlens.evaluation.reader_answers import KEY_FORMAT, StudyKey, read_sheet, read_study_key
from radlens.evaluation.reader_study import CRITERIA
from radlens.figures.questionnaire import LesionPage, Questionnaire, questionnaire_page
from radlens.images import to_png

LESIONS = ("1a", "2b", "3c")
PICTURES = {"1a": ("11", "12"), "2b": ("21", "22"), "3c": ("31", "32")}
VARIANTS = {
    "A": [LesionPage(lesion, PICTURES[lesion]) for lesion in LESIONS],
    "B": [LesionPage(lesion, PICTURES[lesion][::-1]) for lesion in LESIONS[::-1]],
}


def picture(number: int) -> bytes:
    """Return a picture of one colour."""
    return to_png(np.full((24, 24, 3), (number * 40 % 256, 90, 255 - number * 7 % 256), dtype=np.uint8))


CONTENT = Questionnaire(
    study="0123abcd",
    title="Which is better? </script><b>",
    introduction=("Look at <each> picture.", "Then answer."),
    legend="Red speaks for malignant.",
    originals={lesion: picture(i) for i, lesion in enumerate(LESIONS)},
    verdicts=dict.fromkeys(LESIONS, "The program says: benign."),
    pictures={code: picture(int(code)) for codes in PICTURES.values() for code in codes},
    variants=VARIANTS,
)


def key(study: str) -> StudyKey:
    """Return the key of the study: the first picture of a lesion is of cam, the second of shap."""
    document = {
        "format": KEY_FORMAT,
        "version": 1,
        "study": study,
        "criteria": dict(CRITERIA),
        "methods": {"cam": {"title": "CAM"}, "shap": {"title": "SHAP"}},
        "lesions": [{"lesion": lesion, "label": "benign"} for lesion in LESIONS],
        "pictures": {
            code: {"lesion": lesion, "method": ("cam", "shap")[i]}
            for lesion, codes in PICTURES.items()
            for i, code in enumerate(codes)
        },
        "variants": {"A": [], "B": []},
    }
    return read_study_key(json.dumps(document).encode())


def data_of(page: str) -> dict:
    """Return the data in a page."""
    (found,) = re.findall(r'<script type="application/json" id="study">(.*?)</script>', page, re.S)
    return json.loads(found)


def test_the_page_holds_everything_and_reaches_for_nothing():
    """No address but those of data; the policy allows the script by its hash, and no connection."""
    page = questionnaire_page(CONTENT)
    assert not re.search(r"https?:|//[a-z]|\bsrc=|\bhref=|@import|url\(", re.sub(r"/\*.*?\*/", "", page, flags=re.S))
    (policy,) = re.findall(r'Content-Security-Policy" content="([^"]*)"', page)
    (script,) = re.findall(r"<script>(.*?)</script>", page, re.S)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert f"script-src 'sha256-{digest}';" in policy
    assert "connect-src" not in policy


def test_texts_are_escaped():
    """A title cannot end the data or become an element."""
    page = questionnaire_page(CONTENT)
    assert data_of(page)["title"] == CONTENT.title
    assert data_of(page)["introduction"] == list(CONTENT.introduction)
    assert page.count("</script>") == 2
    assert "<b>" not in page
    assert "<title>Which is better? &lt;/script&gt;&lt;b&gt;</title>" in page


def test_pictures_are_sorted_by_code():
    """Their order in the file says nothing; both variants share them."""
    shuffled = replace(CONTENT, pictures=dict(reversed(CONTENT.pictures.items())))
    found = data_of(questionnaire_page(shuffled))
    assert list(found["pictures"]) == sorted(found["pictures"])
    assert questionnaire_page(shuffled) == questionnaire_page(CONTENT)
    assert {name: [page["lesion"] for page in pages] for name, pages in found["variants"].items()} == {
        "A": ["1a", "2b", "3c"],
        "B": ["3c", "2b", "1a"],
    }


@pytest.mark.parametrize(
    "variants",
    [
        {},
        {"A": VARIANTS["A"][:2]},
        {"A": [*VARIANTS["A"], VARIANTS["A"][0]]},
        {"A": [LesionPage(lesion, PICTURES[lesion][:1]) for lesion in LESIONS]},
    ],
)
def test_incomplete_variants(variants):
    """A variant shows each lesion and each picture once."""
    with pytest.raises(InvalidInput, match="variant"):
        replace(CONTENT, variants=variants)


def test_a_picture_that_is_not_a_png():
    """It is refused."""
    with pytest.raises(InvalidInput, match="picture must be a PNG"):
        questionnaire_page(replace(CONTENT, originals=dict.fromkeys(LESIONS, b"GIF89a")))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """One browser for this file."""
    with browsing(tmp_path_factory.mktemp("browser")) as found:
        yield found


class Page(NamedTuple):
    """A questionnaire in a file, of a study of its own: stored answers of other tests are not for it."""

    file: Path
    study: str


@pytest.fixture
def page(browser: Browser, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Page]:
    """A new page, opened in the browser; afterwards no error is in the console."""
    study = hashlib.sha256(request.node.nodeid.encode()).hexdigest()[:8]
    file = tmp_path / "questionnaire.html"
    file.write_text(questionnaire_page(replace(CONTENT, study=study)), encoding="utf-8")
    browser.open(file)
    yield Page(file, study)
    assert browser.console() == []


def score_of(code: str, criterion: str) -> int:
    """Return a score for each question, all nine of them."""
    return (int(code) * 3 + list(CRITERIA).index(criterion) * 2) % 9 - 4


def begin(browser: Browser, reader: str, variant: str = "A") -> None:
    """Fill in the first page."""
    browser.click("#reader")
    browser.type(reader)
    browser.click(f"input[value={variant}]")
    browser.click("button[type=submit]")


def answer(browser: Browser, code: str, criterion: str, score: int) -> None:
    """Click a score."""
    browser.click(f'input[name="{code} {criterion}"][value="{score}"]')


def answer_lesion(browser: Browser, lesion: str) -> None:
    """Click the scores of all pictures of a lesion."""
    for code in PICTURES[lesion]:
        for criterion in CRITERIA:
            answer(browser, code, criterion, score_of(code, criterion))


def given(browser: Browser) -> dict[str, int]:
    """Return the scores that the page shows, by question."""
    code = (
        "return Object.fromEntries([...document.querySelectorAll('.scale input:checked')].map(e => [e.name, +e.value]))"
    )
    return browser.script(code)


@needs_browser
@pytest.mark.parametrize("variant", ["A", "B"])
def test_a_questionnaire_is_filled_in(browser: Browser, page: Page, variant: str) -> None:
    """From the name to the file, in the order of the variant; each score is scored at its lesion and method."""
    begin(browser, "Ann Bee", variant)
    for number, shown in enumerate(VARIANTS[variant]):
        assert browser.text("h1") == f"Lesion {number + 1} of 3"
        assert browser.text("#progress span") == f"Lesion {number + 1} of 3, {6 * number} of 18 answers given"
        sources = browser.script("return [...document.querySelectorAll('section img')].map((each) => each.src)")
        assert [base64.b64decode(each.partition(",")[2]) for each in sources] == [
            CONTENT.pictures[code] for code in shown.pictures
        ]
        answer_lesion(browser, shown.lesion)
        browser.click("#next")
    assert browser.text("h1") == "All answers are given"
    browser.click("#save")
    document = saved(browser, f"answers-{page.study}-{variant}-Ann-Bee.json")
    assert f"answers-{page.study}-" in browser.text("#status")
    sheet = read_sheet("answers.json", json.dumps(document).encode(), key(page.study))
    assert (sheet.reader, sheet.variant, sheet.n_answers, sheet.left_out) == ("Ann Bee", variant, 18, ())
    assert sheet.saved > document["started"]
    assert len(sheet.session) == 32
    for code, (lesion, method) in key(page.study).pictures.items():
        for i, criterion in enumerate(CRITERIA):
            assert sheet.scores[lesion, i, method] == score_of(code, criterion)


@needs_browser
def test_the_keyboard_is_enough(browser: Browser, page: Page) -> None:
    """Tab, arrows, space and Enter lead through the whole page; the focus is where the page goes on."""
    browser.script("document.getElementById('reader').focus()")
    browser.type("ann")
    for key_pressed in ("tab", "space", "tab", "enter"):
        browser.type(key_pressed)
    assert browser.script("return document.activeElement.id") == "heading"
    for lesion in LESIONS:
        for code in PICTURES[lesion]:
            for criterion in CRITERIA:
                browser.type("tab")
                browser.type("space")
                for _ in range(score_of(code, criterion) + 4):
                    browser.type("right")
        for _ in range(3 if lesion != "1a" else 2):  # "Back" is disabled on the first lesion
            if browser.script("return document.activeElement.id") != "next":
                browser.type("tab")
        assert given(browser) == {f"{c} {n}": score_of(c, n) for c in PICTURES[lesion] for n in CRITERIA}
        browser.type("enter")
    assert browser.text("h1") == "All answers are given"
    while browser.script("return document.activeElement.id") != "save":
        browser.type("tab")
    browser.type("enter")
    assert len(saved(browser, f"answers-{page.study}-A-ann.json")["answers"]) == 18


@needs_browser
def test_a_reload_keeps_everything(browser: Browser, page: Page) -> None:
    """Page, answers and reader; also after the page was left; an answer that is changed is the last one."""
    begin(browser, "ann")
    answer_lesion(browser, "1a")
    browser.click("#next")
    answer(browser, "21", "quality", -4)
    answer(browser, "21", "quality", 3)
    browser.reload()
    assert browser.text("#progress span") == "Lesion 2 of 3, 7 of 18 answers given"
    assert given(browser) == {"21 quality": 3}
    browser.open(Path("/dev/null"))
    browser.open(page.file)
    assert given(browser) == {"21 quality": 3}
    browser.click("#save")
    document = saved(browser, f"answers-{page.study}-A-ann.json")
    assert len(document["answers"]) == 7
    assert [each["score"] for each in document["answers"] if each["picture"] == "21"] == [3]


@needs_browser
def test_open_answers_are_asked_for_once(browser: Browser, page: Page) -> None:
    """The first attempt leads to the first open question, the second goes on; the end lists the lesions."""
    begin(browser, "ann")
    answer(browser, "11", "intuitivity", 0)
    browser.click("#next")
    assert browser.text("#status").startswith("5 answers to this lesion are open.")
    assert browser.script("return document.activeElement.name") == "11 semantics"
    browser.click("#next")
    assert browser.text("h1") == "Lesion 2 of 3"
    answer_lesion(browser, "2b")
    browser.click("#next")
    browser.click("#next")
    browser.click("#next")
    assert browser.text("h1") == "Some answers are open"
    assert browser.text("ul.open").splitlines() == ["Lesion 1: 5 open", "Lesion 3: 6 open"]
    browser.click("ul.open li:first-child button")
    assert given(browser) == {"11 intuitivity": 0}


@needs_browser
def test_names_for_screen_readers(browser: Browser, page: Page) -> None:
    """What the browser tells assistive technology: every score, question, picture and the progress has a name."""
    begin(browser, "ann")
    nodes = browser.devtools("Accessibility.getFullAXTree")["nodes"]
    names: dict[str, list[str]] = {}
    for node in nodes:
        if not node.get("ignored"):
            names.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", ""))
    assert len(names["radio"]) == 2 * 3 * 9
    assert names["radio"][:9] == ["−4, lowest", "−3", "−2", "−1", "0", "1", "2", "3", "4, highest"]
    groups = [name for name in names["group"] if name.startswith("Picture")]
    assert groups[:2] == [
        "Picture 1, intuitive validity: Does it look reasonable?",
        "Picture 1, semantic meaningfulness: Does it make sense?",
    ]
    assert len(groups) == 6
    assert names["image"] == [
        "Lesion 1, the image itself",
        "Lesion 1, picture 1: the image with a coloured explanation",
        "Lesion 1, picture 2: the image with a coloured explanation",
    ]
    progress = [node for node in nodes if node["role"]["value"].lower().startswith("progress")]
    assert [node["name"]["value"] for node in progress] == ["Answers given"]
    assert all(names["button"])


@needs_browser
def test_the_variant_of_the_invitation(browser: Browser, page: Page) -> None:
    """The address chooses it; who has begun one cannot go on with the other; a name is asked for."""
    browser.click("button[type=submit]")
    assert browser.text("#status").startswith("Please give a name")
    browser.click("#reader")
    browser.type("=1")
    browser.click("button[type=submit]")
    assert browser.text("#status").startswith("Please give a name")
    browser.open(Path("/dev/null"))
    browser.open(page.file, "#B")
    browser.click("#reader")
    browser.type("ann")
    browser.type("enter")
    assert (
        browser.script("return document.querySelector('.original img').src")
        == data_of(page.file.read_text())["originals"]["3c"]
    )
    for _ in range(6):
        browser.click("#next")
    browser.click("#other")
    begin(browser, "Ann", "A")
    assert "has begun questionnaire B in this browser" in browser.text("#status")
    browser.click("input[value=B]")
    browser.click("button[type=submit]")
    assert browser.text("h1") == "Some answers are open"


@needs_browser
def test_who_leaves_while_it_writes_is_asked(browser: Browser, page: Page) -> None:
    """A browser may drop an answer that it has not written; afterwards nobody is asked."""
    begin(browser, "ann")
    leave = "const event = new Event('beforeunload', {cancelable: true}); return !window.dispatchEvent(event);"
    assert browser.script(f"document.querySelector('input[name=\"11 quality\"]').click(); {leave}") is True
    browser.reload()
    assert list(given(browser)) == ["11 quality"]
    assert browser.script(leave) is False


@needs_browser
def test_two_readers_in_one_browser(browser: Browser, page: Page) -> None:
    """Each has answers of their own, in files of their own."""
    sessions = set()
    for reader, lesion in (("ann", "1a"), ("bea", "3c")):
        begin(browser, reader, "A" if lesion == "1a" else "B")
        answer_lesion(browser, lesion)
        for _ in range(5):
            browser.click("#next")
        browser.click("#save")
        document = saved(browser, f"answers-{page.study}-{'A' if lesion == '1a' else 'B'}-{reader}.json")
        assert {each["picture"] for each in document["answers"]} == set(PICTURES[lesion])
        sessions.add(document["session"])
        browser.click("#other")
    assert len(sessions) == 2


@needs_browser
def test_two_windows_of_one_reader(browser: Browser, page: Page) -> None:
    """An answer in one window does not undo that in another."""
    begin(browser, "ann")
    with browser.other_window():
        browser.open(page.file)
        answer(browser, "12", "quality", 1)
    answer(browser, "11", "quality", 2)
    browser.click("#save")
    document = saved(browser, f"answers-{page.study}-A-ann.json")
    assert {each["picture"]: each["score"] for each in document["answers"]} == {"12": 1, "11": 2}
    browser.reload()
    assert given(browser) == {"12 quality": 1, "11 quality": 2}


@needs_browser
def test_a_browser_that_stores_nothing(browser: Browser, page: Page) -> None:
    """The reader is warned, and can answer and save."""
    code = "IDBObjectStore.prototype.put = () => { throw new DOMException('full', 'QuotaExceededError'); }"
    number = browser.devtools("Page.addScriptToEvaluateOnNewDocument", source=code)["identifier"]
    try:
        browser.reload()
        assert browser.text("#not-stored").startswith("This browser does not keep your answers")
        begin(browser, "ann")
        answer_lesion(browser, "1a")
        browser.click("#next")
        browser.click("#save")
        assert len(saved(browser, f"answers-{page.study}-A-ann.json")["answers"]) == 6
    finally:
        browser.devtools("Page.removeScriptToEvaluateOnNewDocument", identifier=number)


@needs_browser
def test_nothing_leaves_the_page(browser: Browser, page: Page) -> None:
    """It loads data alone, works offline, and the browser forbids connections."""
    browser.devtools(
        "Network.emulateNetworkConditions", offline=True, latency=0, downloadThroughput=0, uploadThroughput=0
    )
    try:
        browser.reload()
        begin(browser, "ann")
        loaded = browser.script("return performance.getEntriesByType('resource').map((each) => each.name)")
        assert [name for name in loaded if not name.startswith("data:")] == []
        assert browser.script("return document.querySelectorAll('img').length") == 3
        assert browser.script("return [...document.images].every((each) => each.naturalWidth === 24)")
    finally:
        browser.devtools(
            "Network.emulateNetworkConditions", offline=False, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )
    tried = "return fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)"
    assert browser.script(tried) == "TypeError"
    assert any("Content Security Policy" in message for message in browser.console())


@needs_browser
@pytest.mark.parametrize("width", [360, 800, 1500])
def test_the_page_fits_its_window(browser: Browser, page: Page, width: int) -> None:
    """Nothing is cut off at the right, on a phone either."""
    browser.devtools(
        "Emulation.setDeviceMetricsOverride", width=width, height=800, deviceScaleFactor=1, mobile=width < 500
    )
    try:
        begin(browser, "ann")
        assert browser.script("return document.documentElement.scrollWidth <= window.innerWidth")
        clipped = "return [...document.querySelectorAll('.scores')].some((each) => each.scrollWidth > each.clientWidth)"
        assert not browser.script(clipped)
    finally:
        browser.devtools("Emulation.clearDeviceMetricsOverride")
