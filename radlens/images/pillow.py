"""What all formats read by Pillow share: no warnings, one kind of error, one frame."""

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import PIL.Image

from radlens.errors import RadlensError, UnreadableImage
from radlens.images.image import MAX_PIXELS

__all__ = ["quiet_pillow", "require_single_frame"]


@contextmanager
def quiet_pillow(format_name: str) -> Iterator[None]:
    """Turn whatever Pillow raises on damaged bytes into one error; ignore its warnings.

    Its warning about large images is ignored because `MAX_PIXELS` is checked instead; its refusal of still larger ones
    becomes the same error.

    Raises:
        UnreadableImage: Pillow failed.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except RadlensError:
        raise
    except PIL.Image.DecompressionBombError:
        raise UnreadableImage(f"image must have 1 to {MAX_PIXELS} pixels, got more") from None
    except Exception as error:  # on damaged bytes Pillow raises OSError, SyntaxError, struct.error, KeyError and more
        message = f"expected a complete {format_name}, got one that is truncated or damaged ({type(error).__name__})"
        raise UnreadableImage(message) from None


def require_single_frame(image: PIL.Image.Image) -> None:
    """Check that there is one frame or page.

    Raises:
        UnreadableImage: there are several.
    """
    n_frames = getattr(image, "n_frames", 1)
    if n_frames != 1:
        raise UnreadableImage(f"expected a single frame, got {n_frames}")
