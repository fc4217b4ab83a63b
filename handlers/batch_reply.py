"""Answer the rows of one TorchServe 0.12 batch one after the other and in pieces: what its worker protocol allows.

- TorchServe keeps a batch open as long as one row of a message says that more follows, and takes messages that hold
  some rows only. So a row can be answered while another still streams.
- Its frontend reads a message from the start each time more of it arrives: two bodies of 54 MB in one message were not
  through after 30 s. In messages of 4 MB they arrive faster than a single large body does.
- It sends an answer to whichever connection its request came from: no row may ever be answered twice.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ts.context import Context
from ts.protocol.otf_message_handler import create_predict_response

__all__ = ["PIECE", "Stream", "reply"]

PIECE = 4 * 2**20
"""Largest number of bytes in a message; the fastest of 0.25, 1, 4 and 16 MB."""

STREAMED = "ts_stream_next"
"""Response header in which TorchServe notes whether more of a row follows."""

Stream = Callable[[Callable[[bytes], None]], None]
"""Makes the pieces of one row's body and hands each to its argument."""


def reply(context: Context, bodies: Sequence[bytes], streams: Mapping[int, Stream]) -> list[bytes]:
    """Send what has to be sent in pieces, and return what the handler must return.

    Rows that do not stream are answered first, so that none waits for a stream.

    Args:
        context: of the batch; status and headers of each row are set.
        bodies: one for each row, empty for rows that stream.
        streams: rows whose bodies are made in pieces. Bodies larger than a piece are sent like them.
    """
    large = {row: body for row, body in enumerate(bodies) if len(body) > PIECE}
    pending = {row: partial(_emit, body) for row, body in large.items()} | dict(streams)
    done = {row: body for row, body in enumerate(bodies) if row not in pending}
    for row, stream in pending.items():
        # One message ends the rows that are done and opens the next: without an open row the batch would be over.
        send(context, finished=done, unfinished={row: b""})
        stream(partial(send_pieces, context, row))
        done = {row: b""}
    return [done.get(row, b"") for row in range(len(bodies))]


def _emit(body: bytes, emit: Callable[[bytes], None]) -> None:
    emit(body)


def send_pieces(context: Context, row: int, body: bytes) -> None:
    """Send more of an unfinished row."""
    for start in range(0, len(body), PIECE):
        send(context, finished={}, unfinished={row: body[start : start + PIECE]})


def send(context: Context, finished: Mapping[int, bytes], unfinished: Mapping[int, bytes]) -> None:
    """Send the last bytes of some rows and further bytes of others, of which there must be at least one."""
    bodies = {**finished, **unfinished}
    ends = {row: True if STREAMED in context.get_response_headers(row) else None for row in finished}
    ends |= dict.fromkeys(unfinished, False)
    # TorchServe asks whether each row's stream ends; None is the answer of a row that never was one.
    context.stopping_criteria = {row: lambda _, end=end: end for row, end in ends.items()}
    message = create_predict_response(bodies, {row: context.request_ids[row] for row in bodies}, "", 200, context)
    # The context outlives the batch.
    context.stopping_criteria = None
    context.cl_socket.sendall(message)
    for row in finished:
        # TorchServe answers the rows of this map once more when the handler returns.
        del context.request_ids[row]
