"""``radlens models`` and ``radlens sign``, without a server; `tests/serving` has a real one."""

import os

import pytest
from archives import make_archive
from local_server import serving
from tiny_bundle import make_bundle

from radlens.server import Pid, Ports, State
from radlens.versions.deployment import Deployment
from radlens.versions.signing import Trust
from radlens.versions.state import Registered, Served, Versions


@pytest.fixture(scope="session")
def made(tmp_path_factory):
    """A small archive."""
    folder = tmp_path_factory.mktemp("made")
    return make_archive(make_bundle(folder / "bundle"), folder / "cdmam-1.0.mar")


@pytest.fixture
def store(made, tmp_path):
    """A model store with it, and a configuration beside it."""
    folder = tmp_path / "model_store"
    folder.mkdir()
    (folder / made.name).write_bytes(made.read_bytes())
    (tmp_path / "config.properties").touch()
    return folder


@pytest.fixture
def registered(store, tmp_path):
    """A working directory in which version 1.0 is registered."""
    deployment = Deployment(tmp_path / ".run", Trust())
    versions, _ = deployment.plan({"cdmam": store / "cdmam-1.0.mar"})
    deployment.keep(versions)
    return tmp_path / ".run"


@pytest.fixture
def two(tmp_path):
    """A working directory with two models, one of which has two versions and a way back."""
    one = Registered("x.mar", "0" * 64)
    models = {"a": Served("2.0", {"1.0": one, "2.0": one}, ("1.0",)), "b": Served("1.0", {"1.0": one})}
    (tmp_path / ".run").mkdir()
    Versions(models).save(tmp_path / ".run")
    return tmp_path / ".run"


def test_list_without_a_server_shows_what_would_start(run, registered):
    """Name, version, default and hash."""
    result = run("models", "list")
    assert result.exit_code == 0, result.stderr
    assert "no server runs here; this is what it would start with" in result.stderr
    (row,) = [line.split() for line in result.stdout.splitlines() if line.startswith("│")]
    sha256 = Versions.load(registered).registered("cdmam", "1.0").sha256
    assert (row[1], row[3], row[5], row[-2]) == ("cdmam", "1.0", "yes", sha256[:12])


def test_without_a_server_nothing_is_changed(run, registered, store):
    """One line that says how to start one."""
    for arguments in (("register", "cdmam-1.0.mar"), ("promote", "1.0"), ("rollback",), ("scale", "2")):
        before = (registered / "versions.json").read_bytes()
        result = run("models", *arguments)
        assert result.exit_code in (2, 5), result.stderr
        assert (registered / "versions.json").read_bytes() == before
    assert "a server must run in this working directory, got none" in result.stderr


def test_ambiguity_is_refused(run, two):
    """Of two models none is chosen, by any command."""
    for arguments in (("promote", "1.0"), ("rollback",), ("retire", "1.0", "--yes"), ("scale", "2")):
        result = run("models", *arguments)
        assert result.exit_code == 2
        assert "--model must name one of a, b, got none" in result.stderr


def test_retiring_the_default_is_refused(run, two):
    """Though it was asked for with --yes."""
    result = run("models", "retire", "2.0", "--model", "a", "--yes")
    assert result.exit_code == 2
    assert "a version that is retired must not be the default, got a 2.0, which is" in result.stderr


def test_retiring_says_what_it_does_and_asks(run, two):
    """Without an answer nothing is removed."""
    result = run("models", "retire", "1.0", "--model", "a")
    assert result.exit_code == 1
    assert "remove a 1.0 (a rollback cannot reach it any more)? a 2.0 stays the default" in result.stderr
    assert "1.0" in Versions.load(two).models["a"].versions


