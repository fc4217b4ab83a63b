"""The report page: complete, self-contained, and safe whatever it is given."""

import dataclasses
import html.parser
import re

import numpy as np
import pytest
from report_answers import ablation, disks, explanation, predicted, provenance, refused, several

from radlens.errors import InvalidInput
from radlens.evaluation import LIMITS_UM, linear_interval, log_interval
from radlens.families.cdmam.drawing import upsampled_map
from radlens.figures import MEANING_OF_COLOURS, Picture, ReportContent, report_content, report_page, report_texts
from radlens.figures.report import ReportSources
from radlens.images import read, to_png
from radlens.images.exposure import exposure
from radlens.phantoms.cdmam import CDC_DIAMETERS_MM, SCENARIOS, Layout, register, simulate, to_dicom
from radlens.phantoms.cdmam.domain import Findings
from radlens.phantoms.cdmam.series import read_out_series

PNG = to_png(np.zeros((2, 2), np.uint8))
MEAN = np.array([0.05, 0.06, 0.08, 0.12, 0.14, 0.2, 0.40, 0.45, 0.55, 0.8, 1.0, 1.8])
PROVENANCE = {"model": "cdmam", "parameters": {"n_steps": 50, "sampler": None}, "input": {"sha256": "ab" * 32}}
CONTENT = ReportContent(
    title="Quality of one image",
    created="2026-11-21",
    provenance=PROVENANCE,
    header=[("Institution", "A hospital"), ("Station", None)],
    mean_um=MEAN,
    interval_um=linear_interval(MEAN, 0.01 * MEAN),
    training="trained on something",
    curve=Picture("the curve", PNG, "its caption"),
    maps=[Picture("the map", PNG), Picture("the overlay", PNG)],
    cutouts=[Picture("large disks", PNG), Picture("small disks", PNG)],
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
        if "style" not in self.open:
            self.words.append(data)

    @property
    def text(self):
        """All text, blanks folded."""
        return re.sub(r"\s+", " ", " ".join(self.words))

    @property
    def pictures(self):
        """Descriptions of all pictures."""
        return [value for name, value in self.attributes if name == "alt"]


def text_of(**changes):
    """The text of a page."""
    return Outline(report_page(dataclasses.replace(CONTENT, **changes))).text


@pytest.fixture(scope="module")
def image():
    """A phantom with pixels of 0.4 mm: 534 x 337 of them."""
    return read(to_dicom(simulate(SCENARIOS["1"], Layout.with_margin(0, 0.4))))


@pytest.fixture(scope="module")
def registered(image):
    """The same, registered."""
    return register(image.pixels, image.spacing_mm)


@pytest.fixture
def sources(image, registered):
    """What a report of one image is made from."""
    explained = explanation(image.pixels.shape)
    return ReportSources(
        predicted(),
        image,
        [exposure(image.dataset)],
        "2026-11-21",
        phantom=registered,
        explanation=explained,
        shown=upsampled_map(explained),
    )


def outlined(sources, **changes):
    """The page of changed sources."""
    return Outline(report_page(report_content(dataclasses.replace(sources, **changes))))


def test_the_page_needs_nothing_else():
    """No script, no link, no address outside it; every picture is a data URI with its description."""
    page = Outline(report_page(CONTENT))
    assert not {"script", "link", "iframe", "object"} & set(page.seen)
    sources = [value for name, value in page.attributes if name in ("src", "href")]
    assert len(sources) == 5
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    assert len(page.pictures) == 5
    assert not re.search(r"url\(|https?://", report_page(CONTENT))


def test_all_diameters_are_listed_with_their_intervals():
    """Twelve rows, limits at four of them."""
    text = text_of()
    for diameter, mean in zip(CDC_DIAMETERS_MM, MEAN, strict=True):
        row = f"{diameter:.2f} {mean:.3f} {mean * (1 - 0.0196):.3f} to {mean * (1 + 0.0196):.3f}"
        assert row in text
    assert text.count("no limit") == 8
    for limit in LIMITS_UM.values():
        assert re.search(f"{limit.acceptable:.3f} . (not )?met {limit.achievable:.3f} . (not )?met", text)


def test_both_limits_are_answered_for_each_diameter_and_overall():
    """0.25 mm exceeds both limits; the tick stands only where a limit is met."""
    text = text_of()
    assert "Acceptable limit ✗ Not met Achievable limit ✗ Not met" in text
    assert "Acceptable limit: not met at 0.25 mm; met at the other diameters." in text
    assert "0.091 ✓ met 0.056 ✓ met" in text
    assert "0.150 ✓ met 0.103 ✗ not met" in text
    assert "0.352 ✗ not met 0.244 ✗ not met" in text


def test_a_limit_inside_an_interval_gets_a_question_mark():
    """Wide intervals reach across all limits: there is no tick on the page."""
    text = text_of(interval_um=log_interval(MEAN, MEAN))
    assert "Acceptable limit ? Not settled Achievable limit ? Not settled" in text
    assert "0.091 ? not settled 0.056 ? not settled" in text
    assert "Acceptable limit: not settled by this image at any of the four diameters" in text
    assert "✓" not in text


@pytest.mark.parametrize("mean", [MEAN, MEAN - 0.06])
def test_a_curve_that_is_not_positive_gets_no_verdict(mean):
    """A lower end or a mean below zero leaves numbers, but no answer and no tick."""
    text = text_of(mean_um=mean, interval_um=linear_interval(mean, MEAN))
    assert "No verdict: a threshold, or an end of its interval, is not positive." in text
    assert "✓" not in text
    assert "no limit" not in text
    assert f"{mean[0]:.3f} {mean[0] - 1.96 * MEAN[0]:.3f} to" in text


def test_warnings_meaning_and_provenance_are_on_the_page():
    """Nested provenance becomes dotted names, an unknown value a dash."""
    text = text_of()
    assert "the mean is odd" in text
    assert MEANING_OF_COLOURS in text
    assert "parameters.n_steps: 50" in text
    assert "parameters.sampler: -" in text
    assert f"input.sha256: {'ab' * 32}" in text


def test_the_explanation_says_what_the_paper_says_of_the_colours():
    """Section 2.3.1: both signs, all pixels at the same time, the midpoint only."""
    for words in ("brighter", "darker", "all at the same time", "midpoint", "as a whole"):
        assert words in MEANING_OF_COLOURS


def test_without_warnings_there_is_no_box_for_them():
    """An empty list would look like a fault."""
    assert "ul" not in Outline(report_page(dataclasses.replace(CONTENT, warnings=()))).seen


ATTACK = "<script>alert('x')</script>\"'&"


@pytest.mark.parametrize(
    "changes",
    [
        {"title": ATTACK},
        {"created": ATTACK},
        {"meaning": ATTACK},
        {"training": ATTACK},
        {"map_statement": ATTACK},
        {"warnings": [ATTACK]},
        {"provenance": {ATTACK: ATTACK}},
        {"curve": Picture(ATTACK, PNG, ATTACK)},
        {"header": [("Institution", ATTACK)]},
        {"checks": [("Registration", ATTACK)]},
        {"reasons": [ATTACK]},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_every_text_is_escaped(changes):
    """Wherever it comes from."""
    page = report_page(dataclasses.replace(CONTENT, **changes))
    assert "<script>" not in page
    assert "&lt;script&gt;" in page
    Outline(page)


def test_other_pictures_are_refused():
    """A JPEG would be declared as PNG."""
    with pytest.raises(InvalidInput, match="picture must be a PNG, got 4 bytes of another type"):
        report_page(dataclasses.replace(CONTENT, maps=[Picture("map", b"JFIF")]))


def test_an_invalid_curve_is_refused():
    """As by the verdict; a page without curve and without reasons is refused as well."""
    with pytest.raises(InvalidInput, match=r"mean_um must have shape \(12,\), got \(3,\)"):
        report_page(dataclasses.replace(CONTENT, mean_um=MEAN[:3]))
    with pytest.raises(InvalidInput, match="content must hold a curve, or the reasons why there is none, got neither"):
        report_page(dataclasses.replace(CONTENT, mean_um=None))


def test_a_report_of_one_image_is_complete(sources):
    """Lines to sign, training, registration, numbers, the way to the curve, map with statistic, provenance."""
    page = outlined(sources)
    for words in (
        *("Phantom, serial number Name Date Signature", "trained on simulated images only", "28 kV", "not stated"),
        *("Acceptable limit ✓ Met", "Achievable limit ? Not settled", "not mirrored", "+0.00°, upright"),
        *("blur of the lines (mm) 0.123", "cells of 205 read correctly 151", "unknown number 2.5"),
        *("mean over 16 samples of 250 × 250 pixels", "5.0 %, one standard deviation", "networks (epistemic, 2.0 %)"),
        *("This map marks the disks", "1 mm and more 52 14.2 3.1 94 % 60 %", "bundle_hash:", "map.request_id"),
    ):
        assert words in page.text
    assert page.pictures == [
        *("Contrast-detail curve and limits", "Map", "Map over the image", "Large disks", "Small disks"),
    ]
    assert "Individual images" not in page.text


def test_method_samples_and_reliability_stand_under_each_picture_of_the_map(sources):
    """Map, overlay and both regions."""
    assert outlined(sources).text.count("OMIG, L = 4, c = 1, t = 3, 400 samples, reliability 0.81.") == 4


def test_a_sentence_stands_in_place_of_an_empty_map(sources, image):
    """The statistic stays; the pictures that would look like a finding do not."""
    page = outlined(sources, explanation=explanation(image.pixels.shape, disks=disks(marks=False)))
    assert page.pictures == ["Contrast-detail curve and limits"]
    assert "No map is shown. This map is empty: it does not mark the disks" in page.text
    assert "1 mm and more 52 2.1 3.1" in page.text
    assert "400 samples, reliability 0.81" in page.text


@pytest.mark.parametrize(("reliability", "said"), [(None, "not known"), (0.3, "0.30")])
def test_an_unreliable_map_without_statistic_is_not_shown(sources, image, reliability, said):
    """A map of few samples is mostly chance."""
    explained = explanation(image.pixels.shape, disks=None, reliability=reliability)
    page = outlined(sources, explanation=explained)
    assert page.pictures == ["Contrast-detail curve and limits"]
    assert f"its reliability is {said}, it must be at least 0.5" in page.text


def test_a_reliable_map_without_statistic_says_that_it_was_not_tested(sources, image):
    """It is shown, but not as one that marks disks."""
    page = outlined(sources, explanation=explanation(image.pixels.shape, disks=None))
    assert "Whether this map marks the disks of this image was not tested" in page.text
    assert "Map" in page.pictures


def test_an_image_that_cannot_be_judged_gets_a_grey_page(sources):
    """Reasons, header and checks; no verdict, no tick, no picture."""
    page = outlined(sources, predicted=refused("it is inverted", "it is clipped"), explanation=None, shown=None)
    assert "Not assessable The model cannot judge this image." in page.text
    assert "it is inverted it is clipped" in page.text
    assert "28 kV" in page.text
    assert "Signature" in page.text
    assert page.pictures == []
    assert not {"✓", "✗"} & set(page.text)
    assert "limit" not in page.text


def test_a_failed_registration_is_said(sources):
    """On page 1, and where the enlarged regions would be."""
    page = outlined(sources, phantom=None, failure="no grid of lines")
    assert "Registration: failed: no grid of lines" in page.text
    assert "The phantom could not be registered for this report: no grid of lines." in page.text
    assert "No regions are enlarged: the phantom could not be registered." in page.text
    assert "Large disks" not in page.pictures


def test_several_images_stand_in_a_table_and_outliers_are_named(sources):
    """Each with its own curve; those that do not count say why."""
    text = outlined(sources, predicted=several()).text
    assert "on these 3 images" in text
    assert "geometric mean of 3 images" in text
    assert "Individual images" in text
    assert "Image 2 (…1.2.3.2): left out, outlier." in text
    assert "Image 3 (…1.2.3.3): left out, not assessable; no phantom was found." in text
    assert "4 …1.2.3.4 2026-01-04 08:30 0.481 0.062" in text
    assert "3 …1.2.3.3 2026-01-03 08:30 - -" in text
    assert f"inputs.5: sha256 {5:016x}, 1.2.3.5".replace(f"{5:016x}", f"{5:064x}"[:16]) in text


def test_many_images_that_do_not_count_are_counted(sources):
    """Six are named on page 1."""
    answer = several(10)
    for image in answer["images"]:
        image["counts"], image["is_repeated"] = False, True
    text = outlined(sources, predicted=answer).text
    assert text.count("): left out") == 6
    assert "4 further images are left out" in text


@pytest.mark.slow
def test_the_automated_read_out_is_drawn_in_the_same_plot(sources):
    """Its curve changes the picture, and the caption names it."""
    hits = np.random.default_rng(0).random((16, 16, 16)) < np.linspace(0.3, 1.2, 16)
    found = read_out_series(list(hits), n_resamples=5)
    with_it, without = (report_content(dataclasses.replace(sources, read_out=each)) for each in (found, None))
    assert with_it.curve.png != without.curve.png
    assert "automated read-out of 16 images" in with_it.curve.caption


def test_a_disk_ablation_is_shown_with_its_statement(sources):
    """As a picture; without a registered phantom the statement alone."""
    page = outlined(sources, ablation=ablation())
    assert "Disk ablation" in page.pictures
    assert "Disks above the line carried this prediction" in page.text
    page = outlined(sources, ablation=ablation(), phantom=None)
    assert "Disk ablation" not in page.pictures
    assert "Disks above the line carried this prediction" in page.text


@pytest.mark.slow
@pytest.mark.parametrize(
    ("record", "said"),
    [
        ({"training": {"recordings": "none: trained on simulated images only"}}, "trained on simulated images only"),
        ({"training": {"recordings": "real"}}, "on recordings of real phantoms"),
        ({"training": {"recordings": "not stated"}}, "assume simulated images only"),
        ({"training": None}, "assume simulated images only"),
    ],
)
def test_the_training_record_is_told(sources, record, said):
    """A record that says nothing must not look like real recordings."""
    assert said in outlined(sources, predicted=predicted(provenance=provenance(**record))).text


def test_a_header_that_differs_between_images_lists_its_values(sources, image):
    """Up to three values, beyond that the range."""
    stated = exposure(image.dataset)
    three = [stated | {"Tube load": f"{load} mAs"} for load in (100, 110, 120)]
    assert "100 mAs; 110 mAs; 120 mAs" in outlined(sources, headers=three).text
    four = [*three, stated | {"Tube load": None}]
    assert "100 mAs to not stated (4 values)" in outlined(sources, headers=four).text


def test_hostile_header_texts_are_escaped(sources, image):
    """A header may come from anywhere."""
    page = report_page(
        report_content(dataclasses.replace(sources, headers=[exposure(image.dataset) | {"Institution": ATTACK}]))
    )
    assert "<script>" not in page
    assert "&lt;script&gt;" in page


def test_a_wide_image_and_one_on_its_side_are_drawn(image, sources):
    """The map of a turned phantom is turned as well, and regions are found in it."""
    turned = dataclasses.replace(image, pixels=np.ascontiguousarray(image.pixels.T))
    phantom = register(turned.pixels, image.spacing_mm)
    explained = explanation(turned.pixels.shape)
    changed = {"image": turned, "phantom": phantom, "explanation": explained, "shown": upsampled_map(explained)}
    content = report_content(dataclasses.replace(sources, **changed))
    assert content.is_wide
    assert len(content.cutouts) == 2
    assert "on its side" in dict(content.checks)["Rotation"]


def test_a_map_of_another_image_is_refused(sources, image):
    """Cut-outs of the two would show different places."""
    explained = explanation((6, 5))
    with pytest.raises(InvalidInput, match=r"image and map must have the same shape, got .* and \(6, 5\)"):
        report_content(dataclasses.replace(sources, explanation=explained, shown=upsampled_map(explained)))


def test_every_number_of_a_phantom_has_a_name_on_paper():
    """A name of the code, such as small_disks, tells a physicist nothing."""
    numbers = {field.name for field in dataclasses.fields(Findings)} - {"hit", "spacing_mm", "weakest_mm"}
    assert numbers <= set(report_texts._NUMBERS)
