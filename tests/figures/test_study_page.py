"""The page of a study: complete, self-contained, honest about what is missing, and safe whatever it is given."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from radlens.errors import InvalidInput
from radlens.evaluation import Classification, Estimate, RegionHits, breast_regions
from radlens.evaluation.baselines import compare_with_baselines
from radlens.evaluation.published import BYRA_CITATION, SAM_MILLAN_CITATION, SAM_MILLAN_MODELS, ClassCounts
from radlens.figures import (
    BYRA_READING,
    LIMITS_PATIENTS,
    LIMITS_SIMULATED,
    SAM_MILLAN_READING,
    FaithfulnessScores,
    ModelResult,
    PictureBlock,
    Section,
    StudyContent,
    Table,
    chance_hits,
    classification_table,
    datasets_table,
    faithfulness_table,
    figure_iou_boxes,
    iou_table,
    models_table,
    pointing_hits_table,
    save,
    save_small,
    study_page,
)
from radlens.figures.html import data_uri, flattened
from radlens.images import to_png

PNG = to_png(np.zeros((2, 300), np.uint8))
TABLE = Table(
    "the table", ("Measure", "Here", "Paper"), [("AUC", 0.5, "0.887 ± 0.015"), ("n", 7, None)], "a note", (2,)
)
CONTENT = StudyContent(
    title="One study",
    citation=SAM_MILLAN_CITATION,
    created="2026-11-21",
    ran={"Data": "simulated", "Preset": "demo"},
    sections=[
        Section("First", "one paragraph\n\nanother", [TABLE]),
        Section("Second", blocks=[PictureBlock("the picture", PNG, "its caption")]),
    ],
    provenance={"model": {"hash": "ab" * 32}, "seed": None},
    how_to_read=SAM_MILLAN_READING,
    limits=LIMITS_SIMULATED,
    warnings=["stopped early"],
)


class Outline(html.parser.HTMLParser):
    """Collects text and attributes, and checks that tags close in order."""

    VOID = frozenset({"meta", "img", "br"})

    def __init__(self, page):
        super().__init__()
        self.open, self.seen, self.attributes, self.words = [], [], [], []
        self.feed(page)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        """Note an opening tag."""
        self.seen.append(tag)
        self.attributes += attrs
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        """Close the innermost tag."""
        assert self.open.pop() == tag

    def handle_data(self, data):
        """Keep a text."""
        self.words.append(data)

    @property
    def text(self):
        """All text, blanks folded."""
        return re.sub(r"\s+", " ", " ".join(self.words))


def page_of(**changes):
    """Return the outline of a page."""
    return Outline(study_page(dataclasses.replace(CONTENT, **changes)))


def test_the_page_needs_nothing_else():
    """No script, no address outside it; the picture is a data URI with its description, links stay on the page."""
    page = page_of()
    assert not {"script", "link", "iframe", "object"} & set(page.seen)
    sources = [value for name, value in page.attributes if name == "src"]
    assert len(sources) == sum(name == "alt" for name, _ in page.attributes) == 1
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert {value for name, value in page.attributes if name == "href"} == {"#section-1", "#section-2"}
    assert {"section-1", "section-2"} <= {value for name, value in page.attributes if name == "id"}
    for word in ("url(", "http://", "https://"):
        assert word not in study_page(CONTENT)


def test_everything_stands_on_the_page_in_order():
    """What was run, how to read it, the sections, the limits, the provenance."""
    text = page_of().text
    parts = [
        "One study",
        SAM_MILLAN_CITATION,
        "2026-11-21",
        "stopped early",
        "Preset demo",
        SAM_MILLAN_READING[0],
        "1. First",
        "one paragraph another",
        "the table",
        "a note",
        "2. Second",
        "the picture",
        "its caption",
        LIMITS_SIMULATED[0],
        "model.hash: " + "ab" * 32,
        "seed: -",
    ]
    places = [text.index(part) for part in parts]
    assert places == sorted(places)


def test_tables_show_numbers_and_dashes_and_shade_what_is_published():
    """Three significant digits; only columns of numbers stand flush right."""
    page = page_of()
    assert "Measure Here Paper AUC 0.500 0.887 ± 0.015 n 7 –" in page.text
    classes = [value.split() for name, value in page.attributes if name == "class" and value]
    assert sum("published" in found for found in classes) == 3
    assert sum("number" in found for found in classes) == 6


def test_simulated_data_are_called_so_and_beside_each_published_number():
    """Patients' data are not."""
    assert "Simulated images" in page_of().text
    assert page_of().text.count("Here: simulated images") == 1
    patients = page_of(simulated=False, limits=LIMITS_PATIENTS).text
    assert "Images of patients" in patients
    assert "Here: simulated images" not in patients


