"""Small data sets of the published folder and file formats, written for the tests."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pydicom
from pydicom import uid
from pydicom.dataset import FileMetaDataset
from scipy.io import savemat

from radlens.datasets import Case, Label, Sample

UID = "1.3.6.1.4.1.9590.100.1.2."
RSNA_COLUMNS = [
    "site_id",
    "patient_id",
    "image_id",
    "laterality",
    "view",
    "age",
    "cancer",
    "biopsy",
    "invasive",
    "BIRADS",
    "implant",
    "density",
    "machine_id",
    "difficult_negative_case",
]
CBIS_COLUMNS = [
    "patient_id",
    "breast_density",
    "left or right breast",
    "image view",
    "abnormality id",
    "abnormality type",
    "mass shape",
    "mass margins",
    "assessment",
    "pathology",
    "subtlety",
    "image file path",
    "cropped image file path",
    "ROI mask file path",
]


def dicom(path: Path, pixels: np.ndarray, *, spacing_mm: float | None = None, monochrome: int = 2) -> Path:
    """Write grey pixels of 8 or 16 bit as a DICOM file."""
    dataset = pydicom.Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    dataset.SOPClassUID = uid.DigitalMammographyXRayImageStorageForPresentation
    dataset.SOPInstanceUID = "1.2.3.1"
    dataset.PatientName, dataset.PatientID = "Doe^Jane", "4711"
    if spacing_mm:
        dataset.ImagerPixelSpacing = [spacing_mm, spacing_mm]
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, f"MONOCHROME{monochrome}"
    dataset.BitsAllocated = dataset.BitsStored = 8 * pixels.itemsize
    dataset.HighBit, dataset.PixelRepresentation = dataset.BitsStored - 1, 0
    dataset.PixelData = pixels.tobytes()
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(stream.getvalue())
    return path


def table(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> Path:
    """Write a table; a column that a row lacks is empty."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, columns)
        writer.writeheader()
        writer.writerows(rows)
    return path


def breast(shape: tuple[int, int] = (60, 40), *, side: str = "left", seed: int = 0) -> np.ndarray:
    """Return a half ellipse of tissue at one edge of a black uint16 image, with a bright label in a far corner."""
    rows, columns = np.mgrid[: shape[0], : shape[1]]
    tissue = ((rows - shape[0] / 2) / (0.4 * shape[0])) ** 2 + (columns / (0.6 * shape[1])) ** 2 < 1
    noise = np.random.default_rng(seed).integers(1000, 3000, shape, dtype=np.uint16)
    image = np.where(tissue, noise, 0).astype(np.uint16)
    image[1:4, -5:-1] = 4095
    return image if side == "left" else image[:, ::-1].copy()


def case(patient_id: str, label: Label, number: int = 0) -> Case:
    """Return a case of no data set."""
    return Case(
        patient_id=patient_id,
        image_id=f"{patient_id}-{number}",
        label=label,
        name="image",
        paths=(),
        loader=lambda: Sample(np.zeros((2, 2), dtype=np.float32)),
    )


# RSNA 2022


def rsna_rows() -> list[dict[str, Any]]:
    """Return the rows of a patient with two breasts and of one with a cancer."""
    common = {"site_id": 2, "age": 61, "biopsy": 0, "invasive": 0, "implant": 0, "machine_id": 29}
    return [
        common | {"patient_id": 10006, "image_id": 462822612, "laterality": "L", "view": "CC", "cancer": 0},
        common | {"patient_id": 10006, "image_id": 1459541791, "laterality": "R", "view": "MLO", "cancer": 0},
        common
        | {"patient_id": 10011, "image_id": 220375232, "laterality": "R", "view": "CC", "cancer": 1, "BIRADS": 0},
    ]


def rsna(root: Path, rows: list[dict[str, Any]] | None = None, columns: Sequence[str] = RSNA_COLUMNS) -> Path:
    """Write RSNA 2022; images of right breasts lie at the right."""
    rows = rsna_rows() if rows is None else rows
    table(root / "train.csv", columns, rows)
    for row in rsna_rows():
        pixels = breast(side="left" if row["laterality"] == "L" else "right", seed=row["image_id"])
        folder = root / "train_images" / str(row["patient_id"])
        dicom(folder / f"{row['image_id']}.dcm", pixels, spacing_mm=0.065)
    return root


# CBIS-DDSM


