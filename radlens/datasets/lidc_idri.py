"""LIDC-IDRI, chest CT with nodules that four readers outlined and rated: Armato et al., Medical Physics 38:915, 2011.

The Cancer Imaging Archive (doi 10.7937/K9/TCIA.2015.LO9QL9SX) distributes a folder of DICOM files for each series and
one XML file for each CT series, beside the DICOM files or in a folder of its own (``tcia-lidc-xml/157/158.xml``):

    LidcReadMessage                      namespace http://www.nih.gov; chest radiographs have IdriReadMessage instead
      ResponseHeader/SeriesInstanceUid
      readingSession                     one for each reader
        unblindedReadNodule
          characteristics/malignancy     1 to 5; left out for nodules below 3 mm
          roi                            one for each slice
            imageZposition, imageSOP_UID, inclusion
            edgeMap/xCoord, yCoord       pixels just outside the nodule; a single one for nodules below 3 mm
        nonNodule

Patches are cut as in Katzmann et al. 2021, section 3.1, after Nibali et al. 2017: 64x64 pixels of an axial slice, 45 mm
wide, around the nodule's midpoint, bilinear; a nodule needs the ratings of three readers or more, and is malignant if
their median is above 3, benign if it is below; nodules with a median of 3 are left out.

The files do not state which outlines of different readers show the same nodule. Here, two outlines are of one nodule if
the distance between their centres is at most half the extent of the larger, nearest pairs first, and no nodule has two
outlines of one reader.
"""

import statistics
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pydicom
from PIL import Image, ImageDraw
from scipy.ndimage import map_coordinates

from radlens.datasets.case import Case, Dataset, Label, Sample
from radlens.datasets.files import Root, mask_box
from radlens.errors import DatasetError, InvalidInput
from radlens.images.dicom import quiet_pydicom, refusing

__all__ = ["FIELD_MM", "PATCH_SHAPE", "cut_axial", "malignancy_label", "open_lidc_idri"]

FIELD_MM = 45.0
"""Height and width of a patch, mm."""

PATCH_SHAPE = (64, 64)
"""Rows and columns of a patch."""

LEAST_READERS = 3
"""Fewest readers who rated a nodule."""

_MIDDLE = 3
_AIR_HU = -1000.0
_RANGE_HU = (-1024.0, 3071.0)
"""Range of a patch; some scanners write lower values outside their field of view."""

_ROOT, _RADIOGRAPH = "LidcReadMessage", "IdriReadMessage"


@dataclass(frozen=True)
class _Contour:
    """Outline in one slice: pixels just outside the nodule, or outside a hole of it, ``(n, 2)`` as x, y."""

    sop_uid: str
    z_mm: float
    points: np.ndarray
    is_hole: bool


@dataclass(frozen=True)
class _Reading:
    """One reader's outlines and rating of a nodule.

    Attributes:
        reader: number of the reading session in the file.
        malignancy: 1 to 5.
        contours: outlines, one or several for each slice.
        centre_mm: x, y and z.
        extent_mm: longest side of the box around the outlines.
    """

    reader: int
    malignancy: int
    contours: tuple[_Contour, ...]
    centre_mm: tuple[float, float, float]
    extent_mm: float


@dataclass(frozen=True)
class _Series:
    """A series on disk."""

    folder: Path
    patient_id: str
    spacing_mm: tuple[float, float]


def malignancy_label(ratings: Sequence[int]) -> Label | None:
    """Return the label of a nodule from its readers' ratings; None for fewer than three and for a median of 3."""
    if len(ratings) < LEAST_READERS:
        return None
    median = statistics.median(ratings)
    if median == _MIDDLE:
        return None
    return "malignant" if median > _MIDDLE else "benign"


