"""The handler without TorchServe: what it reads from a row, and the messages it sends."""

import json
import sys
import time
import warnings
from types import SimpleNamespace

import pytest
from archives import HANDLERS
from hypothesis import given
from hypothesis import strategies as st
from sample_images import noise

sys.path.insert(0, str(HANDLERS))

with warnings.catch_warnings():
    # TorchServe leaves a file open when it is imported.
    warnings.simplefilter("ignore", ResourceWarning)
    import batch_reply
    import engine_metrics
    from batch_reply import reply
    from model_handler import ModelHandler, decode

from radlens.engines.base import Refusal
from radlens.images import to_npy
from radlens.service import Response
from radlens.wire import BATCH, BEGUN, LENGTH


def test_the_path_tells_what_is_asked():
    """TorchServe says so in a header of its own, for each row."""
    assert decode({"body": b""}, {"explain": "True"}, "id").kind == "explain"
    assert decode({"body": b""}, {"explain": "False"}, "id").kind == "predict"
    assert decode({"body": b"", "explain": bytearray(b"true")}, {}, "id").kind == "explain"
    # A key for predictions alone may ask for no explanation, whatever the rest of its path says.
    assert decode({"body": b""}, {"explain": "False", "url_path": "explain=true"}, "id").kind == "predict"
    assert decode({"body": b""}, {"explain": "True", "url_path": "explain=false"}, "id").kind == "explain"
    assert decode({"body": b""}, {}, "id").kind == "predict"


def test_query_strings_are_read_where_torchserve_has_them():
    """As fields of the row, or behind the version in the path."""
    row = {"n_steps": bytearray(b"3"), "body": bytearray(b"abc"), "model_name": bytearray(b"cdmam")}
    request = decode(row, {"explain": "True", "url_path": "seed=5&zscore=2/n_samples=7/odd"}, "id")
    assert request.parameters == {"n_steps": "3", "seed": "5", "zscore": "2", "n_samples": "7", "odd": ""}
    assert (request.body, request.request_id) == (b"abc", "id")


@pytest.mark.parametrize(("body", "expected"), [({"a": [1]}, b'{"a": [1]}'), ("text", b"text"), (None, b"null")])
def test_bodies_that_were_decoded_are_encoded_again(body, expected):
    """TorchServe decodes JSON and text unless its configuration says otherwise."""
    assert decode({"body": body}, {"content-type": "application/json"}, "id").body == expected


VALUES = st.binary(max_size=9) | st.text(max_size=9) | st.none() | st.dictionaries(st.text(), st.integers())


@given(
    st.dictionaries(st.text() | st.sampled_from(["body", "explain"]), VALUES),
    st.dictionaries(
        st.text() | st.sampled_from(["explain", "url_path"]), st.text() | st.dictionaries(st.text(), st.text())
    ),
)
def test_any_row_is_decoded(row, headers):
    """An exception here would fail the whole batch."""
    assert decode(row, headers, "id").kind in ("predict", "explain")


class Context:
    """What a handler sees of TorchServe; keeps what it is told."""

    def __init__(self, n_rows):
        self.request_ids = {i: f"id-{i}" for i in range(n_rows)}
        self.headers = [{} for _ in range(n_rows)]
        self.status = [None] * n_rows
        self.stopping_criteria = None
        self.sent = []
        self.cl_socket = SimpleNamespace(sendall=self.sent.append)

    def get_all_request_header(self, idx):
        """Return no header."""
        return {}

    def get_request_id(self, idx=0):
        """Return the row's request id."""
        return self.request_ids[idx]

    def get_response_headers(self, idx):
        """Return what was set."""
        return self.headers[idx]

    def set_response_header(self, idx, key, value):
        """Keep a header."""
        self.headers[idx][key] = value

    def set_response_status(self, code, phrase, idx):
        """Keep a status."""
        self.status[idx] = (code, phrase)


@pytest.fixture
def messages(monkeypatch):
    """Replace TorchServe's encoding of a message by ``{row: (body, what it says of the stream)}``."""

    def create(bodies, request_ids, message, code, context):
        assert bodies.keys() == request_ids.keys()
        ends = {row: context.stopping_criteria[row](body) for row, body in bodies.items()}
        for row, end in ends.items():
            if end is not None:
                context.headers[row]["ts_stream_next"] = "false" if end else "true"
        return {row: (body, ends[row]) for row, body in bodies.items()}

    monkeypatch.setattr(batch_reply, "create_predict_response", create)
    monkeypatch.setattr(batch_reply, "PIECE", 4)


def test_small_answers_are_one_message(messages):
    """TorchServe's own, after the handler returned."""
    context = Context(2)
    assert reply(context, [b"a", b"bcde"], {}) == [b"a", b"bcde"]
    assert context.sent == []
    assert set(context.request_ids) == {0, 1}


