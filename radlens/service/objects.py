"""DICOM objects in requests and answers: the parameter ``objects``, and one object or several as a body."""

from collections.abc import Mapping, Sequence

from radlens.errors import InvalidParameter
from radlens.images.image import DICOM
from radlens.service.parameters import Several
from radlens.wire import MULTIPART, OBJECTS, related

__all__ = ["DICOM_FORMATS", "WITHOUT_MAP", "as_body", "objects_parameter", "require_dicom"]

DICOM_FORMATS = (DICOM, MULTIPART)
"""Media types of answers with DICOM objects."""

WITHOUT_MAP = OBJECTS[:2]
"""Objects of an answer that has no map, such as the prediction of a classifier."""


def objects_parameter(options: tuple[str, ...] = OBJECTS) -> Several:
    """Return the parameter ``objects`` of answers that can be given as ``options``; the default is a capture."""
    return Several(options, OBJECTS[0])


def require_dicom(media_type: str, given: Mapping[str, str]) -> None:
    """Check that a request which names objects asks for DICOM.

    Args:
        media_type: media type of the answer.
        given: texts of the parameters by name.

    Raises:
        InvalidParameter: it asks for another format, in which objects would have no effect.
    """
    if "objects" in given and media_type not in DICOM_FORMATS:
        raise InvalidParameter(
            f'objects must be given with Accept: {DICOM} or {MULTIPART}; type="{DICOM}", got {media_type}'
        )


def as_body(files: Sequence[bytes], media_type: str) -> tuple[str, bytes]:
    """Return the Content-Type and the body of an answer.

    One file is sent as it is, unless the client accepts only ``multipart/related``; several are parts of it.

    Args:
        files: DICOM files, at least one.
        media_type: negotiated media type, one of `DICOM_FORMATS`.
    """
    return (DICOM, files[0]) if len(files) == 1 and media_type == DICOM else related(files)
