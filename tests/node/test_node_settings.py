"""The YAML file of a node, and the rules in it."""

from pathlib import Path

import pytest
from node_parts import YAML, settings_in

import radlens
from radlens.errors import InvalidInput
from radlens.node.header import Header
from radlens.node.reading import read_settings
from radlens.node.rules import Conditions
from radlens.node.settings import DicomPeer, Limits, Peer, Retry, Web

GOOD = YAML.format(
    destination="{ae_title: PACS, address: 10.0.0.9, port: 104}", server="http://s", keep_free=8, idle=60, tls=""
)


def written(folder: Path, text: str) -> Path:
    """Return a file with a text."""
    file = folder / "node.yaml"
    file.write_text(text, "utf-8")
    return file


def test_settings_are_read(tmp_path):
    """Every part of the file arrives, and what is left out has its default."""
    text = """
folder: /var/lib/radlens-node
listen: {ae_title: RADLENS, address: 0.0.0.0, port: 11112}
peers:
  - {ae_title: MG1, address: 10.1.0.0/16}
server: {url: "https://models.example/", workers: 3, timeout_s: 60}
sources:
  - {name: archive, url: "https://pacs.example/dicom-web", modalities: [MG, US], days: 2, every_s: 30}
destinations:
  pacs: {ae_title: PACS, address: pacs.example, port: 104, commitment: true}
  web: {url: "https://pacs.example/dicom-web"}
rules:
  - name: phantoms
    when: {modality: MG, sop_class: DigitalMammographyXRayImageStorageForPresentation, study_description: "*QC*"}
    model: cdmam
    version: "1.0"
    method: omig
    parameters: {n_samples: 200, trust: true}
    objects: all
    to: [pacs, web]
"""
    settings = read_settings(written(tmp_path, text))
    rule = settings.rule("phantoms")
    assert settings.server.url == "https://models.example"
    assert settings.destinations == {
        "pacs": DicomPeer("PACS", "pacs.example", 104, commitment=True),
        "web": Web("https://pacs.example/dicom-web"),
    }
    assert (settings.sources[0].modalities, settings.sources[0].days) == (("MG", "US"), 2)
    assert rule.conditions.sop_class == ("1.2.840.10008.5.1.4.1.1.1.2",)
    assert rule.parameters == {"n_samples": "200", "trust": "true", "method": "omig"}
    assert (rule.version, rule.objects, rule.destinations) == ("1.0", ("all",), ("pacs", "web"))
    assert settings.limits.associations == 10


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("folder: queue", "folderr: queue", r"line 1: the file must have keys of folder, .*got 'folderr'"),
        ("    model: cdmam", "    modell: cdmam", r"line 12: rules\[0\] must have keys of name, .*; got 'modell'"),
        (
            "    model: cdmam",
            "    model: cdmam\n    model: x",
            r"line 13: rules\[0\] must have each key once, got 'model'",
        ),
        ("    to: pacs", "    to: archive", r"line 13: rules\[0\].to must name destinations of pacs; got 'archive'"),
        ("    to: pacs", "    to: pacs\n    version: 1.0", "must be text, got a number; put it in quotes"),
        ("    to: pacs", "    to: pacs\n    objects: [capture, film]", "must be all, or of capture, .*got 'film'"),
        ("    to: pacs", "    to: pacs\n    kind: maps", "must be one of explanations, predictions; got 'maps'"),
        ("modality: MG", "modality: MG, sop_class: Mammograms", "UID or the keyword of a SOP class, got 'Mammograms'"),
        (
            "    to: pacs",
            "    to: pacs\n    parameters: {mask: x}",
            "of the model, got mask, which the node sets",
        ),
        (
            "    to: pacs",
            "    to: pacs\n    parameters: {n: [1]}",
            "n must be text, a number, or true or false",
        ),
        ("port: 104", "port: 0x68", "must be an integer of 1 to 65535, got '0x68'"),
        ("port: 104", "port: 99999", "must be an integer of 1 to 65535, got '99999'"),
        ("ae_title: NODE", "ae_title: A NODE OF SEVENTEEN", "1 to 16 ASCII characters"),
        ("keep_free_mb: 8", "keep_free_mb: 7", "must be at least associations times image_mb, 8; got 7"),
        ("http://s", "ftp://s", "must be http:// or https:// with a host"),
        ("peers:", "peers: 3\nlisten2:", "the file must have keys of"),
        ("rules:\n", "rules: [\n", "must be YAML"),
        ("rules:\n", "rules: here\nlimit:\n", "the file must have keys of"),
        ("workers: 1", "workers: many", "must be an integer of 1 to 64, got 'many'"),
        ("modality: MG", "modality: []", "must be text or a list of texts, got an empty list"),
    ],
)
def test_wrong_settings_are_named(tmp_path, old, new, message):
    """An error names the file, the line, what was expected, and what came."""
    assert old in GOOD
    file = written(tmp_path, GOOD.replace(old, new, 1))
    with pytest.raises(InvalidInput, match=message) as raised:
        read_settings(file)
    assert str(raised.value).startswith(str(file))


