"""Answer the rows of one TorchServe 0.12 batch one after the other, in pieces: what its worker protocol allows.

- TorchServe keeps a batch open as long as one prediction of a message says that more follows, and takes messages that
  hold some rows only. So a row can be answered while another still streams.
- Its frontend reads a message from the start each time more of it arrives: with two bodies of 54 MB in one message it
  did not finish in 30 s. Pieces of 4 MB arrive faster than even a single large body.
- It appends an answer to whichever connection its request came from, so no row may ever be answered twice.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from ts.context import Context
from ts.protocol.otf_message_handler import create_predict_response

__all__ = ["PIECE", "Stream", "reply"]

PIECE = 4 * 2**20
"""Bytes of a message; measured fastest among 0.25, 1, 4 and 16 MB."""

Stream = Callable[[Callable[[bytes], None]], None]
"""Makes the pieces of one row's body and hands each to its argument."""


def reply(context: Context, bodies: Sequence[bytes], streams: Mapping[int, Stream]) -> list[bytes]:
    """Send what has to be sent in pieces, and return what the handler must return.

    Rows that do not stream are answered first, so that none waits for a stream. Status and headers of each row must
    have been set.

    Args:
        context: of the batch.
        bodies: one for each row; ignored for rows that stream.
        streams: rows whose bodies come in pieces; ``bodies`` larger than a piece are sent like that as well.
    """
    pending = {row: whole(bodies[row]) for row, body in enumerate(bodies) if row not in streams and len(body) > PIECE}
    pending |= streams
    whole_rows = {row: body for row, body in enumerate(bodies) if row not in pending}
    last = dict.fromkeys(range(len(bodies)), b"")
    for row, stream in pending.items():
        # This message ends the rows that are done and opens the next one, which keeps the batch alive.
        send(context, finished=whole_rows, unfinished={row: b""})
        stream(lambda piece, row=row: send_pieces(context, row, piece))
        whole_rows = {row: b""}
    return list((last | whole_rows).values())


def whole(body: bytes) -> Stream:
    """Return the stream of a body that exists already."""
    return lambda emit: emit(body)


def send_pieces(context: Context, row: int, body: bytes) -> None:
    """Send more of an unfinished row."""
    for piece in pieces(body):
        send(context, finished={}, unfinished={row: piece})


def pieces(body: bytes) -> Iterator[bytes]:
    """Cut ``body`` into pieces of at most `PIECE` bytes."""
    return (body[start : start + PIECE] for start in range(0, len(body), PIECE))


def send(context: Context, finished: Mapping[int, bytes], unfinished: Mapping[int, bytes]) -> None:
    """Send the last bytes of some rows and further bytes of others, of which there must be at least one."""
    bodies = {**finished, **unfinished}
    streamed = "ts_stream_next"
    # TorchServe asks these, row by row, whether its stream ends; None means that the row is not a stream.
    context.stopping_criteria = {
        row: lambda _, row=row: False if row in unfinished else (streamed in context.get_response_headers(row)) or None
        for row in bodies
    }
    message = create_predict_response(bodies, {row: context.request_ids[row] for row in bodies}, "", 200, context)
    # The context outlives the batch.
    context.stopping_criteria = None
    context.cl_socket.sendall(message)
    for row in finished:
        # TorchServe answers the rows of this map when the handler returns.
        del context.request_ids[row]
