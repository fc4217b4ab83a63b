"""Files of answers and keys of reader studies: what cannot be scored is named, and the rest is scored."""

import numpy as np
import pytest
from simulated_readers import METHODS, STUDY, encoded, make_answers, make_key, reader_with_effect

from radlens.errors import InvalidInput
from radlens.evaluation.reader_answers import collect_readings, read_sheet, read_study_key

KEY_DOCUMENT = make_key()
KEY = read_study_key(encoded(KEY_DOCUMENT))

N_ANSWERS = 4 * 3 * 3


def two(lesion, criterion, method):
    """Answer with 2."""
    return 2


def answers(reader="ann", score=two, **changes):
    """Return the answers of a reader."""
    return make_answers(KEY_DOCUMENT, reader, score, **changes)


def collected(*documents):
    """Read files with the names a.json, b.json and so on."""
    files = [(f"{'abcdef'[i]}.json", encoded(document)) for i, document in enumerate(documents)]
    return collect_readings(files, KEY)


def test_a_key_is_read():
    """Places of pictures, in the order of lesions and methods."""
    assert (KEY.study, KEY.methods, KEY.variants) == (STUDY, tuple(METHODS), ("A", "B"))
    assert KEY.labels == ("benign", "malignant", "benign", "malignant")
    assert KEY.pictures["l2-shap"] == (2, 1)
    assert KEY.n_answers == N_ANSWERS


def test_answers_find_their_place():
    """Each score stands at its lesion, criterion and method."""
    scores = {}

    def score(lesion, criterion, method):
        scores[lesion, criterion, method] = len(scores) % 9 - 4
        return scores[lesion, criterion, method]

    sheet = read_sheet("a.json", encoded(answers(score=score, variant="B")), KEY)
    assert (sheet.reader, sheet.variant, sheet.n_answers, sheet.left_out) == ("ann", "B", N_ANSWERS, ())
    for (lesion, criterion, method), value in scores.items():
        place = KEY.lesions.index(lesion), KEY.criteria.index(criterion), KEY.methods.index(method)
        assert sheet.scores[place] == value


def test_readers_stand_by_name_and_variant():
    """Whatever the order of the files."""
    found = collected(answers("bea", variant="B"), answers("Ann"), answers("cid"))
    assert [sheet.reader for sheet in found.sheets] == ["Ann", "bea", "cid"]
    assert found.of_variant("B").tolist() == [False, True, False]
    assert found.scores.shape == (3, 4, 3, 3)
    assert found.left_out == ()


def test_missing_answers_are_counted():
    """The others are scored."""
    found = collected(answers(score=lambda lesion, criterion, method: None if lesion == "l1" else 1), answers("bea"))
    assert found.left_out == ("a.json: 9 of 36 answers of reader ann are missing",)
    assert np.isnan(found.scores[0, 1]).all()
    assert np.isfinite(found.scores).sum() == 2 * N_ANSWERS - 9


def test_a_byte_order_mark_is_no_damage():
    """Some editors write one."""
    assert read_sheet("a.json", b"\xef\xbb\xbf" + encoded(answers()), KEY).n_answers == N_ANSWERS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "a file of answers must be JSON"),
        (b"\x89PNG\r\n", "a file of answers must be JSON"),
        (encoded(answers())[:-20], "a file of answers must be JSON, got another or a damaged file"),
        (b"[" * 100_000, "a file of answers must be JSON"),
        (b"[]", "must have the format 'radlens reader study: answers', got nothing"),
        (
            encoded(KEY_DOCUMENT),
            "must have the format 'radlens reader study: answers', got 'radlens reader study: key'",
        ),
        (encoded(answers(version=2)), "must have version 1, got 2"),
        (encoded(answers(study="ffff0000")), f"answers must be to study {STUDY}, got 'ffff0000'"),
        (encoded(answers(reader="")), "reader must be 1 to 40 letters"),
        (encoded(answers(reader="=1+1")), "reader must be 1 to 40 letters"),
        (encoded(answers(reader=7)), "reader must be 1 to 40 letters"),
        (encoded(answers(variant="C")), "variant must be one of A, B, got 'C'"),
        (encoded(answers(variant=["A"])), "variant must be one of A, B"),
        (encoded(answers(answers={})), "answers must be a list"),
    ],
)
def test_a_file_without_answers_to_the_study(content, message):
    """It is named and left out, and the other file is scored."""
    with pytest.raises(InvalidInput) as error:
        read_sheet("a.json", content, KEY)
    assert message in str(error.value)
    found = collect_readings([("a.json", content), ("b.json", encoded(answers("bea")))], KEY)
    (sentence,) = found.left_out
    assert sentence.startswith("a.json: left out, ")
    assert message in sentence
    assert [sheet.reader for sheet in found.sheets] == ["bea"]


