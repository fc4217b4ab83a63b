"""What a status of C-STORE, or a reason of STOW-RS, means for a result: PS3.4 table B.2-1, PS3.7 annex C."""

from __future__ import annotations

from radlens.node.lanes import Refused, Unavailable

__all__ = ["require_stored"]

_DUPLICATE = 0x0111
_WARNINGS = (0x0107, 0x0116, 0xB000, 0xB006, 0xB007)
"""Statuses with which the object is stored: elements were coerced or discarded, or do not fit its class."""

_NOT_AUTHORIZED, _CANNOT_NOW = 0x0124, 0x0110


def require_stored(status: int) -> None:
    """Return if an object is stored, also if it was there before.

    Args:
        status: status of C-STORE, or Failure Reason (0008,1197) of STOW-RS.

    Raises:
        Unavailable: the destination is out of resources, or does not let the node store now.
        Refused: the destination refuses this object.
    """
    if status in (0, _DUPLICATE, *_WARNINGS):
        return
    if status >> 8 == 0xA7 or status == _CANNOT_NOW:
        raise Unavailable(f"refused: out of resources ({status:04X}H)")
    if status == _NOT_AUTHORIZED:
        raise Unavailable(f"refused: not authorized ({status:04X}H)")
    raise Refused(f"refused with status {status:04X}H")
