"""Pages as PDF: two A4 pages, or an error that says what is missing."""

import re
import sys
import zlib

import pytest

from radlens.errors import MissingDependency
from radlens.figures import pdf

PAGE = "<style>@page { size: A4 }</style><p>one</p><p style='break-before: page'>two</p>"


def written(page):
    """The page as PDF; None on a machine without Pango, whose error was found to say what to install."""
    try:
        return pdf.to_pdf(page)
    except MissingDependency as error:
        assert re.search(r"libpango.*apt-get install libpango-1.0-0.*write .html", str(error))  # noqa: PT017
        return None


def objects(data):
    """The text of a PDF, compressed streams unpacked."""
    streams = re.findall(rb"stream\r?\n(.*?)endstream", data, re.S)
    unpacked = [zlib.decompressobj().decompress(each) for each in streams if each[:1] == b"x"]
    return b"\n".join([data, *unpacked])


def test_a_page_becomes_a_pdf_or_the_error_names_what_is_missing():
    """Machines without Pango are told which libraries to install; on others there are two sheets of A4."""
    found = written(PAGE)
    if found is None:
        return
    assert found.startswith(b"%PDF-")
    assert len(re.findall(rb"/Type\s*/Page\b", objects(found))) == 2
    # A4 is 595.28 x 841.89 points.
    assert re.search(rb"/MediaBox\s*\[\s*0 0 595\.\d+ 841\.\d+", objects(found))


def test_nothing_outside_the_page_is_fetched(tmp_path):
    """A file that the page refers to leaves no trace: the page stays as without it."""
    style = tmp_path / "style.css"
    style.write_text("p { break-before: page }")
    page = f"<link rel=stylesheet href='{style.as_uri()}'><p>one<p>two"
    found = written(page)
    assert found is None or len(re.findall(rb"/Type\s*/Page\b", objects(found))) == 1


def test_a_missing_package_names_the_extra(monkeypatch):
    """Which brings it."""
    monkeypatch.setitem(sys.modules, "weasyprint", None)
    with pytest.raises(MissingDependency, match=r"pip install 'radlens\[report\]', or write .html"):
        pdf.require_pdf()


def test_missing_libraries_are_named(monkeypatch, tmp_path, capsys):
    """By name, with the command that installs them; the notice that WeasyPrint prints is not shown."""
    package = tmp_path / "weasyprint.py"
    package.write_text("print('a notice of several lines')\nraise OSError('cannot load library')\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "weasyprint", raising=False)
    monkeypatch.setattr(pdf.ctypes.util, "find_library", lambda name: None if "pango" in name else "found")
    with pytest.raises(MissingDependency, match=r"missing \(libpango-1.0, libpangoft2-1.0\): .*apt-get install"):
        pdf.require_pdf()
    assert capsys.readouterr().out == ""