def cut_axial(
    pixels: np.ndarray, centre: tuple[float, float], spacing_mm: tuple[float, float], *, nearest: bool = False
) -> np.ndarray:
    """Cut a patch of 45 mm from a slice, bilinear; points outside the slice are air.

    Args:
        pixels: ``(h, w)``, HU.
        centre: row and column of the middle of the patch; 0 is the centre of the first pixel.
        spacing_mm: row and column spacing.
        nearest: take the nearest pixel, and 0 outside the slice, as for masks.

    Returns:
        ``(64, 64)`` float32.
    """
    places = [
        middle + ((np.arange(n) + 0.5) / n - 0.5) * FIELD_MM / step
        for n, middle, step in zip(PATCH_SHAPE, centre, spacing_mm, strict=True)
    ]
    grid = np.meshgrid(*places, indexing="ij")
    values = pixels.astype(np.float64)
    return map_coordinates(
        values, grid, order=0 if nearest else 1, mode="constant", cval=0.0 if nearest else _AIR_HU
    ).astype(np.float32)


def open_lidc_idri(root: str | Path) -> Dataset:
    """Open the nodules of LIDC-IDRI as patches; each has a box and the mask that half of the readers agree on.

    Nodules with too few ratings or a median of 3 are left out. A series whose DICOM files are not on disk is skipped,
    since the XML files of all series come in one archive.

    Args:
        root: folder that holds the DICOM and the XML files, in any subfolders.

    Raises:
        DatasetError: there are no XML files, or no series of theirs; an XML file is damaged or lacks an element; two
            XML files have the same series and differ.
    """
    files = Root(Path(root))
    found = dict(_annotations(files))
    if not found:
        raise DatasetError(f"expected XML files with a {_ROOT} below the root, got none")
    series = _series(files, found)
    if not series:
        raise DatasetError(f"expected DICOM files of one of {len(found)} annotated series below the root, got none")
    cases: list[Case] = []
    n_left_out = 0
    for uid in sorted(series, key=lambda each: (series[each].patient_id, each)):
        path, document = found[uid]
        at = _Place(files, path, series[uid])
        for number, nodule in enumerate(_grouped(_readings(document, at)), 1):
            label = malignancy_label([each.malignancy for each in nodule])
            if label is None:
                n_left_out += 1
                continue
            cases.append(
                Case(
                    patient_id=series[uid].patient_id,
                    image_id=f"{uid}-{number}",
                    label=label,
                    name=f"{at.name} nodule {number}",
                    paths=(path,),
                    loader=partial(_load, at, nodule, label),
                    spacing_mm=(FIELD_MM / PATCH_SHAPE[0], FIELD_MM / PATCH_SHAPE[1]),
                )
            )
    return Dataset("lidc-idri", tuple(cases), n_left_out)


@dataclass(frozen=True)
class _Place:
    """An XML file and its series."""

    files: Root
    path: Path
    series: _Series

    @property
    def name(self) -> str:
        return self.files.name(self.path, self.series.patient_id)


def _annotations(files: Root) -> Iterator[tuple[str, tuple[Path, ElementTree.Element]]]:
    """Yield series, path and document of each XML file of a CT series."""
    known: dict[str, tuple[Path, bytes]] = {}
    for path in sorted(files.path.rglob("*.xml")):
        data = path.read_bytes()
        try:
            document = ElementTree.fromstring(data)
        except ElementTree.ParseError as error:
            # The name of the file alone: its folders may name the patient, who is not known yet.
            line = error.position[0]
            raise DatasetError(
                f"{path.name}: expected an XML document, got one that is damaged at line {line}"
            ) from None
        if _local(document) != _ROOT:
            continue
        uid = _text(document, ("ResponseHeader", "SeriesInstanceUid"), path.name)
        if uid in known:
            if known[uid][1] != data:
                raise DatasetError(
                    f"{path.name}: expected one XML file for each series, got another than {known[uid][0].name}"
                )
            continue
        known[uid] = path, data
        yield uid, (path, document)


