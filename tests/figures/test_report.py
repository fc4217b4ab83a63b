"""The report page: complete, self-contained, and safe whatever it is given."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest

from radlens.errors import InvalidInput, InvalidParameter
from radlens.evaluation import LIMITS_UM, linear_interval, log_interval
from radlens.figures import MEANING_OF_COLOURS, Box, Picture, ReportContent, report_content, report_page
from radlens.images import to_png
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM

PNG = to_png(np.zeros((2, 2), np.uint8))
MEAN = np.array([0.05, 0.06, 0.08, 0.12, 0.14, 0.2, 0.40, 0.45, 0.55, 0.8, 1.0, 1.8])
PROVENANCE = {"model": "cdmam", "parameters": {"n_steps": 50, "sampler": None}, "input": {"sha256": "ab" * 32}}
CONTENT = ReportContent(
    title="Quality of one image",
    created="2026-11-21",
    mean_um=MEAN,
    interval_um=linear_interval(MEAN, 0.01 * MEAN),
    curve=Picture("the curve", PNG, "its caption"),
    maps=[Picture("the map", PNG), Picture("the overlay", PNG)],
    cutouts=[Picture("large disks", PNG), Picture("small disks", PNG)],
    provenance=PROVENANCE,
    warnings=["the mean is odd"],
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


def test_the_page_needs_nothing_else():
    """No script, no link, no address outside it; every picture is a data URI with its description."""
    page = Outline(report_page(CONTENT))
    assert not {"script", "link", "iframe", "object"} & set(page.seen)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert sum(name == "alt" for name, _ in page.attributes) == 5
    assert "url(" not in report_page(CONTENT)
    assert "http://" not in report_page(CONTENT)
    assert "https://" not in report_page(CONTENT)


def test_all_diameters_are_listed_with_their_intervals():
    """Twelve rows, limits at four of them."""
    text = Outline(report_page(CONTENT)).text
    for diameter, mean in zip(CDC_DIAMETERS_MM, MEAN, strict=True):
        row = f"{diameter:.2f} {mean:.3f} {mean * (1 - 0.0196):.3f} to {mean * (1 + 0.0196):.3f}"
        assert row in text
    assert text.count("no limit") == 8
    for limit in LIMITS_UM.values():
        assert re.search(f"{limit.acceptable:.3f} . (not )?met {limit.achievable:.3f} . (not )?met", text)


def test_both_limits_are_answered_for_each_diameter_and_overall():
    """0.25 mm exceeds both limits; the tick stands only where a limit is met."""
    text = Outline(report_page(CONTENT)).text
    assert "Acceptable limit ✗ Not met Achievable limit ✗ Not met" in text
    assert "Acceptable limit: not met at 0.25 mm; met at the other diameters." in text
    assert "0.091 ✓ met 0.056 ✓ met" in text
    assert "0.150 ✓ met 0.103 ✗ not met" in text
    assert "0.352 ✗ not met 0.244 ✗ not met" in text


def test_a_limit_inside_an_interval_gets_a_question_mark():
    """Wide intervals reach across all limits: there is no tick on the page."""
    text = Outline(report_page(dataclasses.replace(CONTENT, interval_um=log_interval(MEAN, MEAN)))).text
    assert "Acceptable limit ? Not settled Achievable limit ? Not settled" in text
    assert "0.091 ? not settled 0.056 ? not settled" in text
    assert "Acceptable limit: not settled by this image at any of the four diameters" in text
    assert "✓" not in text


@pytest.mark.parametrize("mean", [MEAN, MEAN - 0.06])
def test_a_curve_that_is_not_positive_gets_no_verdict(mean):
    """Of the lower end as of the mean: numbers, but no answer and no tick."""
    page = report_page(dataclasses.replace(CONTENT, mean_um=mean, interval_um=linear_interval(mean, MEAN)))
    text = Outline(page).text
    assert "No verdict: a threshold, or an end of its interval, is not positive." in text
    assert "✓" not in text
    assert "no limit" not in text
    assert f"{mean[0]:.3f} {mean[0] - 1.96 * MEAN[0]:.3f} to" in text


def test_warnings_meaning_and_provenance_are_on_the_page():
    """Nested provenance becomes dotted names, what is unknown a dash."""
    text = Outline(report_page(CONTENT)).text
    assert "the mean is odd" in text
    assert MEANING_OF_COLOURS in text
    assert "parameters.n_steps: 50" in text
    assert "parameters.sampler: -" in text
    assert f"input.sha256: {'ab' * 32}" in text


def test_the_explanation_says_what_the_paper_says_of_the_colours():
    """Section 2.3.1: both signs, all pixels at the same time, the midpoint only."""
    for words in ("brighter", "darker", "all of them at the same time", "midpoint", "as a whole"):
        assert words in MEANING_OF_COLOURS


def test_without_warnings_there_is_no_box_for_them():
    """An empty list would look like a fault."""
    assert "ul" not in Outline(report_page(dataclasses.replace(CONTENT, warnings=()))).seen


@pytest.mark.parametrize("place", ["title", "created", "meaning", "warnings", "provenance", "curve"])
def test_every_text_is_escaped(place):
    """Wherever it comes from."""
    attack = "<script>alert('x')</script>\"'&"
    changes = {"warnings": [attack], "provenance": {attack: attack}, "curve": Picture(attack, PNG, attack)}
    page = report_page(dataclasses.replace(CONTENT, **{place: changes.get(place, attack)}))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    Outline(page)


def test_other_pictures_are_refused():
    """A JPEG would be declared as PNG."""
    with pytest.raises(InvalidInput, match="picture must be a PNG, got 4 bytes of another type"):
        report_page(dataclasses.replace(CONTENT, maps=[Picture("map", b"JFIF")]))


def test_an_invalid_curve_is_refused():
    """As by the verdict."""
    with pytest.raises(InvalidInput, match=r"mean_um must have shape \(12,\), got \(3,\)"):
        report_page(dataclasses.replace(CONTENT, mean_um=MEAN[:3]))


def test_a_report_is_drawn_from_a_prediction_and_its_map():
    """Curve, map, overlay and one enlarged picture for each region."""
    rng = np.random.default_rng(0)
    pixels, values = rng.normal(size=(60, 40)), rng.normal(size=(60, 40))
    content = report_content(
        pixels,
        values,
        MEAN,
        log_interval(MEAN, 0.1 * MEAN),
        created="2026-11-21",
        provenance=PROVENANCE,
        boxes={"large disks": Box(0, 0, 20, 20), "small disks": Box(30, 10, 20, 20)},
        spacing_mm=(0.1, 0.1),
    )
    text = Outline(report_page(content)).text
    assert {"Map", "Map over the image", "Large disks", "Small disks"} <= {
        picture.title for picture in (*content.maps, *content.cutouts)
    }
    assert "Red: must become brighter." in text


def test_a_report_refuses_a_map_of_another_image():
    """Cut-outs of the two would show different places."""
    arguments = {"created": "", "provenance": {}, "boxes": {"x": Box(0, 0, 99, 9)}}
    with pytest.raises(InvalidInput, match=r"image and map must have the same shape, got \(6, 4\) and \(6, 5\)"):
        report_content(np.zeros((6, 4)), np.zeros((6, 5)), MEAN, log_interval(MEAN, MEAN), **arguments)
    with pytest.raises(InvalidParameter, match="box must lie within 6x4 pixels"):
        report_content(np.zeros((6, 4)), np.zeros((6, 4)), MEAN, log_interval(MEAN, MEAN), **arguments)
