"""Questionnaire of a reader study as one HTML page that works without a network: Katzmann et al. 2021, section 3.4.

Requirements:

- The page cannot unblind: it holds pictures by code, sorted by code, and neither methods nor seeds.
- One variant or several share the pictures.
- A policy in the page forbids everything that is not in it, so that no picture and no answer leaves the browser.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

from markupsafe import Markup

from radlens.errors import InvalidInput
from radlens.evaluation.reader_answers import ANSWERS_FORMAT, VERSION
from radlens.evaluation.reader_study import CRITERIA, HIGHEST, LOWEST
from radlens.figures.html import data_uri, environment

__all__ = ["LesionPage", "Questionnaire", "questionnaire_page"]

CRITERIA_TITLES = {
    "intuitivity": "intuitive validity",
    "semantics": "semantic meaningfulness",
    "quality": "image quality",
}
"""Titles of the criteria (section 3.4)."""


@dataclass(frozen=True)
class LesionPage:
    """A lesion in one variant.

    Attributes:
        lesion: code of the lesion.
        pictures: codes of its pictures, in the order in which they are shown.
    """

    lesion: str
    pictures: Sequence[str]


@dataclass(frozen=True)
class Questionnaire:
    """Content of the page.

    Attributes:
        study: identifier of the study.
        title: title of the first page.
        introduction: paragraphs of the first page.
        legend: meaning of the colours.
        originals: image of each lesion as PNG, by code.
        verdicts: sentence on the class of each lesion, by code; empty to say nothing.
        pictures: picture of each method for each lesion as PNG, by code.
        variants: lesions in the order in which they are shown, by name of the variant.

    Raises:
        InvalidInput: there is no variant, or a variant does not show every lesion and every picture once.
    """

    study: str
    title: str
    introduction: Sequence[str]
    legend: str
    originals: Mapping[str, bytes]
    verdicts: Mapping[str, str]
    pictures: Mapping[str, bytes]
    variants: Mapping[str, Sequence[LesionPage]]

    def __post_init__(self) -> None:
        """Raise unless every variant shows everything once."""
        if not self.variants or not self.pictures:
            raise InvalidInput("a questionnaire must have at least one variant and one picture, got none")
        for name, pages in self.variants.items():
            lesions = sorted(page.lesion for page in pages)
            pictures = sorted(picture for page in pages for picture in page.pictures)
            if lesions != sorted(self.originals) or pictures != sorted(self.pictures):
                raise InvalidInput(
                    f"variant {name} must show each of {len(self.originals)} lesions and {len(self.pictures)} pictures "
                    f"once, got {len(lesions)} and {len(pictures)}"
                )


def questionnaire_page(content: Questionnaire) -> str:
    """Return the questionnaire as HTML."""
    script = files("radlens.figures").joinpath("questionnaire.js").read_text(encoding="utf-8")
    return (
        environment()
        .get_template("questionnaire.html.j2")
        .render(
            title=content.title,
            data=_in_html(_data(content)),
            script=Markup(script),
            # Browsers hash the text between the tags as it stands.
            script_hash=base64.b64encode(hashlib.sha256(script.encode("utf-8")).digest()).decode("ascii"),
        )
    )


def _data(content: Questionnaire) -> dict[str, Any]:
    return {
        "format": ANSWERS_FORMAT,
        "version": VERSION,
        "study": content.study,
        "title": content.title,
        "introduction": list(content.introduction),
        "legend": content.legend,
        "closing": "Save your answers as a file and send it to those who run the study. Nothing is sent by this page.",
        "criteria": [
            {"name": name, "title": CRITERIA_TITLES[name], "question": question} for name, question in CRITERIA.items()
        ],
        "lowest": LOWEST,
        "highest": HIGHEST,
        "originals": {code: data_uri(content.originals[code]) for code in sorted(content.originals)},
        "verdicts": {code: content.verdicts[code] for code in sorted(content.verdicts)},
        "pictures": {code: data_uri(content.pictures[code]) for code in sorted(content.pictures)},
        "variants": {
            name: [{"lesion": page.lesion, "pictures": list(page.pictures)} for page in pages]
            for name, pages in content.variants.items()
        },
    }


def _in_html(values: Any) -> Markup:
    """Return JSON that cannot end its element."""
    text = json.dumps(values)
    return Markup(text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e"))
