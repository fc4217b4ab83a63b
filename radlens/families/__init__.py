"""Kinds of models, one folder each: all that radlens knows of one kind stands there.

Nothing is imported before it is used: what a client needs of a family, it gets without torch.
"""

from typing import TYPE_CHECKING

from radlens.extras import lazy

if TYPE_CHECKING:
    from radlens.families.opening import load, open_service, task_of

__all__ = ["load", "open_service", "task_of"]

# A type checker sees the imports above, and so every wrong name.
if not TYPE_CHECKING:
    __getattr__ = lazy(__name__, dict.fromkeys(__all__, "opening"))
