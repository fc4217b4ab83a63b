"""Exceptions of radlens, and their HTTP statuses and exit codes.

Messages state the expected and the actual value. They must not contain pixel data, file paths of a server or values of
a DICOM header, because they appear in logs and in responses.
"""

__all__ = [
    "Abandoned",
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
    """Base class; its message is suitable for users."""


class InvalidInput(RadlensError, ValueError):
    """The input of the user is invalid."""


class InvalidParameter(InvalidInput):
    """A parameter is unknown, has a wrong type or is out of range."""


class UnsupportedMethod(InvalidParameter):
    """The method of explanation is not supported for this model; the message names the supported ones."""


class UnreadableImage(InvalidInput):
    """The format of the image is supported, but the image is damaged or has an unusable size or content."""


class UnsupportedMediaType(InvalidInput):
    """The format of the image is not supported."""


class NotAcceptable(InvalidInput):
    """The response is not available in a format that the client accepts."""


class NotAssessable(InvalidInput):
    """The model must not be used for this image; the message states the reasons."""


class ModelNotFound(InvalidInput):
    """The model or the version does not exist."""


class BundleError(RadlensError):
    """A bundle, a graph or a model file is missing, incomplete or altered, or has another format or version."""


class DatasetError(RadlensError):
    """A data set on the user's disk is incomplete or has another format than published; the message names the file."""


class TrainingError(RadlensError):
    """A training run cannot be started, resumed or finished."""


class UnsupportedOperation(RadlensError):
    """A network has an operation that cannot be compiled; the message names the operation and the layer."""


class MissingDependency(RadlensError):
    """A required package or device is missing; the message names the extra to install, or the device."""


class ServerError(RadlensError):
    """A radlens server could not be started or reached, or failed.

    Attributes:
        status: HTTP status of its response; None if there was none.
    """

    status: int | None = None


class Abandoned(RadlensError):
    """The client of a request has left, or its deadline has passed, before the answer was complete."""


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
    Abandoned: 504,
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
    """Return the HTTP status of ``error``; 500 for exceptions other than `RadlensError`."""
    return _nearest(_HTTP_STATUS, error, 500)


def exit_code(error: BaseException) -> int:
    """Return the exit code of ``error``; 1 for exceptions other than `RadlensError`."""
    return _nearest(_EXIT_CODE, error, 1)


def _nearest(table: dict[type[RadlensError], int], error: BaseException, default: int) -> int:
    # A class without an entry has that of its nearest base class.
    return next((table[kind] for kind in type(error).__mro__ if kind in table), default)