def test_archives_are_verified(run, registered, store):
    """What is registered, or archives of the store; the exit code tells."""
    result = run("models", "verify")
    assert result.exit_code == 0, result.stderr
    assert "cdmam 1.0: whole; cdmam-1.0-" in result.stderr
    assert "is not signed" in result.stderr
    (copy,) = (registered / "archives").glob("*.mar")
    copy.write_bytes(copy.read_bytes()[:-1])
    result = run("models", "verify")
    assert result.exit_code == 3
    assert "error: cdmam 1.0: the archive of cdmam 1.0 was changed after it was registered" in result.stderr
    assert run("models", "verify", "cdmam-1.0.mar").exit_code == 0
    (store / "cdmam-1.0.mar").write_bytes(b"PK")
    assert run("models", "verify", "cdmam-1.0.mar").exit_code == 3


def test_archives_elsewhere_are_refused(run, store, tmp_path):
    """What is served comes from the model store."""
    (tmp_path / "elsewhere.mar").write_bytes((store / "cdmam-1.0.mar").read_bytes())
    for archive in (tmp_path / "elsewhere.mar", "../elsewhere.mar", "/etc"):
        result = run("models", "register", archive)
        assert result.exit_code == 3
        assert "archive must be in the model store model_store, got" in result.stderr


def test_a_signature_is_required_where_the_configuration_says_so(run, store, tmp_path):
    """A pair of keys, a signature, and what the server makes of it."""
    assert run("sign", "--new-key", "signing.key").exit_code == 0
    (tmp_path / "trusted_keys").mkdir()
    (tmp_path / "signing.key.pub").rename(tmp_path / "trusted_keys" / "release.pub")
    (tmp_path / "config.properties").write_text("radlens_signatures=required\n")
    refused = run("models", "verify", "cdmam-1.0.mar")
    assert refused.exit_code == 3
    assert "archives must be signed by a trusted key (radlens_signatures=required)" in refused.stderr
    served = run("serve", "--model", "cdmam=cdmam-1.0.mar")
    assert served.exit_code == 3
    assert "archives must be signed by a trusted key" in served.stderr
    signed = run("sign", "cdmam-1.0.mar", "--key", "signing.key")
    assert signed.exit_code == 0, signed.stderr
    accepted = run("models", "verify", "cdmam-1.0.mar")
    assert (accepted.exit_code, "cdmam-1.0.mar is signed by release" in accepted.stderr) == (0, True)
    card = run("models", "card", "cdmam-1.0.mar").stdout
    assert card.startswith("# cdmam 1.0\n")
    assert "- signature: cdmam-1.0.mar is signed by release" in card


@pytest.mark.parametrize(
    "arguments", [(), ("a.mar",), ("--key", "k"), ("a.mar", "--new-key", "k"), ("--new-key", "k", "--key", "k")]
)
def test_sign_takes_one_form_or_the_other(run, arguments):
    """An archive with a key, or a new pair."""
    result = run("sign", *arguments)
    assert result.exit_code == 2
    assert "sign takes an archive with --key, or --new-key alone" in result.stderr


def test_predict_does_not_choose_between_models(run, noise, bundle, two):
    """Neither of a server here nor of one elsewhere; the models are named."""
    me = Pid.of(os.getpid())
    State(two.resolve(), me, me, Ports(), ("a", "b")).save()
    result = run("predict", noise)
    assert result.exit_code == 2
    assert "--model must name one of a, b, got none" in result.stderr
    with serving(bundle, "other") as url:
        result = run("predict", noise, "--server", url, "--token", "secret")
    assert result.exit_code == 2
    assert f"--model must name one of {bundle.manifest.name}, other, got none" in result.stderr


def test_the_bill_of_materials_is_written(run, tmp_path):
    """As a file, on stdout, or as licences."""
    import json

    assert run("sbom", "-o", "sbom.json").exit_code == 0
    assert json.loads((tmp_path / "sbom.json").read_text())["bomFormat"] == "CycloneDX"
    assert json.loads(run("sbom").stdout)["specVersion"] == "1.6"
    assert "numpy" in run("sbom", "--licences").stdout
