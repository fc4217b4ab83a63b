"""Conversion of pages to PDF with WeasyPrint, which needs Pango."""

from __future__ import annotations

import ctypes.util
import io
from contextlib import redirect_stdout
from typing import Any

from PIL import ImageFile

from radlens.errors import MissingDependency

__all__ = ["require_pdf", "to_pdf"]

_LIBRARIES = ("gobject-2.0", "pango-1.0", "pangoft2-1.0", "harfbuzz", "fontconfig")
"""Shared libraries that WeasyPrint loads."""

_REMEDY = (
    "on Debian and Ubuntu install them with `apt-get install libpango-1.0-0 libpangoft2-1.0-0 libharfbuzz-subset0`, "
    "or write .html, which does not need them"
)


def require_pdf() -> Any:
    """Return the module of WeasyPrint.

    Raises:
        MissingDependency: WeasyPrint is not installed, or its shared libraries are not; the message names them.
    """
    try:
        # WeasyPrint prints a notice of several lines before it raises.
        with redirect_stdout(io.StringIO()):
            import weasyprint
    except ImportError:
        raise MissingDependency(
            "a PDF needs WeasyPrint, which is not installed: pip install 'radlens[report]', or write .html"
        ) from None
    except OSError:
        missing = [f"lib{name}" for name in _LIBRARIES if ctypes.util.find_library(name) is None] or ["libpango-1.0"]
        raise MissingDependency(
            f"a PDF needs shared libraries that are missing ({', '.join(missing)}): {_REMEDY}"
        ) from None
    finally:
        # On import WeasyPrint makes Pillow accept truncated pictures in the whole process; radlens must refuse them.
        ImageFile.LOAD_TRUNCATED_IMAGES = False
    return weasyprint


def to_pdf(page: str) -> bytes:
    """Return a self-contained HTML page as PDF; nothing outside the page is fetched.

    Raises:
        MissingDependency: WeasyPrint or its shared libraries are not installed.
    """
    weasyprint = require_pdf()
    from weasyprint.urls import URLFetcher

    return weasyprint.HTML(string=page, url_fetcher=URLFetcher(allowed_protocols=["data"])).write_pdf()