def cbis_row(number: int, *, abnormality: int = 1, pathology: str = "MALIGNANT", view: str = "CC") -> dict[str, Any]:
    """Return the row of an abnormality of patient P_0000<number>."""
    subject = f"Mass-Training_P_0000{number}_LEFT_{view}"
    roi = f"{subject}_{abnormality}/{UID}33{abnormality}0{number}/{UID}44{abnormality}0{number}"
    return {
        "patient_id": f"P_0000{number}",
        "breast_density": 3,
        "left or right breast": "LEFT",
        "image view": view,
        "abnormality id": abnormality,
        "abnormality type": "mass",
        "assessment": 4,
        "pathology": pathology,
        "image file path": f"{subject}/{UID}1100{number}/{UID}2200{number}/000000.dcm",
        "cropped image file path": f"{roi}/000000.dcm",
        "ROI mask file path": f"{roi}/000001.dcm\n",
    }


def cbis(
    root: Path,
    rows: list[dict[str, Any]],
    *,
    described: bool = False,
    mask_first: bool = False,
    masks: Mapping[int, np.ndarray] | None = None,
    columns: Sequence[str] = CBIS_COLUMNS,
) -> Path:
    """Write the mass training table and its images.

    Args:
        root: where to.
        rows: from `cbis_row`.
        described: name folders by description, as newer downloads do, and files ``1-1.dcm``.
        mask_first: the mask is the first file of its series, against the table.
        masks: by abnormality, instead of rectangles; the image has 60x40 pixels.
        columns: of the table.
    """
    table(root / "mass_case_description_train_set.csv", columns, rows)
    for row in rows:
        abnormality = int(row["abnormality id"])
        image = _cbis_folder(root, row["image file path"], "full mammogram images", described)
        dicom(image / ("1-1.dcm" if described else "000000.dcm"), breast())
        series = _cbis_folder(root, row["ROI mask file path"], "ROI mask images", described)
        mask = (masks or {}).get(abnormality, rectangle((5 * abnormality, 20, 5 * abnormality + 8, 30)))
        files = [("crop", breast((16, 12), seed=abnormality)), ("mask", mask)]
        for index, (_, pixels) in enumerate(reversed(files) if mask_first else files):
            dicom(series / (f"1-{index + 1}.dcm" if described else f"{index:06d}.dcm"), pixels)
    return root


def rectangle(box: tuple[int, int, int, int], shape: tuple[int, int] = (60, 40)) -> np.ndarray:
    """Return a mask of 0 and 255."""
    mask = np.zeros(shape, dtype=np.uint8)
    mask[box[1] : box[3], box[0] : box[2]] = 255
    return mask


def _cbis_folder(root: Path, path: str, description: str, described: bool) -> Path:
    subject, study, series, _ = path.strip().split("/")
    if not described:
        return root / "CBIS-DDSM" / subject / study / series
    names = f"07-20-2016-DDSM-NA-{study[-5:]}", f"1.000000-{description}-{series[-5:]}"
    return root / "manifest-1" / "CBIS-DDSM" / subject / names[0] / names[1]


# BUSI