def test_what_is_missing_is_said_at_the_top_and_in_its_place():
    """A section that is empty is missing as a whole."""
    sections = [*CONTENT.sections, Section("Third"), Section("Fourth", "text", missing=["one of two models"])]
    text = page_of(sections=sections).text
    assert "Incomplete: 2 of 4 sections are complete." in text
    assert "Third : not computed yet" in text
    assert "Fourth : one of two models" in text
    assert text.count("Missing: one of two models") == 1
    assert text.count("(incomplete)") == 2
    assert "Incomplete" not in page_of().text


def test_empty_parts_leave_no_headings():
    """They would look like a fault."""
    text = page_of(how_to_read=(), limits=(), warnings=()).text
    for heading in ("How to read this page", "Limits", "About this run"):
        assert heading not in text


@pytest.mark.parametrize(
    "place", ["title", "citation", "created", "ran", "sections", "provenance", "warnings", "limits"]
)
def test_every_text_is_escaped(place):
    """Wherever it comes from."""
    attack = "<script>alert('x')</script>\"'&"
    section = Section(
        attack, attack, [Table(attack, (attack,), [(attack,)], attack), PictureBlock(attack, PNG, attack)]
    )
    changes = {
        "ran": {attack: attack},
        "sections": [section, Section(attack, missing=[attack])],
        "provenance": {attack: attack},
        "warnings": [attack],
        "limits": [attack],
    }
    page = study_page(dataclasses.replace(CONTENT, **{place: changes.get(place, attack)}))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    Outline(page)


def test_pictures_are_as_wide_as_their_inches_say():
    """100 CSS pixels for each inch, whatever their density; 150 pixels per inch where they say nothing."""
    assert "--width: 200px" in study_page(CONTENT)
    figure = figure_iou_boxes({"cam": [0.5, 0.2]})
    for png in (save(figure), save_small(figure)):
        page = study_page(dataclasses.replace(CONTENT, sections=[Section("a", blocks=[PictureBlock("b", png)])]))
        assert abs(int(re.search(r"--width: (\d+)px", page)[1]) - 100 * figure.get_figwidth()) <= 1


def test_pictures_that_are_none_are_refused():
    """A JPEG would be declared as PNG."""
    with pytest.raises(InvalidInput, match="picture must be a PNG, got 4 bytes of another type"):
        page_of(sections=[Section("a", blocks=[PictureBlock("b", b"JFIF")])])
    assert data_uri(PNG).startswith("data:image/png;base64,")


def test_nested_provenance_becomes_dotted_names():
    """At any depth."""
    assert list(flattened({"a": {"b": {"c": 1}, "d": None}, "e": "f"})) == [("a.b.c", "1"), ("a.d", "-"), ("e", "f")]


@pytest.mark.parametrize(
    ("columns", "rows", "published", "message"),
    [
        ((), [], (), "table 't' must have at least one column, got none"),
        (("a", "b"), [("1",)], (), "every row of table 't' must have 2 cells, got 1"),
        (("a", "b"), [], (2,), r"published columns of table 't' must be in \[0, 2\), got \(2,\)"),
    ],
)
def test_tables_that_do_not_hold_together_are_refused(columns, rows, published, message):
    """Cells would stand in the wrong column."""
    with pytest.raises(InvalidInput, match=message):
        Table("t", columns, rows, published=published)


def test_counts_of_the_paper_stand_above_ours():
    """Table 1 of the thesis."""
    rows = datasets_table([ClassCounts("simulated", "normal", 8, 2, 10)]).rows
    assert rows[0] == ("OMI-DB, Iceberg Selection (patches)", "non-malignant", 3045, 763, 3808, "paper, Table 1")
    assert rows[-1] == ("simulated", "normal", 8, 2, 10, "here")


def test_every_network_of_the_thesis_has_a_row():
    """With ours, or without; a network that the thesis does not have is shown as well."""
    estimate = Estimate(0.95, 0.9, 0.99, 0.02)
    ours = [
        ModelResult("EfficientNet-B0", "simulated", "AUC", estimate),
        ModelResult("DenseNet", "simulated", "AUC", 0.9),
    ]
    rows = {row[0]: row[1:] for row in models_table(ours).rows}
    assert set(rows) == {model.network for model in SAM_MILLAN_MODELS} | {"DenseNet"}
    data = "RSNA 2022 subset; OMI-DB, Hologic subset"
    assert rows["EfficientNet-B0"] == ("simulated", "AUC", "0.950", "0.900 to 0.990", "0.72; 0.83", data)
    assert rows["DenseNet"] == ("simulated", "AUC", "0.900", None, None, None)
    assert rows["MobileNetV2"][:5] == ("not run", "accuracy", None, None, "0.93")


