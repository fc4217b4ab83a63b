"""A model for tests, whose questions are answered by its methods."""

from radlens.explainers import Model

__all__ = ["FakeModel"]


class FakeModel(Model):
    """Answers a question by the method of its name, and that for logits by ``outputs``.

    Methods take the arrays of the question and, if there are targets, those.
    """

    def ask(self, name, targets=None, /, **arrays):
        """Call the method."""
        method = "outputs" if name == "prediction" else name
        assert getattr(type(self), method) is not getattr(Model, method, None), f"{name} is not asked of this model"
        found = getattr(self, method)(*arrays.values(), *(() if targets is None else (targets,)))
        return found if isinstance(found, tuple) else (found,)

    def can(self, name):
        """Allow all questions."""
        return

    def _answer(self, name, targets, arrays):
        raise AssertionError("every question is asked by name")