def picture(path: Path, pixels: np.ndarray, *, colour: bool = False) -> Path:
    """Write an 8 bit picture, in three equal channels or in one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    PIL.Image.fromarray(np.repeat(pixels[..., None], 3, axis=2) if colour else pixels).save(path)
    return path


def busi(root: Path) -> Path:
    """Write two benign pictures, the second with two masses, one malignant and one normal."""
    rng = np.random.default_rng(0)
    for label, n_pictures in (("benign", 2), ("malignant", 1), ("normal", 1)):
        for number in range(1, n_pictures + 1):
            stem = root / label / f"{label} ({number})"
            picture(Path(f"{stem}.png"), rng.integers(0, 256, (30, 50), dtype=np.uint8), colour=True)
            box = (0, 0, 0, 0) if label == "normal" else (10, 5, 20, 12)
            picture(Path(f"{stem}_mask.png"), rectangle(box, (30, 50)))
    picture(root / "benign" / "benign (2)_mask_1.png", rectangle((40, 20, 50, 30), (30, 50)), colour=True)
    return root


# OASBUD


def echoes(shape: tuple[int, int] = (200, 16), seed: int = 0) -> np.ndarray:
    """Return int16 echoes: noise on a carrier of a quarter of the sampling rate."""
    rng = np.random.default_rng(seed)
    carrier = np.cos(np.pi / 2 * np.arange(shape[0]))[:, None]
    return (carrier * rng.normal(0, 500, shape)).astype(np.int16)


def lesion(patient: str, kind: int, **fields: Any) -> dict[str, Any]:
    """Return the fields of one lesion of OASBUD."""
    roi = np.zeros((200, 16), dtype=np.uint8)
    roi[50:100, 4:9] = 1
    scans = {"rf1": echoes(seed=1), "rf2": echoes(seed=2), "roi1": roi, "roi2": roi}
    return {"id": patient} | scans | {"birads": "4a" if kind else "3", "class": kind} | fields


def oasbud(root: Path, lesions: Sequence[Mapping[str, Any]], variable: str = "data") -> Path:
    """Write lesions as a struct array, as MATLAB does."""
    fields = list(lesions[0]) if lesions else ["id"]
    records = np.empty((1, len(lesions)), dtype=[(field, object) for field in fields])
    for index, content in enumerate(lesions):
        records[0, index] = tuple(content[field] for field in fields)
    root.mkdir(parents=True, exist_ok=True)
    savemat(root / "OASBUD.mat", {variable: records})
    return root


# OMI-DB


class OmiDb:
    """Writes OMI-DB client by client."""

    def __init__(self, root: Path) -> None:
        self.root = root
        for name in ("data", "images"):
            (root / name).mkdir(parents=True)

    def client(
        self,
        patient: str,
        images: Mapping[str, Mapping[str, Any]],
        episode: Mapping[str, Any] | None = None,
        *,
        study: str = "1.2.826.1",
        upper: bool = False,
        **nbss: Any,
    ) -> None:
        """Write a client with one study of one episode.

        Args:
            patient: for example ``optm1``.
            images: by UID; ``marks`` by number, and header values by keyword.
            episode: of NBSS.
            study: UID.
            upper: name the files ``IMAGEDB_`` and ``NBSS_``, as in some deliveries.
            nbss: more members of the NBSS file.
        """
        folder = self.root / "data" / patient / study
        folder.mkdir(parents=True)
        series = {
            f"1.2.826.5.{index}": {name: image.get("marks", "")} for index, (name, image) in enumerate(images.items())
        }
        content = {study: {"EpisodeID": "E1", "StudyDate": "20120101", "Notes": {"1": {}}} | series}
        imagedb, other = ("IMAGEDB", "NBSS") if upper else ("imagedb", "nbss")
        self._json(folder.parent / f"{imagedb}_{patient}.json", {"Site": "adde", "STUDIES": content})
        self._json(folder.parent / f"{other}_{patient}.json", {"ClientID": patient, "E1": episode or {}} | nbss)
        for name, image in images.items():
            self._json(folder / f"{name}.json", self._header(image))
            dicom(self.root / "images" / patient / study / f"{name}.dcm", breast(), spacing_mm=0.07)

    def _header(self, image: Mapping[str, Any]) -> dict[str, Any]:
        values = {
            "00200062": [image.get("side", "L")],
            "00185101": [image.get("view", "CC")],
            "00080068": [image.get("intent", "FOR PRESENTATION")],
            "00080070": [image.get("manufacturer", "HOLOGIC, Inc.")],
            "00181164": image.get("spacing", [0.07, 0.07]),
        }
        return {tag: {"vr": "XX", "Value": value} for tag, value in values.items()}

    @staticmethod
    def _json(path: Path, content: Any) -> None:
        path.write_text(json.dumps(content), encoding="utf-8")


def mark(box: tuple[int, int, int, int] = (5, 20, 15, 30), lesion: str = "1") -> dict[str, Any]:
    """Return a mark as ImageDB writes it."""
    keys = dict(zip(("X1", "Y1", "X2", "Y2"), map(str, box), strict=True))
    return {"MarkID": 7, "LinkedNBSSLesionNumber": lesion, "Conspicuity": "Obvious", "Mass": "1"} | keys


def surgery(opinion: str, side_opinion: str, side: str = "L", lesion: str = "1") -> dict[str, Any]:
    """Return an episode in which surgery found something."""
    long_side = "left_opinion" if side == "L" else "right_opinion"
    return {"EpisodeType": "R", "SURGERY": {side: {lesion: {"Opinion": opinion}}, long_side: side_opinion}}


LIDC_SERIES = "1.3.6.1.4.1.14519.5.2.1.6279.6001.1"
LIDC_SPACING_MM, LIDC_SIDE = 0.6, 120
"""Pixel spacing, and rows and columns of a slice; slices are 2.5 mm apart, the first at -100 mm."""


def lidc_slice(k: int, seed: int = 0) -> np.ndarray:
    """Return stored values of slice ``k``: lung at -850 HU with an intercept of -1024, and smooth structures."""
    rows, columns = np.mgrid[:LIDC_SIDE, :LIDC_SIDE]
    waves = 60 * np.sin(rows / 9 + k + seed) + 45 * np.cos(columns / 7 - k)
    return np.round(174 + 120 + waves).astype(np.uint16)


def lidc_series(
    root: Path,
    *,
    patient: str = "LIDC-IDRI-0001",
    series: str = LIDC_SERIES,
    slices: Sequence[int] = range(5),
    slope: float | None = 1.0,
    intercept: float | None = -1024.0,
    seed: int = 0,
) -> Path:
    """Write the slices of a CT series below ``root`` and return their folder."""
    folder = root / "LIDC-IDRI" / patient / "01-01-2000-30178" / f"3000566.000000-{series[-5:]}"
    for k in slices:
        # The names of the files do not tell the order of the slices.
        path = dicom(folder / f"1-{9 - k:03d}.dcm", lidc_slice(k, seed))
        dataset = pydicom.dcmread(path)
        dataset.SOPClassUID, dataset.Modality = uid.CTImageStorage, "CT"
        dataset.file_meta.MediaStorageSOPClassUID = uid.CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = lidc_uid(series, k)
        dataset.SeriesInstanceUID, dataset.PatientID = series, patient
        dataset.PixelSpacing = [LIDC_SPACING_MM, LIDC_SPACING_MM]
        if slope is not None:
            dataset.RescaleSlope = slope
        if intercept is not None:
            dataset.RescaleIntercept = intercept
        dataset.save_as(path)
    return folder


def lidc_uid(series: str, k: int) -> str:
    """Return the SOP Instance UID of slice ``k``."""
    return f"{series}.{k + 1}"


def lidc_square(row: int, column: int, half: int) -> list[tuple[int, int]]:
    """Return the chain of pixels (x, y) around a square whose inner pixels are less than ``half`` from its centre."""
    steps = range(-half, half)
    return (
        [(column + step, row - half) for step in steps]
        + [(column + half, row + step) for step in steps]
        + [(column - step, row + half) for step in steps]
        + [(column - half, row - step) for step in steps]
    )


def lidc_nodule(
    rating: int | None,
    outlines: Mapping[int, Sequence[tuple[int, int]]],
    *,
    series: str = LIDC_SERIES,
    holes: Mapping[int, Sequence[tuple[int, int]]] | None = None,
    name: str = "Nodule 001",
) -> str:
    """Return the element of a nodule: outlines, and holes, by slice; without a rating it has no characteristics."""
    rois = "".join(
        f"<roi><imageZposition>{-100 + 2.5 * k} </imageZposition><imageSOP_UID>{lidc_uid(series, k)}</imageSOP_UID>"
        f"<inclusion>{inclusion}</inclusion>"
        + "".join(f"<edgeMap><xCoord>{x}</xCoord><yCoord>{y}</yCoord></edgeMap>" for x, y in points)
        + "</roi>"
        for inclusion, drawn in (("TRUE", outlines), ("FALSE", holes or {}))
        for k, points in drawn.items()
    )
    rated = (
        ""
        if rating is None
        else f"<characteristics><margin>4</margin><malignancy>{rating}</malignancy></characteristics>"
    )
    return f"<unblindedReadNodule><noduleID>{name}</noduleID>{rated}{rois}</unblindedReadNodule>"


def lidc_xml(
    path: Path,
    sessions: Sequence[Sequence[str]],
    *,
    series: str = LIDC_SERIES,
    namespace: str = ' xmlns="http://www.nih.gov"',
    root: str = "LidcReadMessage",
) -> Path:
    """Write an XML file with the nodules of each reading session."""
    other = "<nonNodule><nonNoduleID>5</nonNoduleID><imageZposition>-95</imageZposition></nonNodule>"
    body = "".join(
        f"<readingSession><annotationVersion>3.12</annotationVersion>"
        f"<servicingRadiologistID>anonymous</servicingRadiologistID>{''.join(nodules)}{other}</readingSession>"
        for nodules in sessions
    )
    header = f"<ResponseHeader><Version>1.8.1</Version><SeriesInstanceUid>{series}</SeriesInstanceUid></ResponseHeader>"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'<?xml version="1.0" encoding="UTF-8"?>\n<{root}{namespace}>{header}{body}</{root}>', "utf-8")
    return path
