"""Every error radlens raises on purpose, and what each means as an HTTP status and as an exit code.

Messages say what was expected and what came. They never hold pixel data, file paths of a server or anything read
from a DICOM header, because they end in logs and in responses.
"""

__all__ = [
    "BundleError",
    "DatasetError",
    "InvalidInput",
    "InvalidParameter",
    "MissingDependency",
    "ModelNotFound",
    "NotAcceptable",
    "NotAssessable",
    "RadlensError",
    "ServerError",
    "TrainingError",
    "UnreadableImage",
    "UnsupportedMediaType",
    "UnsupportedMethod",
    "UnsupportedOperation",
    "exit_code",
    "http_status",
]


class RadlensError(Exception):
    """Root of the tree; its message may be shown to a user as it stands."""


class InvalidInput(RadlensError, ValueError):
    """What the user sent cannot be used."""


class InvalidParameter(InvalidInput):
    """A parameter is unknown, has the wrong type or is out of its range."""


class UnsupportedMethod(InvalidParameter):
    """A method of explanation exists, but not for this model; the message names those that do."""


class UnreadableImage(InvalidInput):
    """The bytes are of a known format, but no usable image can be read from them."""


class UnsupportedMediaType(InvalidInput):
    """The bytes are of no format radlens reads."""


class NotAcceptable(InvalidInput):
    """The answer exists in none of the formats the client accepts."""


class NotAssessable(InvalidInput):
    """The model may not judge this image; the message says why."""


class ModelNotFound(InvalidInput):
    """No model, or no version of it, has that name."""


class BundleError(RadlensError):
    """A bundle on disk is incomplete, altered or of another format version."""


class DatasetError(RadlensError):
    """A data set on the user's disk is incomplete or not of its published format; the message names the file."""


class TrainingError(RadlensError):
    """A training run cannot be started, resumed or finished."""


class UnsupportedOperation(RadlensError):
    """A network holds an operation that cannot be compiled; the message names the operation and the layer."""


class MissingDependency(RadlensError):
    """A package that this operation needs is not installed; the message names the extra that brings it."""


class ServerError(RadlensError):
    """A radlens server could not be started or reached, or answered with an error of its own."""


_HTTP_STATUS: dict[type[RadlensError], int] = {
    InvalidParameter: 400,
    UnreadableImage: 422,
    NotAssessable: 422,
    UnsupportedMediaType: 415,
    NotAcceptable: 406,
    ModelNotFound: 404,
    InvalidInput: 400,
    MissingDependency: 501,
    UnsupportedOperation: 501,
    ServerError: 502,
    BundleError: 500,
    DatasetError: 500,
    TrainingError: 500,
    RadlensError: 500,
}

_EXIT_CODE: dict[type[RadlensError], int] = {
    NotAssessable: 9,
    InvalidInput: 2,
    BundleError: 3,
    MissingDependency: 4,
    ServerError: 5,
    TrainingError: 6,
    UnsupportedOperation: 7,
    DatasetError: 8,
    RadlensError: 1,
}


def http_status(error: BaseException) -> int:
    """Return the HTTP status of ``error``; 500 for anything outside the tree."""
    return _nearest(_HTTP_STATUS, error, 500)


def exit_code(error: BaseException) -> int:
    """Return the exit code of ``error``; 1 for anything outside the tree."""
    return _nearest(_EXIT_CODE, error, 1)


def _nearest(table: dict[type[RadlensError], int], error: BaseException, default: int) -> int:
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)