def test_large_answers_are_sent_in_pieces(messages):
    """Small ones first; the row that is left ends when the handler returns."""
    context = Context(3)
    assert reply(context, [b"a", b"0123456789", b"b"], {}) == [b"", b"", b""]
    assert context.sent == [
        {0: (b"a", None), 2: (b"b", None), 1: (b"", False)},
        {1: (b"0123", False)},
        {1: (b"4567", False)},
        {1: (b"89", False)},
    ]
    assert set(context.request_ids) == {1}
    assert context.stopping_criteria is None


def test_streams_end_one_by_one(messages):
    """Each is over when its last piece is sent, in the message that opens the next one."""
    context = Context(3)

    def stream(emit):
        emit(b"one")
        emit(b"two")

    assert reply(context, [b"", b"a", b""], {0: stream, 2: stream}) == [b"", b"", b""]
    assert context.sent == [
        {1: (b"a", None), 0: (b"", False)},
        {0: (b"one", False)},
        {0: (b"two", False)},
        {0: (b"", True), 2: (b"", False)},
        {2: (b"one", False)},
        {2: (b"two", False)},
    ]
    assert set(context.request_ids) == {2}


def test_each_row_has_its_own_status_and_headers(messages):
    """Also where some rows are refused."""
    handler, context = ModelHandler(), Context(2)
    responses = [Response(200, "image/png", b"p", {"X-A": "1"}), Response(422, "application/json", b"e")]
    handler.service = SimpleNamespace(respond=lambda requests: responses[: len(requests)])
    assert handler.handle([{"body": b""}, {"body": b""}], context) == [b"p", b"e"]
    assert context.status == [(200, "OK"), (422, "Unprocessable Entity")]
    taken = [{name: headers.pop(name) for name in (BATCH, BEGUN)} for headers in context.headers]
    assert context.headers == [{"content-type": "image/png", "X-A": "1"}, {"content-type": "application/json"}]
    assert [each[BATCH] for each in taken] == ["2", "2"]
    assert 0 < float(taken[0][BEGUN]) <= time.monotonic()


def test_predictions_do_not_wait_for_explanations_of_their_batch(messages):
    """TorchServe ends a batch as a whole: a prediction is sent at once, with the length at which it is complete."""
    handler, context = ModelHandler(), Context(3)
    asked = []

    def respond(requests):
        asked.append([request.kind for request in requests])
        assert len(asked) == 1 or context.sent, "a prediction is sent before an explanation begins"
        return [Response(200, "application/json", request.kind.encode()) for request in requests]

    handler.service = SimpleNamespace(respond=respond)
    context.get_all_request_header = lambda idx: {"explain": str(idx != 1)}
    assert handler.handle([{"body": b""}] * 3, context) == [b"", b"", b""]
    assert asked == [["predict"], ["explain", "explain"]]
    assert context.sent[:2] == [{1: (b"pred", False)}, {1: (b"ict", False)}]
    assert context.headers[1][LENGTH] == "7"
    # It ends with the first message of the rest; one row is left for TorchServe to end.
    assert context.sent[2] == {1: (b"", True), 0: (b"", False)}
    assert set(context.request_ids) == {2}


def test_any_model_can_be_archived(classifier):
    """What lies in the archive says which service answers."""
    handler, seen = ModelHandler(), []
    metrics = SimpleNamespace(add_metric=lambda name, **others: seen.append(name))
    context = SimpleNamespace(system_properties={"model_dir": str(classifier.path)}, metrics=metrics)
    handler.initialize(context)
    assert seen == [engine_metrics.SERVING]
    answers = Context(2)
    predicted, refused = handler.handle([{"body": to_npy(noise((40, 30)))}, {"body": b""}], answers)
    assert json.loads(predicted)["prediction"]["classes"] == ["normal", "benign", "malignant"]
    assert answers.status == [(200, "OK"), (400, "Bad Request")]
    assert json.loads(refused)["request_id"] == "id-1"


def test_metrics_name_the_engine_that_serves_and_those_refused():
    """One gauge, and a counter for each graph that an engine was refused for."""
    refusals = (Refusal("openvino", "gradient.onnx", "wrong"), Refusal("onnxruntime", "gradient.onnx", "wrong"))
    engine = SimpleNamespace(name="torch", precision="f32", refused=refusals)
    seen = []

    def add_metric(name, value, unit, dimensions, metric_type):
        seen.append((name, value, metric_type.name, {each.name: each.value for each in dimensions}))

    engine_metrics.report(SimpleNamespace(add_metric=add_metric), "1.0", engine)
    serving, *refused = seen
    stated = {"ModelVersion": "1.0", "Engine": "torch", "Precision": "f32"}
    assert serving == ("RadlensEngineServing", 1, "GAUGE", stated)
    graphs = [("RadlensEngineRefused", 1, "COUNTER", each["Engine"]) for *_, each in refused]
    assert graphs == [("RadlensEngineRefused", 1, "COUNTER", name) for name in ("openvino", "onnxruntime")]
    assert refused[0][3] == {"ModelVersion": "1.0", "Engine": "openvino", "Graph": "gradient.onnx"}
