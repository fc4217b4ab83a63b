"""Kinds of models, one folder each: all that radlens knows of one kind stands there."""
