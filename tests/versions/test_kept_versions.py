"""What is registered survives, and a damaged file is told."""

import pytest

from radlens.errors import InvalidParameter, ServerError
from radlens.versions.state import Registered, Served, Versions

ONE, TWO = Registered("a-1.0.mar", "1" * 64), Registered("a-2.0.mar", "2" * 64, "release", 3)


def test_what_is_written_is_read(tmp_path):
    """Versions, default, what a rollback goes to, history."""
    versions = Versions().with_version("a", "1.0", ONE).with_version("a", "2.0", TWO).noted("register", "a", "2.0")
    versions = versions.with_model("a", Served("2.0", versions.models["a"].versions, ("1.0",)))
    versions.save(tmp_path)
    assert Versions.load(tmp_path).models == versions.models
    assert [(each["action"], each["version"]) for each in Versions.load(tmp_path).history] == [("register", "2.0")]
    assert Versions.load(tmp_path / "elsewhere") == Versions()


def test_the_first_version_is_the_default():
    """Later ones are not."""
    versions = Versions().with_version("a", "1.0", ONE).with_version("a", "2.0", TWO)
    assert versions.models["a"].default == "1.0"
    assert versions.without("a", "2.0").models["a"].versions == {"1.0": ONE}


def test_a_default_must_be_registered():
    """A file that says otherwise is damaged."""
    with pytest.raises(ValueError, match=r"version 2\.0 must be registered"):
        Served("2.0", {"1.0": ONE})


@pytest.mark.parametrize(
    "text",
    [
        "",
        "[]",
        "{}",
        '{"format": 2, "models": {}, "history": []}',
        '{"format": 1, "models": {"a": {"default": "1.0", "versions": {}, "previous": []}}, "history": []}',
    ],
)
def test_damaged_files_are_told(tmp_path, text):
    """They are not taken for a server without versions."""
    (tmp_path / "versions.json").write_text(text)
    with pytest.raises(ServerError, match=r"versions\.json must hold versions in format 1, got a damaged file"):
        Versions.load(tmp_path)


def test_ambiguity_is_refused():
    """One model need not be named; of two, none is chosen."""
    one = Versions().with_version("a", "1.0", ONE)
    assert one.model(None) == "a"
    two = one.with_version("b", "1.0", ONE)
    assert two.model("b") == "b"
    with pytest.raises(InvalidParameter, match="--model must name one of a, b, got none"):
        two.model(None)
    with pytest.raises(InvalidParameter, match="--model must name one of a, b, got 'cdmam'"):
        two.model("cdmam")
    with pytest.raises(InvalidParameter, match=r"version of a must be one of 1\.0, got '9'"):
        two.registered("a", "9")