def test_methods_are_ranked_by_their_iou():
    """Beside the place that the thesis gives them; it prints no numbers, and the table says so."""
    ious = {"lime": [0.0, 0.2], "integrated_gradients": [0.5, 0.7], "mine": [0.05, 0.1]}
    table = iou_table(ious, {"lime": 1, "integrated_gradients": 0, "mine": 0})
    assert table.rows[0] == ("Integrated gradients", 2, "0.600 ± 0.100", "0.600", "100%", "100%", 0, None, 1, "highest")
    assert [row[0] for row in table.rows] == ["Integrated gradients", "LIME", "mine"]
    assert [row[-1] for row in table.rows[1:]] == ["one of the two lowest", "not in the paper"]
    assert "prints no IoU as a number" in table.note
    assert table.columns[-2:] == ("Rank here, this data", "Rank in the paper, patients of OMI-DB")
    assert iou_table(ious).rows[0][6] is None


def test_the_classification_of_byra_stands_beside_ours():
    """With intervals, and what the paper writes after ±."""
    found = Classification(
        3, 4, 0.5, *(Estimate(value, value - 0.1, value + 0.1, 0.05) for value in (0.9, 0.8, 0.7, 0.6))
    )
    table = classification_table(found)
    assert table.rows[0] == ("AUC", "0.900", "0.800 to 1.000", "0.887 ± 0.015")
    assert [row[3] for row in table.rows] == ["0.887 ± 0.015", "0.835 ± 0.018", "0.801 ± 0.025", "0.868 ± 0.023"]
    assert "3 malignant and 4 benign" in table.note


def test_the_pointing_game_of_byra_stands_beside_ours():
    """With Wilson's interval, from its formula: 8 of 10 hits."""
    centre, half = (0.8 + 1.96**2 / 20) / (1 + 1.96**2 / 10), 1.96 * np.sqrt(0.016 + 1.96**2 / 400) / (1 + 1.96**2 / 10)
    table = pointing_hits_table({"mass": RegionHits(8, 10, 0.8), "any": RegionHits(9, 10, 0.9)}, {"mass": 0.125})
    interval = f"{centre - half:.0%} to {centre + half:.0%}"
    assert table.rows[0] == ("Breast mass region", 8, 10, "80%", interval, "12%", None, None, None, "34%")
    assert table.rows[1][0] == "At least one of these"
    assert table.rows[1][5:] == (None, None, None, None, "71%")


def test_baselines_stand_in_the_tables_of_localisation():
    """Rows below the methods, or columns beside the regions, with the p-value of the test against the best."""
    ious, others = {"cam": [0.5, 0.7, 0.6]}, {"image": [0.1, 0.2, 0.3], "random": [0.0, 0.0, 0.1]}
    compared = compare_with_baselines(ious, others)
    table = iou_table(ious, data="simulated mammograms", baselines=others, compared=compared)
    assert [row[0] for row in table.rows[1:]] == ["baseline: image as map", "baseline: random map"]
    assert table.rows[0][7] == "no (p = 0.125)"  # one of eight sign patterns
    assert table.columns[8] == "Rank here, simulated mammograms"
    assert "image as map" in table.note
    hits = pointing_hits_table(
        {"any": RegionHits(9, 10, 0.9)},
        data="simulated images",
        baselines={"image": {"any": 0.8}, "centre": {"any": 0.3}},
        p_values={"any": 0.0004},
    )
    assert hits.rows[0][6:9] == ("80%", "30%", "yes (p < 0.001)")
    assert hits.columns[3] == "Here, simulated images"
    assert hits.columns[-1] == "Paper, Table 2, patients with 272 masses"


def test_chance_is_that_of_two_random_pixels():
    """Against drawing them; a mean over cases."""
    masks = [np.zeros((20, 20), dtype=bool) for _ in range(2)]
    masks[0][5:9, 5:9] = masks[1][12:15, 3:8] = True
    cases = [breast_regions(mask, 1.0) for mask in masks]
    rng = np.random.default_rng(0)
    expected = {}
    for name in cases[0]:
        drawn = [case[name].ravel()[rng.integers(0, 400, (20000, 2))].any(axis=1).mean() for case in cases]
        expected[name] = np.mean(drawn)
    found = chance_hits(cases)
    # The standard error of 40000 draws is at most 0.0025.
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=0.01)
    assert found["any"] >= max(expected.values()) - 0.01
    assert chance_hits([]) == {}


def test_faithfulness_has_no_published_numbers():
    """And says so."""
    table = faithfulness_table({"lime": FaithfulnessScores(deletion=0.25)}, score="logit")
    assert table.rows == [("LIME", 0.25, None, None, None, None)]
    assert "The paper does not report these measures." in table.note
    assert "of the logit" in table.note


def test_the_texts_say_what_must_not_be_misread():
    """Scales, chance, simulation; each paper's colours."""
    assert "separate scale" in SAM_MILLAN_READING[0]
    assert "malignant" in BYRA_READING[0]
    assert any("two random pixels" in paragraph for paragraph in BYRA_READING)
    assert any("does not state" in paragraph for paragraph in SAM_MILLAN_READING)
    assert "how a network would perform on patients" in " ".join(LIMITS_SIMULATED)
    assert "2022" in BYRA_CITATION
