"""The OpenAPI document: made of what workers publish, and true of what the server answers."""

import json
from pathlib import Path

import httpx
import jsonschema
import pytest
import schemathesis
from browser import browsing, needs_browser
from front_door_site import KEY, TOKEN, eventually, site, version_of
from hypothesis import HealthCheck, given, settings
from real_worker import real_worker
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from radlens.families import described
from radlens.service.description import parameter_schema
from radlens.service.parameters import Above, Choice, Count, Integer, Number, YesOrNo
from radlens.web.openapi import document, published

CHECKS = [
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
]


@pytest.fixture(scope="module")
def patch():
    """Changes that last as long as the tests of this file."""
    with pytest.MonkeyPatch.context() as found:
        yield found


@pytest.fixture(scope="module")
def here(tmp_path_factory, classifier, patch):
    """A site whose worker is real, and the document of the site."""
    workdir = tmp_path_factory.mktemp("site")
    with site(workdir, real_worker(classifier, patch, workdir)) as found:
        yield found


@pytest.fixture(scope="module")
def promised(here):
    """The document."""
    return here.ask("/openapi.json", method="GET", content=b"").json()


@pytest.mark.parametrize(
    ("parameter", "valid", "invalid"),
    [
        (Integer(1, 9, 3), [1, 9], [0, 10, 1.5, "1", True]),
        (Count(1, 9, "auto"), [1, 9, "auto"], [0, 10, "other"]),
        (Number(0.5), [-1e9, 0, 0.5], ["x"]),
        (Number(0.5, 0, 1), [0, 1], [-0.1, 1.1]),
        (Above(1.0), [0.1, 1e9], [0, -1]),
        (Above(0.5, 1.0), [0.1, 0.99], [0, 1]),
        (Choice(("a", "b"), "a"), ["a", "b"], ["c", ""]),
        (YesOrNo(False), [True, False], ["yes", 1]),
    ],
)
def test_schemas_allow_what_parsers_read(parameter, valid, invalid):
    """And nothing else; the text is the parser's own."""
    schema = parameter_schema(parameter)
    check = jsonschema.Draft202012Validator(schema)
    assert all(check.is_valid(value) and parameter.parse(str(value)) is not None for value in valid)
    assert not any(check.is_valid(value) for value in invalid)
    assert (schema["description"], schema["default"]) == (parameter.expected, parameter.default)


def test_an_unknown_kind_of_parameter_is_text():
    """A family may have parsers of its own."""

    class Odd:
        default, expected = None, "odd"

    assert parameter_schema(Odd()) == {"type": "string", "description": "odd"}


def test_a_model_describes_all_its_methods(classifier):
    """Each with its own parameters."""
    found = described(classifier)
    assert (found["model"], found["version"], found["task"]) == (classifier.manifest.name, "1.0", "classification")
    assert found["default_method"] == "integrated_gradients"
    assert found["explain"].keys() == set(classifier.manifest.explainers)
    assert found["explain"]["integrated_gradients"]["n_steps"]["type"] == "integer"
    assert "n_steps" not in found["explain"]["saliency"]
    json.dumps(found)


def test_documents_that_are_none_are_skipped(tmp_path):
    """A worker may have died while it wrote."""
    for name, text in {"a.json": "{", "b.json": "[]", "c.json": '{"model": "m", "version": "1"}'}.items():
        (tmp_path / name).write_text(text)
    assert published(tmp_path) == {("m", "1"): {"model": "m", "version": "1"}}
    assert published(tmp_path / "missing") == {}


def test_the_document_names_every_version(here, promised, classifier):
    """The default also without its version; a version that has published nothing is there without parameters."""
    name = classifier.manifest.name
    assert {f"/predictions/{name}", f"/explanations/{name}", f"/explanations/{name}/1.0"} < promised["paths"].keys()
    here.torchserve.models[name].append(version_of("0.9"))

    def paths():
        return here.ask("/openapi.json", method="GET", content=b"").json()["paths"]

    try:
        assert eventually(lambda: f"/explanations/{name}/0.9" in paths())
        found = paths()[f"/predictions/{name}/0.9"]["post"]["parameters"]
        assert [each["$ref"].rpartition("/")[2] for each in found] == ["RequestId", "Deadline"]
    finally:
        here.torchserve.models[name].pop()
        assert eventually(lambda: f"/explanations/{name}/0.9" not in paths())


