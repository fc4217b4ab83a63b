"""Addresses and limits of a front door."""

from dataclasses import dataclass
from pathlib import Path

__all__ = ["Settings"]


@dataclass(frozen=True)
class Settings:
    """Addresses and limits; times are in seconds, sizes in bytes.

    Attributes:
        inference_url: Base URL of TorchServe's predictions and explanations.
        management_socket: Unix socket of TorchServe's management API.
        workdir: Working directory of the server, with its keys.
        max_body: Largest body of a request, also after it is inflated.
        is_open: Whether TorchServe asks for no key; then neither does the front door.
        head_s: Largest time for the head of a request.
        idle_s: Time after which a connection without a request is closed.
        stall_s: Largest time without a byte of a body, or without the client reading.
        upload_s: Largest time for a body.
        linger_s: Largest time for which the rest of a refused body is read: a client that is still sending would
            otherwise miss the answer.
        turn_s: Largest time for which an explanation waits until a worker is free for it.
        lost_s: Time without a single running worker after which a request that waits is refused.
        retry_s: Time after which a client is asked to try again.
        most_requests: Most requests that are forwarded at the same time.
        max_head: Largest head of a request.
    """

    inference_url: str
    management_socket: Path
    workdir: Path
    max_body: int
    is_open: bool = False
    head_s: float = 15.0
    idle_s: float = 120.0
    stall_s: float = 30.0
    upload_s: float = 600.0
    linger_s: float = 10.0
    turn_s: float = 120.0
    lost_s: float = 3.0
    retry_s: int = 5
    most_requests: int = 64
    max_head: int = 64 * 1024

    @property
    def shared_folder(self) -> Path:
        """Folder that workers share with the front door, as in `radlens.waiting`."""
        return self.workdir / "tmp" / "front-door"