def _series(files: Root, wanted: Iterable[str]) -> dict[str, _Series]:
    """Return the series on disk; the first file of each folder tells which one it holds."""
    found: dict[str, _Series] = {}
    names = set(wanted)
    first: dict[Path, Path] = {}
    for path in sorted(files.path.rglob("*.dcm")):
        first.setdefault(path.parent, path)
    for folder, path in first.items():
        header = _header(files, path, ("SeriesInstanceUID", "PatientID", "PixelSpacing"))
        uid = str(header.get("SeriesInstanceUID", ""))
        if uid not in names:
            continue
        spacing = header.get("PixelSpacing")
        if spacing is None or len(spacing) != 2 or not min(spacing) > 0:
            raise DatasetError(f"{path.name}: PixelSpacing must be two numbers above 0")
        if not header.get("PatientID"):
            raise DatasetError(f"{path.name}: expected a PatientID, got none")
        if uid in found:
            raise DatasetError(f"{path.name}: expected one folder for each series, got two")
        found[uid] = _Series(folder, str(header.PatientID), (float(spacing[0]), float(spacing[1])))
    return found


def _header(files: Root, path: Path, keywords: Sequence[str]) -> pydicom.Dataset:
    try:
        with quiet_pydicom(), refusing("a DICOM file", "a header that cannot be read"):
            return pydicom.dcmread(path, stop_before_pixels=True, specific_tags=list(keywords))
    except InvalidInput as error:
        raise DatasetError(f"{path.name}: {error}") from None


def _readings(document: ElementTree.Element, at: _Place) -> list[_Reading]:
    """Return the outlines with a rating, in the order of the file."""
    found: list[_Reading] = []
    for reader, session in enumerate(_children(document, "readingSession")):
        for mark in _children(session, "unblindedReadNodule"):
            contours = tuple(_contour(roi, at.name) for roi in _children(mark, "roi"))
            # Nodules below 3 mm are one point, without characteristics.
            drawn = [each for each in contours if len(each.points) >= 3 and not each.is_hole]
            rating = _optional(mark, ("characteristics", "malignancy"))
            if not drawn or rating is None:
                continue
            if rating not in ("1", "2", "3", "4", "5"):
                raise DatasetError(f"{at.name}: malignancy must be 1, 2, 3, 4 or 5")
            rows, columns = at.series.spacing_mm
            places = np.concatenate(
                [
                    np.column_stack([each.points * (columns, rows), np.full(len(each.points), each.z_mm)])
                    for each in drawn
                ]
            )
            x, y, z = places.mean(axis=0).tolist()
            extent = float(np.ptp(places, axis=0).max())
            found.append(_Reading(reader, int(rating), contours, (x, y, z), extent))
    return found


def _contour(roi: ElementTree.Element, where: str) -> _Contour:
    try:
        points = [
            (float(_text(edge, ("xCoord",), where)), float(_text(edge, ("yCoord",), where)))
            for edge in _children(roi, "edgeMap")
        ]
        z = float(_text(roi, ("imageZposition",), where))
    except ValueError:
        raise DatasetError(f"{where}: coordinates of an roi must be numbers") from None
    inclusion = _text(roi, ("inclusion",), where).upper()
    if inclusion not in ("TRUE", "FALSE"):
        raise DatasetError(f"{where}: inclusion must be TRUE or FALSE")
    if not np.isfinite([z, *(value for point in points for value in point)]).all():
        raise DatasetError(f"{where}: coordinates of an roi must be finite")
    return _Contour(
        _text(roi, ("imageSOP_UID",), where), z, np.array(points, dtype=np.float64).reshape(-1, 2), inclusion == "FALSE"
    )


def _grouped(readings: Sequence[_Reading]) -> list[tuple[_Reading, ...]]:
    """Return the readings of each nodule, nodules in the order of their first reading."""
    pairs = sorted(
        (distance, i, j)
        for i, one in enumerate(readings)
        for j, other in enumerate(readings[:i])
        if (distance := float(np.linalg.norm(np.subtract(one.centre_mm, other.centre_mm))))
        <= max(one.extent_mm, other.extent_mm) / 2
    )
    groups = [[i] for i in range(len(readings))]
    of = list(range(len(readings)))
    for _, i, j in pairs:
        one, other = groups[of[i]], groups[of[j]]
        if one is other or {readings[k].reader for k in one} & {readings[k].reader for k in other}:
            continue
        other.extend(one)
        for k in one:
            of[k] = of[j]
    return [tuple(readings[k] for k in sorted(groups[g])) for g in sorted(set(of), key=lambda g: min(groups[g]))]