def test_parameters_of_several_methods_are_one_list(promised, classifier):
    """A query has one; each says for which methods it is, and the extension has those of each method."""
    operation = promised["paths"][f"/explanations/{classifier.manifest.name}"]["post"]
    parameters = {each["name"]: each for each in operation["parameters"] if "name" in each}
    assert len(parameters) == len([each for each in operation["parameters"] if "name" in each])
    assert parameters["method"]["schema"]["default"] == "integrated_gradients"
    assert parameters["n_steps"]["description"].startswith("an integer from 1")
    assert "integrated_gradients" in parameters["n_steps"]["description"]
    assert operation["x-radlens-methods"] == described(classifier)["explain"]


def test_every_schema_is_valid(promised):
    """JSON Schema 2020-12, the dialect of OpenAPI 3.1; and every reference leads somewhere."""

    def walk(part):
        if isinstance(part, dict):
            if isinstance(part.get("schema"), dict):
                jsonschema.Draft202012Validator.check_schema(part["schema"])
            if "$ref" in part:
                found = promised
                for name in part["$ref"].removeprefix("#/").split("/"):
                    found = found[name]
            for each in part.values():
                walk(each)
        elif isinstance(part, list):
            for each in part:
                walk(each)

    walk(promised)
    assert promised["openapi"] == "3.1.0"
    names = [each["operationId"] for path in promised["paths"].values() for each in path.values()]
    assert len(set(names)) == len(names)


def test_examples_and_defaults_are_valid(promised):
    """What a reader copies must work."""
    parameters = [
        each
        for path in promised["paths"].values()
        for operation in path.values()
        for each in operation.get("parameters", [])
        if "example" in each
    ]
    for each in [*parameters, *promised["components"]["parameters"].values()]:
        jsonschema.Draft202012Validator(each["schema"]).validate(each["example"])
    assert len(parameters) > 10


def test_the_document_needs_a_key(here):
    """It names the models."""
    assert here.ask("/openapi.json", method="GET", content=b"", key={}).status_code == 401


def test_a_missing_torchserve_is_told(tmp_path):
    """502: what it has is not known."""
    with site(tmp_path, management_socket=Path("/nowhere")) as alone:
        assert alone.ask("/openapi.json", method="GET", content=b"").status_code == 502


@pytest.mark.slow
def test_the_server_keeps_what_it_promises(here, promised):
    """Requests made from the document: statuses, headers, media types and documents are those that it states."""
    schema = schemathesis.openapi.from_dict(promised)
    schema.config.update(base_url=here.url)
    asked = []

    def check(operation):
        @settings(max_examples=15, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(case=operation.as_strategy())
        def promise(case):
            answer = case.call_and_validate(headers=KEY, checks=CHECKS, timeout=30)
            assert answer.status_code not in (500, 502), answer.content
            asked.append(operation.label)

        promise()

    operations = [result.ok() for result in schema.get_all_operations()]
    for operation in operations:
        check(operation)
    assert set(asked) == {operation.label for operation in operations}
    assert len(operations) == 10


def test_the_page_needs_no_file_from_elsewhere(here):
    """No address in it but its own, and the browser is told to fetch nothing else; it holds nothing of the server."""
    answer = httpx.get(here.url + "/docs")
    assert answer.status_code == 200
    assert "default-src 'none'; connect-src 'self'" in answer.headers["content-security-policy"]
    assert not any(word in answer.text for word in ("http:", "https:", "//cdn", "src=", "@import", "url("))
    assert all(name not in answer.text for name in here.torchserve.models)


@needs_browser
@pytest.mark.slow
def test_the_page_shows_every_path(here, promised, tmp_path):
    """With a key; a wrong one is told."""
    with browsing(tmp_path) as browser:
        browser.visit(here.url + "/docs")
        browser.click("#key")
        browser.type("wrong")
        browser.click("button")
        eventually_shows(browser, "#problem", "the key must be one of this server")
        browser.script("document.getElementById('key').value = arguments[0]", TOKEN)
        browser.click("button")
        eventually_shows(browser, "#found", "n_steps")
        shown = browser.text("#found")
        assert all(path in shown for path in promised["paths"])
        assert browser.text("#problem") == ""


def eventually_shows(browser, css, text):
    """Wait until a text is there."""
    for _ in range(200):
        if text in browser.text(css):
            return
    raise AssertionError(f"{text!r} must appear, got {browser.text(css)[:200]!r}")


def test_a_model_without_explanations_has_no_path_for_them():
    """An inpainter fills holes, and explains nothing."""
    paths = document({"fills": [{"model": "fills", "version": "1.0", "predict": {}, "explain": {}}]}, 9)["paths"]
    assert "/predictions/fills" in paths
    assert "/explanations/fills" not in paths
