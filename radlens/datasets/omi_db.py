"""OMI-DB, the OPTIMAM mammography image database: Halling-Brown et al., Radiology: AI 3(1):e200103, 2021.

Folders, files and JSON keys are those of the database's reference package (``omidb`` 0.13 on PyPI, and the page
"Database structure" of its documentation):

    data/<client>/imagedb_<client>.json           studies -> series -> images -> marks
    data/<client>/nbss_<client>.json              episodes of screening with their opinions
    data/<client>/<study>/<image>.json            the DICOM header
    images/<client>/<study>/<image>.dcm

A client is a woman, an episode one round of screening or assessment. Marks are boxes drawn by radiologists, given by
two corners in pixels of the image; here they are half open, with row 0 at the top. ``FOR PROCESSING`` images are
excluded. The subset of the thesis ("Iceberg Selection") is not published; the exclusions here follow its description:
malignant images have a box. As a choice of radlens, images without a proven lesion come from women without cancer.
"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from radlens.datasets.case import Box, Case, Dataset, Label, Laterality, Sample
from radlens.datasets.files import Root
from radlens.errors import DatasetError

__all__ = ["open_omi_db"]

_CLIENT = re.compile(r"(demd|optm)\d+")
_UID = re.compile(r"[\d.]+")
_PROCEDURES = ("SURGERY", "BIOPSYWIDE", "BIOPSYFINE")
_SIDES: dict[Laterality, str] = {"L": "left_opinion", "R": "right_opinion"}

_MALIGNANT = frozenset(("H5", "Hist malignant", "B5", "Malignant", "C5", "Cyt malig", "OM"))
_BENIGN = frozenset(("H2", "Histol benign", "B2", "Benign", "C2", "Cyt benign", "OB"))
"""Opinions on a lesion or a breast, as codes or in words (``omidb.events``)."""

_LATERALITY, _VIEW, _INTENT, _MANUFACTURER = "00200062", "00185101", "00080068", "00080070"
_SPACING = ("00280030", "00181164")
"""Tags of Image Laterality, View Position, Presentation Intent Type, Manufacturer, (Imager) Pixel Spacing."""


@dataclass(frozen=True)
class _Image:
    """One image of a study, with its marks as ImageDB writes them."""

    study: str
    episode: str
    uid: str
    marks: tuple[Mapping[str, Any], ...]


@dataclass(frozen=True)
class _Client:
    """Contents of the two JSON files of a woman."""

    patient: str
    nbss: Mapping[str, Any]
    images: tuple[_Image, ...]


def open_omi_db(root: str | Path, *, manufacturer: str | None = None) -> Dataset:
    """Open the processed images (``FOR PRESENTATION``) of OMI-DB.

    - An image is malignant if surgery or biopsy found cancer in a lesion marked on it, or found cancer in the breast
      and the image has a mark that is not linked to a lesion. An image of a malignant breast without such a mark is
      excluded.
    - An image is benign if surgery or biopsy of its breast found a benign lesion.
    - Any other image is normal without marks and non-malignant with marks. Such images are excluded for women with
      cancer or an interval cancer in any episode: they may show a cancer that was found later.
    - Images without laterality are excluded, and studies that are not in the download.

    Args:
        root: folder that holds ``data`` and ``images``.
        manufacturer: text that the manufacturer of an image must contain, without regard to case; the thesis uses
            ``Hologic``.

    Raises:
        DatasetError: a folder or a file is missing, or a JSON file is damaged or has another structure.
    """
    files = Root(Path(root))
    for name in ("data", "images"):
        files.require_folder(files.path / name)
    patients = [path.name for path in (files.path / "data").iterdir() if path.is_dir() and _CLIENT.fullmatch(path.name)]
    if not patients:
        raise DatasetError("data: expected a folder per client, named optm or demd and a number, got none")
    cases, n_left_out = [], 0
    for patient in sorted(patients, key=lambda name: (name[:4], int(name[4:]))):
        client = _client(files, patient)
        for image in client.images:
            case = _case(files, client, image, manufacturer)
            n_left_out += case is None
            if case:
                cases.append(case)
    return Dataset("omi-db", tuple(cases), n_left_out)


def _client(files: Root, patient: str) -> _Client:
    imagedb, nbss = (_client_json(files, patient, kind) for kind in ("imagedb", "nbss"))
    return _Client(patient, nbss, tuple(_images(imagedb)))


def _client_json(files: Root, patient: str, kind: str) -> Mapping[str, Any]:
    folder = files.path / "data" / patient
    # Some deliveries write the prefix in upper case.
    upper = folder / f"{kind.upper()}_{patient}.json"
    return _json(files, upper if upper.is_file() else folder / f"{kind}_{patient}.json", patient)


def _json(files: Root, path: Path, patient: str) -> Mapping[str, Any]:
    files.require_file(path, patient)
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
    except ValueError:
        raise DatasetError(f"{files.name(path, patient)}: expected complete JSON") from None
    if not isinstance(content, dict):
        raise DatasetError(f"{files.name(path, patient)}: expected a JSON object")
    return content


def _images(imagedb: Mapping[str, Any]) -> Iterator[_Image]:
    for study, content in _objects(imagedb.get("STUDIES")):
        for series, of_series in _objects(content):
            if not _UID.fullmatch(series):
                continue
            for uid, marks in of_series.items():
                if _UID.fullmatch(uid):
                    yield _Image(study, str(content.get("EpisodeID")), uid, tuple(mark for _, mark in _objects(marks)))


def _objects(content: Any) -> list[tuple[str, Mapping[str, Any]]]:
    """Return the members of an object that are objects; ImageDB writes an empty string in place of an empty object."""
    if not isinstance(content, dict):
        return []
    return [(key, value) for key, value in content.items() if isinstance(value, dict)]


def _case(files: Root, client: _Client, image: _Image, manufacturer: str | None) -> Case | None:
    folder = files.path / "data" / client.patient / image.study
    if not folder.is_dir():
        return None
    long_name = folder / f"{image.uid}.dcm.json"
    header = _json(files, long_name if long_name.is_file() else folder / f"{image.uid}.json", client.patient)
    side = _first(header, _LATERALITY)
    if side not in _SIDES or not _wanted(header, manufacturer):
        return None
    marked = tuple((_box(files, client, mark), _mark_label(client, image, side, mark)) for mark in image.marks)
    label = _label(client, image, side, [found for _, found in marked])
    if label is None:
        return None
    path = files.path / "images" / client.patient / image.study / f"{image.uid}.dcm"
    files.require_file(path, client.patient, "imagedb")
    return Case(
        patient_id=client.patient,
        image_id=image.uid,
        label=label,
        name=files.name(path, client.patient),
        paths=(path,),
        loader=partial(_load, files, path, client.patient, marked),
        view=_first(header, _VIEW),
        laterality=side,
        spacing_mm=_spacing_mm(header),
    )


def _wanted(header: Mapping[str, Any], manufacturer: str | None) -> bool:
    if str(_first(header, _INTENT)).upper() != "FOR PRESENTATION":
        return False
    return manufacturer is None or manufacturer.lower() in str(_first(header, _MANUFACTURER)).lower()


def _label(client: _Client, image: _Image, side: Laterality, marks: list[Label]) -> Label | None:
    opinions = _side_opinions(client.nbss.get(image.episode), side)
    if "malignant" in marks:
        return "malignant"
    if opinions & _MALIGNANT:  # cancer in the breast, but not marked on this image
        return None
    if opinions & _BENIGN:
        return "benign"
    if _has_cancer(client):
        return None
    return "non-malignant" if marks else "normal"


def _mark_label(client: _Client, image: _Image, side: Laterality, mark: Mapping[str, Any]) -> Label:
    episode = client.nbss.get(image.episode)
    lesions = {_number(each) for each in str(mark.get("LinkedNBSSLesionNumber") or "").split(",")} - {""}
    opinions = _lesion_opinions(episode, side, lesions) if lesions else _side_opinions(episode, side)
    if opinions & _MALIGNANT:
        return "malignant"
    return "benign" if opinions & _BENIGN else "non-malignant"


def _side_opinions(episode: Any, side: Laterality) -> set[str]:
    return {str(content.get(_SIDES[side])) for name, content in _objects(episode) if name in _PROCEDURES}


def _lesion_opinions(episode: Any, side: Laterality, lesions: set[str]) -> set[str]:
    procedures = (content for name, content in _objects(episode) if name in _PROCEDURES)
    found = (lesion for content in procedures for lesion in _objects(content.get(side)))
    return {str(content.get("Opinion")) for number, content in found if _number(number) in lesions}


def _has_cancer(client: _Client) -> bool:
    if client.nbss.get("Classification") in ("M", "CI"):
        return True
    episodes = [episode for _, episode in _objects(client.nbss)]
    return any(
        episode.get("EpisodeType") in ("CI", "Interval case")
        or any(_side_opinions(episode, side) & _MALIGNANT for side in _SIDES)
        for episode in episodes
    )


def _number(text: str) -> str:
    # Lesions are numbered with and without leading zeros.
    return text.strip().lstrip("0")


def _box(files: Root, client: _Client, mark: Mapping[str, Any]) -> Box:
    try:
        x1, y1, x2, y2 = (int(mark[key]) for key in ("X1", "Y1", "X2", "Y2"))
    except (KeyError, TypeError, ValueError):
        name = files.name(files.path / "data" / client.patient / f"imagedb_{client.patient}.json", client.patient)
        raise DatasetError(f"{name}: a mark must have whole numbers X1, Y1, X2 and Y2") from None
    return min(x1, x2), min(y1, y2), max(x1, x2), max(y1, y2)


def _load(files: Root, path: Path, patient: str, marked: tuple[tuple[Box, Label], ...]) -> Sample:
    image = files.image(path, patient)
    return Sample(
        image.pixels,
        boxes=tuple(box for box, _ in marked),
        labels=tuple(label for _, label in marked),
        spacing_mm=image.spacing_mm,
    )


def _values(header: Mapping[str, Any], tag: str) -> list[Any]:
    # DICOM JSON model: PS3.18 annex F.2.
    element = header.get(tag)
    values = element.get("Value") if isinstance(element, dict) else None
    return values if isinstance(values, list) else []


def _first(header: Mapping[str, Any], tag: str) -> Any:
    return next(iter(_values(header, tag)), None)


def _spacing_mm(header: Mapping[str, Any]) -> tuple[float, float] | None:
    for tag in _SPACING:
        try:
            row, column = (float(value) for value in _values(header, tag))
        except (TypeError, ValueError):
            continue
        return row, column
    return None
