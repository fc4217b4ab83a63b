"""Kinds of models, one folder each: all that radlens knows of one kind stands there."""

from radlens.families.opening import load, open_service, task_of

__all__ = ["load", "open_service", "task_of"]
