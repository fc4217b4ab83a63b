"""``radlens report``, and the regions that commands enlarge."""

import re

import pytest
import report_answers as made

from radlens.client import Client
from radlens.errors import MissingDependency
from radlens.families.cdmam.files import regions
from radlens.figures import LARGE_DISKS, SMALL_DISKS, Box, pdf, region
from radlens.images import read
from radlens.phantoms.cdmam import Layout


@pytest.fixture
def asked(monkeypatch):
    """Answer with a prediction, and with maps and ablations of what is asked for; returns what was asked."""
    calls = []

    def answering(predicted):
        def predict(self, image, *, version=None, **parameters):
            calls.append(("predict", image, parameters))
            return predicted

        def explain(self, image, *, version=None, on_progress=None, **parameters):
            calls.append(("explain", image, parameters))
            if parameters.get("method") == "ablation":
                return made.ablation()
            return made.explanation(read(image.read_bytes()).pixels.shape)

        monkeypatch.setattr(Client, "predict", predict)
        monkeypatch.setattr(Client, "explain", explain)
        return calls

    return answering


def report(run, bundle, *arguments):
    """Run the command with a bundle whose answers are replaced."""
    return run("report", *arguments, "--bundle", bundle.path)


@pytest.mark.slow
def test_a_report_of_one_image_is_a_page_that_needs_nothing_else(run, phantom, bundle, asked, tmp_path):
    """Every reference is to data inside the page; there is no script; what was asked for was passed on."""
    calls = asked(made.predicted())
    options = ("--upsample", "3", "--n-steps", "2", "--path-length", "5", "--seed", "6")
    result = report(run, bundle, phantom, "-o", "new/report.html", *options)
    assert result.exit_code == 0, result.stderr
    assert "wrote new/report.html" in result.stderr
    page = (tmp_path / "new" / "report.html").read_text()
    references = re.findall(r"""(?:src|href|url)\s*[=(]\s*["']?([^"'>)]*)""", page)
    assert len(references) == 5
    assert all(reference.startswith("data:image/png;base64,") for reference in references)
    assert not re.search(r"https?://|file:|<script|<link|@import", page)
    assert "Large disks" in page
    assert "CDMAM simulator" in page
    assert calls == [
        ("predict", phantom, {"seed": 6}),
        ("explain", phantom, {"n_steps": 2, "path_length": 5.0, "seed": 6, "n_samples": 3}),
    ]


def test_several_images_are_predicted_together(run, phantom, bundle, asked, tmp_path):
    """The map is of the first that counts; with fewer than 16 there is no automated read-out."""
    files = [tmp_path / f"{number}.dcm" for number in range(1, 6)]
    for file in files:
        file.write_bytes(phantom.read_bytes())
    predicted = made.several()
    predicted["images"][0]["counts"], predicted["images"][0]["is_repeated"] = False, True
    calls = asked(predicted)
    result = report(run, bundle, *files, "-o", "report.html")
    assert result.exit_code == 0, result.stderr
    assert [(kind, image) for kind, image, _ in calls] == [("predict", files), ("explain", files[3])]
    page = (tmp_path / "report.html").read_text()
    assert "Individual images" in page
    assert "read-out of 5 images" not in page


@pytest.mark.slow
def test_sixteen_images_are_read_out_as_well(run, phantom, bundle, asked, tmp_path):
    """Images of the same pixels count once: the page says why there is no second curve."""
    files = [tmp_path / f"{number}.dcm" for number in range(16)]
    for file in files:
        file.write_bytes(phantom.read_bytes())
    asked(made.several(16))
    result = report(run, bundle, *files, "-o", "report.html")
    assert result.exit_code == 0, result.stderr
    page = (tmp_path / "report.html").read_text()
    assert "No automated read-out: 1 images can be used, 16 are needed." in page
    assert "Automated read-out: 1.dcm is left out: it has the same pixels as 0.dcm" in page


