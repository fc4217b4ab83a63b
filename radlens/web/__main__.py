"""Run the front door until it is stopped: ``python -m radlens.web``."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from radlens.extras import named
from radlens.server import management_socket
from radlens.web.settings import Settings

__all__ = ["main"]


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the front door.

    Args:
        arguments: Arguments of the command line; None for those of this process.
    """
    parser = argparse.ArgumentParser(prog="python -m radlens.web", description="HTTP front door before TorchServe.")
    parser.add_argument("--port", type=int, required=True, help="port of the front door")
    parser.add_argument("--inference-port", type=int, required=True, help="inference port of TorchServe")
    parser.add_argument("--workdir", type=Path, required=True, help="working directory of the server")
    parser.add_argument("--max-body", type=int, required=True, help="largest body of a request in bytes")
    parser.add_argument("--open", action="store_true", help="ask for no keys, as TorchServe does")
    given = parser.parse_args(arguments)
    settings = Settings(
        inference_url=f"http://127.0.0.1:{given.inference_port}",
        management_socket=management_socket(given.workdir),
        workdir=given.workdir,
        max_body=given.max_body,
        is_open=given.open,
    )
    with named():
        from radlens.web.app import make_app, make_server
    make_server(make_app(settings), given.port, settings).run()


if __name__ == "__main__":
    main()
