"""How many lines of each room of ``radlens/`` the tests reach: `make coverage` prints it after a run with pytest-cov.

A room is a module, a folder or a family. One below `LEAST` % must have a reason in `WHY`; otherwise this fails.
"""

import sys
from collections import Counter
from pathlib import Path

from coverage import Coverage

LIBRARY = Path(__file__).parents[1] / "radlens"

LEAST = 90.0
"""Percent of a room's lines that tests should reach."""

WHY = {"pools": "a third of its lines runs in the processes that it starts"}
"""Why tests reach fewer lines of a room."""


def room_of(file: Path) -> str:
    """Return the room of a file of the library."""
    first, *rest = file.relative_to(LIBRARY).parts
    return f"{first}/{rest[0]}" if first == "families" and len(rest) > 1 else first.removesuffix(".py")


def main() -> int:
    """Print the table; return 1 if a room is below `LEAST` % for no known reason."""
    measured = Coverage()
    measured.load()
    lines, missed = Counter[str](), Counter[str]()
    for file in sorted(LIBRARY.rglob("*.py")):
        _, statements, _, missing, _ = measured.analysis2(str(file))
        room = room_of(file)
        lines[room] += len(statements)
        missed[room] += len(missing)
    shares = {room: 100.0 * (1 - missed[room] / n) for room, n in lines.items() if n}
    print(f"{'room':<20} {'lines':>6} {'missed':>6} {'%':>6}")
    for room, share in shares.items():
        note = WHY.get(room, "below, and nothing says why") if share < LEAST else ""
        print(f"{room:<20} {lines[room]:>6} {missed[room]:>6} {share:>6.1f}  {note}".rstrip())
    print(f"{'all':<20} {lines.total():>6} {missed.total():>6} {100 * (1 - missed.total() / lines.total()):>6.1f}")
    return int(any(share < LEAST and room not in WHY for room, share in shares.items()))


if __name__ == "__main__":
    sys.exit(main())