@pytest.mark.slow
def test_an_ablation_is_asked_for_by_its_number_of_samples(run, phantom, bundle, asked, tmp_path):
    """It stands on the second page."""
    calls = asked(made.predicted())
    result = report(run, bundle, phantom, "-o", "report.html", "--ablation", "4", "--seed", "2")
    assert result.exit_code == 0, result.stderr
    assert calls[-1] == ("explain", phantom, {"method": "ablation", "n_samples": 4, "seed": 2})
    assert "Disks above the line carried this prediction" in (tmp_path / "report.html").read_text()


def test_an_image_that_cannot_be_judged_ends_with_9_after_the_page_is_written(run, noise, bundle, asked, tmp_path):
    """A grey page with the failed registration; no map is asked for."""
    calls = asked(made.refused("no phantom was found"))
    result = report(run, bundle, noise, "-o", "report.html")
    assert result.exit_code == 9
    assert "not assessable: no phantom was found" in result.stderr
    assert [kind for kind, *_ in calls] == ["predict"]
    page = (tmp_path / "report.html").read_text()
    assert "Not assessable" in page
    assert re.search(r"Registration:</dt> <dd>failed: ", page)
    assert "not stated" in page
    assert "<img" not in page
    assert "✓" not in page


def test_a_model_that_judges_noise_is_asked_and_refuses(run, noise, bundle, tmp_path):
    """With the service's own answer, from end to end."""
    result = report(run, bundle, noise, "-o", "report.html")
    assert result.exit_code == 9
    assert "Not assessable" in (tmp_path / "report.html").read_text()


def test_a_pdf_is_written_or_the_error_names_what_is_missing(run, noise, bundle, asked, tmp_path):
    """Before anything is computed."""
    calls = asked(made.refused("no phantom was found"))
    result = report(run, bundle, noise, "-o", "report.pdf")
    try:
        pdf.require_pdf()
    except MissingDependency:
        assert result.exit_code == 4
        assert "apt-get install libpango-1.0-0" in result.stderr
        assert calls == []
    else:
        assert result.exit_code == 9
        assert (tmp_path / "report.pdf").read_bytes().startswith(b"%PDF-")


def test_a_missing_library_is_told_before_anything_is_computed(run, phantom, bundle, asked, monkeypatch):
    """Exit code 4."""

    def refuse():
        raise MissingDependency("a PDF needs shared libraries")

    calls = asked(made.predicted())
    monkeypatch.setattr(pdf, "require_pdf", refuse)
    result = report(run, bundle, phantom, "-o", "report.pdf")
    assert result.exit_code == 4
    assert "error: a PDF needs shared libraries" in result.stderr
    assert calls == []


def test_other_files_are_refused(run, phantom, bundle):
    """By their suffix."""
    result = report(run, bundle, phantom, "-o", "report.docx")
    assert result.exit_code == 2
    assert "--output must be one of .html, .pdf, got '.docx'" in result.stderr


def test_regions_follow_the_phantom(phantom):
    """Where the phantom is found, the disks are enlarged."""
    found = regions(read(phantom.read_bytes()))
    layout = Layout.with_margin(0, 0.4)
    for name, place in (("large disks", LARGE_DISKS), ("small disks", SMALL_DISKS)):
        # Registration is within a pixel of 0.4 mm.
        assert found[name] == pytest.approx(region(layout, place), abs=1)


def test_regions_of_another_image_are_its_halves(noise):
    """Without a phantom there are no disks to look for."""
    assert regions(read(noise.read_bytes())) == {"upper half": Box(0, 0, 130, 270), "lower half": Box(130, 0, 130, 270)}


def test_no_server_is_one_line(run, phantom):
    """The same error as for predictions."""
    result = run("report", phantom, "-o", "report.html")
    assert result.exit_code == 5
    assert result.stderr.startswith("error: no server runs here")