@pytest.mark.parametrize("key", ["folder", "server", "destinations", "rules", "peers"])
def test_missing_keys_are_named(tmp_path, key):
    """Without one of the parts that a node needs, the error names it."""
    lines = GOOD.splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith(key))
    last = next(i for i in range(first + 1, len(lines)) if not lines[i].startswith(" "))
    with pytest.raises(InvalidInput, match=f"{key}"):
        read_settings(written(tmp_path, "\n".join(lines[:first] + lines[last:])))


def test_a_missing_file_is_named(tmp_path):
    """So is one that is empty."""
    with pytest.raises(InvalidInput, match="must be a readable file, got: No such file"):
        read_settings(tmp_path / "none.yaml")
    with pytest.raises(InvalidInput, match="got an empty file"):
        read_settings(written(tmp_path, ""))


@pytest.mark.parametrize(
    ("conditions", "matches"),
    [
        (Conditions(), True),
        (Conditions(modality=("US", "mg")), True),
        (Conditions(modality=("US",)), False),
        (Conditions(body_part=("BRE*",)), True),
        (Conditions(study_description=("*phantom*",)), False),
        (Conditions(study_description=("*CDMAM*", "x")), True),
        (Conditions(sender=("MG1",)), True),
        (Conditions(sender=("MG2",)), False),
        (Conditions(sop_class=("1.2",)), True),
        (Conditions(sop_class=("1.2.3",)), False),
        (Conditions(modality=("MG",), sender=("MG2",)), False),
    ],
)
def test_conditions(conditions, matches):
    """All conditions must hold, each by one of its texts, without regard to case."""
    header = Header("1.2", "1.2.3", "MG", "BREAST", "Quality control cdmam 3.4")
    assert conditions.match(header, "MG1") is matches


@pytest.mark.parametrize(
    ("address", "at", "is_at"),
    [
        ("10.0.0.5", "10.0.0.5", True),
        ("10.0.0.5", "10.0.0.6", False),
        ("10.0.0.0/24", "10.0.0.77", True),
        ("10.0.0.0/24", "10.0.1.77", False),
        ("127.0.0.1", "::ffff:127.0.0.1", True),
        ("localhost", "127.0.0.1", True),
        ("name.invalid", "127.0.0.1", False),
    ],
)
def test_addresses_of_peers(address, at, is_at):
    """An address is an IP address, a network, or a host name."""
    assert Peer("A", address).is_at(at) is is_at


def test_sources_may_not_look_back_further_than_is_remembered(tmp_path):
    """Otherwise an image that was forgotten would be found again."""
    more = 'sources: [{name: a, url: "http://a", modalities: MG, days: 90}]\n'
    with pytest.raises(InvalidInput, match=r"must look back less than limits\.keep_days, 90; got 90"):
        settings_in(tmp_path, more=more)


def test_the_example_of_the_documentation_is_valid(tmp_path):
    """Its keys are all that there are, and its limits and times are the defaults, as the page says."""
    page = (Path(radlens.__file__).parent.parent / "docs" / "pacs.md").read_text("utf-8")
    for name in ("node.pem", "node.key", "hospital-ca.pem"):
        (tmp_path / name).touch()
    settings = read_settings(written(tmp_path, page.partition("```yaml\n")[2].partition("```")[0]))
    assert (settings.limits, settings.retry) == (Limits(), Retry())
    assert [rule.name for rule in settings.rules] == ["phantoms", "breast-ultrasound"]
    assert set(settings.destinations) == {"pacs", "web"}
    assert settings.tls.ca == tmp_path / "hospital-ca.pem"