def _load(at: _Place, nodule: tuple[_Reading, ...], label: Label) -> Sample:
    x, y, z = np.mean([each.centre_mm for each in nodule], axis=0).tolist()
    rows, columns = at.series.spacing_mm
    outlined = {
        contour.sop_uid: contour.z_mm for each in nodule for contour in each.contours if len(contour.points) >= 3
    }
    uid = min(outlined, key=lambda each: (abs(outlined[each] - z), outlined[each]))
    path = _slices(at.series.folder).get(uid)
    if path is None:
        raise DatasetError(f"{at.name}: missing file of the slice at {outlined[uid]:g} mm")
    image = at.files.image(path, at.series.patient_id)
    for keyword in ("RescaleSlope", "RescaleIntercept"):
        if image.dataset is None or image.dataset.get(keyword) is None:
            where = at.files.name(path, at.series.patient_id)
            raise DatasetError(f"{where}: expected {keyword}, without which pixels are not Hounsfield units, got none")
    votes = np.mean([_filled(each.contours, uid, image.pixels.shape) for each in nodule if _is_in(each, uid)], axis=0)
    centre, spacing = (y / rows, x / columns), at.series.spacing_mm
    mask = cut_axial(votes >= 0.5, centre, spacing, nearest=True) > 0
    return Sample(
        np.clip(cut_axial(image.pixels, centre, spacing), *_RANGE_HU),
        boxes=(mask_box(mask),) if mask.any() else (),
        masks=(mask,) if mask.any() else (),
        labels=(label,) if mask.any() else (),
        spacing_mm=(FIELD_MM / PATCH_SHAPE[0], FIELD_MM / PATCH_SHAPE[1]),
    )


def _is_in(reading: _Reading, uid: str) -> bool:
    return any(each.sop_uid == uid for each in reading.contours)


def _filled(contours: Iterable[_Contour], uid: str, shape: tuple[int, ...]) -> np.ndarray:
    """Return the pixels inside the outlines of one slice; outlines themselves are outside."""
    mask = np.zeros(shape, dtype=bool)
    for each in sorted((each for each in contours if each.sop_uid == uid), key=lambda each: each.is_hole):
        if len(each.points) < 3:
            continue
        canvas = Image.new("1", (shape[1], shape[0]))
        corners = [(int(x), int(y)) for x, y in each.points]
        # The outline is drawn after the area: with 0, the pixels of the outline are not part of it.
        ImageDraw.Draw(canvas).polygon(corners, fill=1, outline=0)
        mask = mask & ~np.asarray(canvas) if each.is_hole else mask | np.asarray(canvas)
    return mask


@lru_cache(maxsize=4)
def _slices(folder: Path) -> dict[str, Path]:
    """Return the files of a series by SOP Instance UID."""
    files, found = Root(folder), {}
    for path in sorted(folder.glob("*.dcm")):
        found[str(_header(files, path, ("SOPInstanceUID",)).get("SOPInstanceUID", ""))] = path
    return found


def _local(element: ElementTree.Element) -> str:
    """Return the name of an element without its namespace, which some files lack."""
    return element.tag.rpartition("}")[2]


def _children(element: ElementTree.Element, name: str) -> list[ElementTree.Element]:
    return [each for each in element if _local(each) == name]


def _optional(element: ElementTree.Element, names: Sequence[str]) -> str | None:
    for name in names:
        inner = _children(element, name)
        if not inner:
            return None
        element = inner[0]
    return (element.text or "").strip() or None


def _text(element: ElementTree.Element, names: Sequence[str], where: str) -> str:
    found = _optional(element, names)
    if found is None:
        raise DatasetError(f"{where}: expected an element {'/'.join(names)} in {_local(element)}, got none")
    return found
