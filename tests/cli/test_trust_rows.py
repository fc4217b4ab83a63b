"""Rows of the trust card for what is known of the method and of the model."""

from radlens.cli.results import print_trust
from radlens.evaluation.planted import known_of
from radlens.evaluation.planted_record import RECORD

CARD = {
    "convergence_delta": None,
    "deletion": 0.1,
    "insertion": 0.9,
    "infidelity": 0.5,
    "infidelity_of_no_map": 1.0,
    "randomisation": None,
}


def test_planted_causes_and_lesions_have_rows(capsys):
    """Hits of the method at each cause, and the images whose score fell without the lesion."""
    effect = {"n": 24, "n_lowered": 23, "fall": 1.5}
    card = CARD | {"planted_causes": known_of("cam"), "causal": {"lesion": effect, "control": {"fall": 0.25}}}
    print_trust({"trust": card})
    printed = " ".join(capsys.readouterr().err.split())
    for cause, found in RECORD["causes"].items():
        assert f"planted cause, {cause}" in printed
        assert f"{found['methods']['cam']['n_hits']} of {found['methods']['cam']['n']}" in printed
    assert "23 of 24" in printed


def test_an_answer_of_an_older_server_has_no_such_rows(capsys):
    """Fields that are missing are left out."""
    print_trust({"trust": CARD})
    assert "planted" not in capsys.readouterr().err