@pytest.mark.parametrize("score", [5, -5, 1.5, 2.0, "2", True, None, [1], 10**30])
def test_scores_outside_the_scale(score):
    """They are left out, and count as missing."""
    document = answers()
    document["answers"][4]["score"] = score
    found = collected(document)
    assert (
        "a.json: scores that are not whole numbers from -4 to 4 are left out: l0-shap semantics has"
        in found.left_out[0]
    )
    assert found.left_out[1] == "a.json: 1 of 36 answers of reader ann are missing"
    assert np.isnan(found.scores[0, 0, 1, 1])
    assert np.isfinite(found.scores).sum() == N_ANSWERS - 1


def test_answers_to_unknown_pictures():
    """Long lists are cut short."""
    document = answers()
    for i in range(7):
        document["answers"][i]["picture"] = f"x{i}"
    document["answers"][7]["criterion"] = "beauty"
    found = collected(document)
    assert (
        "answers to pictures or criteria that the key does not know are left out: 'x0' 'intuitivity'"
        in found.left_out[0]
    )
    assert found.left_out[0].endswith("and 3 more")
    assert np.isfinite(found.scores).sum() == N_ANSWERS - 8


def test_answers_without_their_parts():
    """A line of a damaged file is left out."""
    document = answers()
    document["answers"][:2] = [7, {"picture": "l0-cam"}]
    found = collected(document)
    assert found.left_out[0] == "a.json: answers without picture, criterion and score are left out: 2"
    assert np.isfinite(found.scores).sum() == N_ANSWERS - 2


def test_double_answers():
    """Equal ones count once, different ones do not count; both are named."""
    document = answers()
    document["answers"] += [document["answers"][0], {**document["answers"][1], "score": -3}]
    found = collected(document)
    assert found.left_out == (
        "a.json: questions with several different answers are left out: l0-cam semantics has 2, -3",
        "a.json: questions have the same answer more than once, which counts once: l0-cam intuitivity",
        "a.json: 1 of 36 answers of reader ann are missing",
    )
    assert found.scores[0, 0, :, 0].tolist()[0] == 2
    assert np.isnan(found.scores[0, 0, 1, 0])


def test_a_reader_who_saved_again():
    """The last file counts, whatever the order of the files."""
    early = answers(score=lambda lesion, criterion, method: 0 if lesion == "l0" else None)
    late = answers("Ann", saved="2026-01-02T08:00:00.000Z", session=early["session"])
    for documents in ((early, late), (late, early)):
        found = collected(*documents)
        (sheet,) = found.sheets
        assert sheet.n_answers == N_ANSWERS
        (sentence,) = found.left_out
        assert "left out, reader ann saved this questionnaire again in" in sentence


def test_two_questionnaires_under_one_name():
    """One counts, and the message says what to do if they are two persons."""
    found = collected(answers(), answers(session="another", saved="2026-01-02T08:00:00.000Z", variant="B"))
    assert [sheet.file for sheet in found.sheets] == ["b.json"]
    (sentence,) = found.left_out
    assert sentence.startswith("a.json: left out, reader ann has another questionnaire, b.json, which was saved last; ")
    assert 'give one of them another name in its field "reader"' in sentence


def test_one_questionnaire_under_two_names():
    """A copy does not make a second reader."""
    found = collected(answers(), answers("bea", session="session of ann"))
    assert len(found.sheets) == 1
    assert "it is the questionnaire of a.json under another name, bea" in found.left_out[0]


def test_readers_without_an_answer():
    """They are left out; without any other reader nothing can be scored."""
    empty = answers(score=lambda *_: None)
    found = collected(empty, answers("bea"))
    assert [sheet.reader for sheet in found.sheets] == ["bea"]
    assert found.left_out[-1] == "a.json: left out, no answer of reader ann can be scored"
    with pytest.raises(
        InvalidInput, match=r"at least one file of answers must be readable, got none; a.json: 36 of 36"
    ):
        collected(empty)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"{", "a key must be JSON"),
        (encoded(answers()), "a key must have the format"),
        (encoded(make_key(version="1")), "a key must have version 1"),
        (encoded(make_key(lesions=None)), "the key must hold study, criteria"),
        (encoded(make_key(methods=["cam"])), "the key must hold study, criteria"),
        (encoded(make_key(pictures={"x": {"lesion": "l9", "method": "cam"}})), "the key must hold study, criteria"),
        (encoded(make_key(pictures={})), "one picture for each of 4 lesions and 3 methods, got 0"),
        (encoded(make_key(criteria={})), "the key must name"),
        (encoded({name: value for name, value in make_key().items() if name != "study"}), "the key must hold"),
    ],
)
def test_damaged_keys(content, message):
    """A key that does not place every picture is refused."""
    with pytest.raises(InvalidInput, match=message):
        read_study_key(content)


def test_readers_with_an_effect_have_it():
    """The simulated readers of these tests differ by method as told."""
    effect = {"cam": 2.0, "shap": 0.0, "lime": -2.0}
    found = collected(*(answers(f"r{i}", reader_with_effect(effect, i)) for i in range(6)))
    np.testing.assert_allclose(found.scores.mean(axis=(0, 1, 2)), [2, 0, -2], atol=0.3)
