"""Answer the rows of one TorchServe 0.12 batch one after the other and in pieces, within its worker protocol.

- TorchServe keeps a batch open as long as one row of a message announces more, and accepts messages with a subset of
  the rows. A row can therefore be answered while another one still streams.
- Its frontend parses a message from the start each time more of it arrives: two bodies of 54 MB in one message were not
  delivered after 30 s. In messages of 4 MB they arrive faster than a single large body.
- It sends an answer to the connection of its request: a row must not be answered twice.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial

from ts.context import Context
from ts.protocol.otf_message_handler import create_predict_response

__all__ = ["PIECE", "Stream", "reply", "send_pieces"]

PIECE = 4 * 2**20
"""Largest number of bytes in a message; 4 MB was the fastest of 0.25, 1, 4 and 16 MB."""

STREAMED = "ts_stream_next"
"""Response header with which TorchServe marks whether more of a row follows."""

Stream = Callable[[Callable[[bytes], None]], None]
"""Function that produces the body of a row in pieces and passes each to its argument."""


def reply(context: Context, bodies: Sequence[bytes], streams: Mapping[int, Stream]) -> list[bytes]:
    """Send large and streaming rows in pieces, and return the remaining bodies, which the handler must return.

    Rows that do not stream are answered first, so that they do not wait for a stream.

    Args:
        context: context of the batch, with status and headers of each row.
        bodies: body of each row, empty for streaming rows.
        streams: streams by row. Bodies larger than a piece are sent in the same way.
    """
    large = {row: body for row, body in enumerate(bodies) if len(body) > PIECE}
    pending = {row: partial(_emit, body) for row, body in large.items()} | dict(streams)
    done = {row: body for row, body in enumerate(bodies) if row not in pending}
    for row, stream in pending.items():
        # One message ends the finished rows and opens the next row: TorchServe ends a batch without an open row.
        send(context, finished=done, unfinished={row: b""})
        stream(partial(send_pieces, context, row))
        done = {row: b""}
    return [done.get(row, b"") for row in range(len(bodies))]


def _emit(body: bytes, emit: Callable[[bytes], None]) -> None:
    emit(body)


def send_pieces(context: Context, row: int, body: bytes) -> None:
    """Send a body as pieces of an unfinished row."""
    for start in range(0, len(body), PIECE):
        send(context, finished={}, unfinished={row: body[start : start + PIECE]})


def send(context: Context, finished: Mapping[int, bytes], unfinished: Mapping[int, bytes]) -> None:
    """Send the last bytes of finished rows and further bytes of unfinished rows; there must be an unfinished row."""
    bodies = {**finished, **unfinished}
    ends = {row: True if STREAMED in context.get_response_headers(row) else None for row in finished}
    ends |= dict.fromkeys(unfinished, False)
    # TorchServe calls these functions to learn whether the stream of a row ends; None stands for a row without one.
    context.stopping_criteria = {row: lambda _, end=end: end for row, end in ends.items()}
    message = create_predict_response(bodies, {row: context.request_ids[row] for row in bodies}, "", 200, context)
    # Reset: TorchServe reuses the context for the next batch.
    context.stopping_criteria = None
    context.cl_socket.sendall(message)
    for row in finished:
        # When the handler returns, TorchServe answers all rows that are still in this mapping.
        del context.request_ids[row]
