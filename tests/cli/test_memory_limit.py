import os

import pytest

from radlens.cli.options import limited
from radlens.engines.memory import MEMORY_LIMIT_VARIABLE
from radlens.errors import InvalidParameter


def test_a_limit_holds_while_the_command_runs(monkeypatch):
    """Processes that the command starts find it in their environment; afterwards it is as before."""
    monkeypatch.delenv(MEMORY_LIMIT_VARIABLE, raising=False)
    with limited("2G"):
        assert os.environ[MEMORY_LIMIT_VARIABLE] == "2G"
    assert MEMORY_LIMIT_VARIABLE not in os.environ
    monkeypatch.setenv(MEMORY_LIMIT_VARIABLE, "3G")
    with limited("1G"):
        assert os.environ[MEMORY_LIMIT_VARIABLE] == "1G"
    with limited(None):
        assert os.environ[MEMORY_LIMIT_VARIABLE] == "3G"


def test_a_limit_that_is_no_size_is_refused():
    """The message names what came."""
    with pytest.raises(InvalidParameter, match="plenty"), limited("plenty"):
        pass


def test_explain_computes_within_the_limit_and_says_so(run, phantom, bundle):
    """With --local the limit reaches the engine; a server has a limit of its own."""
    small = ("--method", "sensitivity", "-o", "out", "--memory-limit", "600M")
    assert run("explain", phantom, *small, "--bundle", bundle.path).exit_code == 0
    refused = run("explain", phantom, *small)
    assert refused.exit_code == 2
    assert "--memory-limit needs --local or --bundle" in refused.stderr
