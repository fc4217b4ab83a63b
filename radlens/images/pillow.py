"""Common code of the formats that Pillow reads: suppressed warnings, one type of error, single frames."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import PIL.Image

from radlens.errors import RadlensError, UnreadableImage
from radlens.images.image import MAX_PIXELS

__all__ = ["quiet_pillow", "require_single_frame"]


@contextmanager
def quiet_pillow(format_name: str) -> Iterator[None]:
    """Replace any exception of Pillow by one error, and suppress its warnings.

    Pillow's warning about large images is superseded by the check against `MAX_PIXELS`; its error for still larger
    images becomes the error of that check.

    Args:
        format_name: name of the format, for the message.

    Raises:
        UnreadableImage: the block raised an exception other than a `RadlensError`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RadlensError:
        raise
    except PIL.Image.DecompressionBombError:
        raise UnreadableImage(f"image must have 1 to {MAX_PIXELS} pixels, got more") from None
    except Exception:  # on damaged bytes Pillow raises OSError, SyntaxError, struct.error, KeyError and more
        raise UnreadableImage(f"expected a complete {format_name}, got one that is truncated or damaged") from None


def require_single_frame(image: PIL.Image.Image) -> None:
    """Check that an image has exactly one frame or page.

    Raises:
        UnreadableImage: the image has several.
    """
    n_frames = getattr(image, "n_frames", 1)
    if n_frames != 1:
        raise UnreadableImage(f"expected a single frame, got {n_frames}")
