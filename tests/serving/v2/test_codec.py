import json
import time

import numpy as np
import pytest

from serving.errors import BodyRefused, BodyTooLarge, FieldsRefused, ModelNotServed
from serving.query import Query

ROW = [71.5, 12.0, 178.0, 2475.0, 8.0]
SEATS = "planes__seats"


def binary(document, *tails):
    """A body of the binary tensor extension, and what its head says."""
    header = json.dumps(document).encode()
    return header + b"".join(tails), {"header_length": len(header)}


def binary_features(values, datatype, wire, shape=(1, 5), **more):
    raw = np.array(values, wire).tobytes()
    tensor = {"name": "features", "shape": list(shape), "datatype": datatype}
    tensor["parameters"] = {"binary_data_size": len(raw)}
    return binary({"inputs": [tensor], **more}, raw)


def test_one_tensor_a_column_is_answered_bit_for_bit(ask_json, tensors, predicted, store):
    body = ask_json(tensors(rows=3) | {"id": "call 1"})
    assert body["id"] == "call 1"
    assert (body["model_name"], body["model_version"]) == ("flight_delay", store.digests[0][:12])
    (output,) = body["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("prediction", "FP32", [3])
    assert np.array(output["data"], np.float32).tobytes() == predicted([ROW] * 3).tobytes()


@pytest.mark.parametrize("data", [[*ROW, *ROW], [ROW, ROW]], ids=["flat", "nested"])
def test_one_tensor_of_all_features_gives_the_same_answer(ask_json, tensors, features, data):
    together = ask_json(features(data, (2, 5)))
    assert together["outputs"] == ask_json(tensors(rows=2))["outputs"]


def test_columns_of_shape_n_by_one_and_any_order_are_the_same(ask_json, tensors):
    body = tensors(rows=2, shape=[2, 1])
    body["inputs"].reverse()
    assert ask_json(body)["outputs"] == ask_json(tensors(rows=2))["outputs"]


def test_null_is_a_missing_value(ask_json, features, predicted):
    row = [None, 12, 178, 2475, 8]
    (value,) = ask_json(features(row))["outputs"][0]["data"]
    assert np.float32(value) == predicted([[np.nan, *row[1:]]])[0]


@pytest.mark.parametrize(
    ("datatype", "wire"),
    [("UINT8", "u1"), ("INT16", "<i2"), ("UINT64", "<u8"), ("FP16", "<f2"), ("FP64", "<f8")],
)
def test_every_datatype_gives_the_answer_of_its_numbers(ask, ask_json, predicted, datatype, wire):
    row = [71, 12, 178, 24, 8]
    body, said = binary_features(row, datatype, wire)
    (value,) = json.loads(ask(body, **said)[1])["outputs"][0]["data"]
    assert np.float32(value) == predicted([row])[0]
    as_json = {"name": "features", "shape": [1, 5], "datatype": datatype, "data": row}
    assert ask_json({"inputs": [as_json]})["outputs"][0]["data"] == [value]


def test_bytes_in_and_bytes_out(ask, predicted):
    output = {"name": "prediction", "parameters": {"binary_data": True}}
    body, said = binary_features([ROW, ROW], "FP32", "<f4", (2, 5), outputs=[output], id="b")
    lines, content = ask(body, **said)
    told, length = lines.decode().split("inference-header-content-length: ")
    assert told == "content-type: application/octet-stream\r\n"
    header = json.loads(content[: int(length)])
    (described,) = header["outputs"]
    assert described["parameters"] == {"binary_data_size": 8}
    assert "data" not in described
    assert content[int(length) :] == predicted([ROW, ROW]).tobytes()


def test_columns_in_bytes_lie_in_the_order_of_the_inputs(ask, columns, predicted):
    inputs, tails = [], []
    for name, value in zip(columns, ROW, strict=True):
        tensor = {"name": name, "shape": [1], "datatype": "FP32"}
        if name == SEATS:  # one of them as JSON: the bytes of the others close up
            tensor["data"] = [value]
        else:
            tensor["parameters"] = {"binary_data_size": 4}
            tails.append(np.array([value], "<f4").tobytes())
        inputs.append(tensor)
    body, said = binary({"inputs": inputs}, *tails)
    (value,) = json.loads(ask(body, **said)[1])["outputs"][0]["data"]
    assert np.float32(value) == predicted([ROW])[0]


def test_keys_are_answered_with_the_features_that_are_read(ask_json, keyed, predicted):
    body = ask_json(keyed(rows=2))
    outputs = {output["name"]: output for output in body["outputs"]}
    assert np.float32(outputs["prediction"]["data"][0]) == predicted([ROW])[0]
    assert outputs["status__weather"]["data"] == ["present", "present"]
    assert outputs["status__planes"]["datatype"] == "BYTES"
    assert body["parameters"] == {"degraded": False}


def test_keys_in_bytes_are_the_same_keys(ask, ask_json, keyed):
    document, tails = keyed(rows=1), []
    for tensor in document["inputs"]:
        (value,) = tensor.pop("data")
        text = value.encode() if isinstance(value, str) else None
        raw = (
            np.array([value]).tobytes() if text is None else len(text).to_bytes(4, "little") + text
        )
        tensor["parameters"] = {"binary_data_size": len(raw)}
        tails.append(raw)
    body, said = binary(document, *tails)
    assert json.loads(ask(body, **said)[1])["outputs"] == ask_json(keyed())["outputs"]


def test_statuses_come_as_bytes_too(ask, keyed):
    output = {"name": "status__planes", "parameters": {"binary_data": True}}
    lines, content = ask(keyed(outputs=[output]))
    length = int(lines.decode().split("inference-header-content-length: ")[1])
    assert content[length:] == b"\x07\x00\x00\x00present"


def test_a_column_beside_keys_wins_over_what_is_read(ask_json, keyed, predicted):
    body = keyed()
    body["inputs"].append({"name": SEATS, "shape": [1], "datatype": "INT32", "data": [20]})
    (value,) = ask_json(body)["outputs"][0]["data"]
    assert np.float32(value) == predicted([[*ROW[:2], 20, *ROW[3:]]])[0]


def test_an_unknown_entity_is_null_and_its_features_are_missing(ask_json, keyed, predicted):
    body = keyed()
    body["inputs"][1]["data"] = [None]
    outputs = {output["name"]: output["data"] for output in ask_json(body)["outputs"]}
    assert outputs["status__planes"] == ["never_seen"]
    assert np.float32(outputs["prediction"][0]) == predicted([[*ROW[:2], np.nan, *ROW[3:]]])[0]


def test_outputs_come_as_they_are_asked_for(ask_json, keyed):
    asked = [{"name": "status__weather"}, {"name": "prediction"}]
    outputs = ask_json(keyed(outputs=asked))["outputs"]
    assert [output["name"] for output in outputs] == ["status__weather", "prediction"]


def test_binary_output_may_be_asked_for_of_all_outputs(ask, features):
    body = features(parameters={"binary_data_output": True})
    assert ask(body)[0].startswith(b"content-type: application/octet-stream\r\n")
    body["outputs"] = [{"name": "prediction", "parameters": {"binary_data": False}}]
    assert ask(body)[0] == b"content-type: application/json\r\n"


def test_a_timeout_in_microseconds_becomes_a_deadline(codec, features, head):
    body = json.dumps(features(parameters={"timeout": 50_000})).encode()
    query = codec.decode(body, head())
    assert query.deadline == query.received + 0.05
    assert codec.decode(body, head(timeout=0.01)).deadline < time.perf_counter() + 0.05


def test_priority_is_ignored_and_said_to_be(ask_json, features):
    assert ask_json(features(parameters={"priority": 1}))["parameters"] == {"priority": "ignored"}


def test_parameters_that_are_not_known_change_nothing(ask_json, features):
    body = ask_json(features(parameters={"sequence_id": 5, "mine": "x"}))
    assert body["outputs"] == ask_json(features())["outputs"]


def test_the_id_is_the_bodys_else_the_heads_else_new(codec, features, head):
    plain, named = json.dumps(features()).encode(), json.dumps(features(id="mine")).encode()
    assert codec.decode(named, head(request_id="theirs")).request_id == "mine"
    assert codec.decode(plain, head(request_id="theirs")).request_id == "theirs"
    new = [codec.decode(plain, head()).request_id for _ in range(2)]
    assert len(set(new)) == 2


def test_the_usual_request_takes_the_fast_way(codec, features, tensors, head):
    for body in (features(), tensors(), tensors(rows=2), features(id="x")):
        assert type(codec.decode(json.dumps(body).encode(), head())) is Query


TENSOR_CASES = {
    "another datatype": ({SEATS: {"datatype": "BYTES"}}, "has datatype BYTES; the model's columns"),
    "no datatype": ({SEATS: {"datatype": None}}, "datatype null"),
    "text": ({SEATS: {"data": ["178"]}}, 'holds "178", which is not FP32'),
    "true": ({SEATS: {"data": [True]}}, "holds true, which is not FP32"),
    "a fraction in INT32": ({SEATS: {"datatype": "INT32", "data": [1.5]}}, "not INT32"),
    "beyond INT32": ({SEATS: {"datatype": "INT32", "data": [2**31]}}, "does not fit INT32"),
    "beyond FP32": ({SEATS: {"data": [3.5e38]}}, "does not fit FP32"),
    "too little data": ({SEATS: {"data": []}}, "has 0 values; shape [1] needs 1"),
    "too much data": ({SEATS: {"data": [1, 2]}}, "has 2 values; shape [1] needs 1"),
    "no data": ({SEATS: {"data": None}}, "has no list of values"),
    "nested in a flat shape": ({SEATS: {"data": [[1]]}}, "holds [1], which is not FP32"),
    "a ragged nest": ({SEATS: {"shape": [1, 1], "data": [[1, 2]]}}, "does not hold 1 values"),
    "other rows": ({SEATS: {"shape": [2], "data": [1, 2]}}, "shape [2]; write [1] or [1,1]"),
    "a wrong shape": ({SEATS: {"shape": [1, 2]}}, "shape [1,2]; write [1] or [1,1]"),
    "a shape of text": ({SEATS: {"shape": ["1"]}}, 'shape ["1"]'),
    "a misspelt name": ({SEATS: {"name": "planes__seat"}}, "did you mean 'planes__seats'?"),
    "a name twice": ({SEATS: {"name": "distance_miles"}}, "'distance_miles' is there twice"),
    "no name": ({SEATS: {"name": None}}, "inputs[2] has no name"),
    "bytes that are not there": ({SEATS: {"parameters": {"binary_data_size": 4}}}, "data and bin"),
    "shared memory": (
        {SEATS: {"parameters": {"shared_memory_region": "a"}}},
        "shared memory is not offered",
    ),
}


@pytest.mark.parametrize("case", TENSOR_CASES)
def test_a_wrong_tensor_is_refused_by_name_and_remedy(ask, tensors, case):
    changes, said = TENSOR_CASES[case]
    with pytest.raises(FieldsRefused) as caught:
        ask(tensors(**changes))
    assert said in str(caught.value)


BODY_CASES = {
    "a list": (b"[]", FieldsRefused, 'no list "inputs"'),
    "no inputs": ({"inputs": []}, FieldsRefused, "inputs are missing: weather__temperature,"),
    "another output": ({"outputs": [{"name": "y"}]}, FieldsRefused, 'no output "y"'),
    "outputs that are no list": ({"outputs": 5}, FieldsRefused, "outputs = 5; write a list"),
    "an output twice": (
        {"outputs": [{"name": "prediction"}] * 2},
        FieldsRefused,
        "'prediction' is asked for twice",
    ),
    "statuses of raw features": (
        {"outputs": [{"name": "status__planes"}]},
        FieldsRefused,
        "is of keyed requests alone",
    ),
    "classes": (
        {"outputs": [{"name": "prediction", "parameters": {"classification": 2}}]},
        FieldsRefused,
        "the classification extension is not offered",
    ),
    "an id that is a number": ({"id": 5}, FieldsRefused, "id = 5 is not text"),
    "an endless id": ({"id": "x" * 2000}, FieldsRefused, "id has 2,000 characters"),
    "parameters that are a list": ({"parameters": []}, FieldsRefused, "parameters of the body"),
    "a timeout of text": ({"parameters": {"timeout": "1s"}}, FieldsRefused, "write microseconds"),
    "a flag of text": ({"parameters": {"binary_data_output": 1}}, FieldsRefused, "true or false"),
}


@pytest.mark.parametrize("case", BODY_CASES)
def test_a_wrong_request_is_refused_with_its_reason(ask, features, case):
    body, kind, said = BODY_CASES[case]
    with pytest.raises(kind) as caught:
        ask(features() | body if isinstance(body, dict) else body)
    assert said in str(caught.value)


def test_too_many_rows_are_told_before_their_values_are_looked_at(ask, features):
    with pytest.raises(BodyTooLarge, match="1,000,000,000,000 rows is more than the 50 rows"):
        ask(features(shape=(10**12, 5)))
    with pytest.raises(BodyTooLarge, match="51 rows"):
        ask(features(ROW * 51, (51, 5)))


def test_features_of_another_shape_are_refused(ask, features):
    with pytest.raises(FieldsRefused, match=r"shape \[1,4\]; write \[rows,5\]"):
        ask(features(ROW[:4], (1, 4)))
    with pytest.raises(FieldsRefused, match=r"shape \[5\]; write \[rows,5\]"):
        ask(features(shape=(5,)))


def test_features_beside_columns_are_refused(ask, tensors, features):
    body = tensors()
    body["inputs"] += features()["inputs"]
    with pytest.raises(FieldsRefused, match="send one or the other"):
        ask(body)


def test_a_missing_key_is_named(ask, keyed):
    body = keyed()
    del body["inputs"][0]
    with pytest.raises(FieldsRefused, match="inputs are missing: origin; send all of the fields"):
        ask(body)


def test_a_key_that_does_not_fit_is_named_with_its_row(ask, keyed):
    body = keyed(rows=2)
    body["inputs"][3]["data"] = [2475.0, -1.0]
    with pytest.raises(FieldsRefused, match=r"row 1: distance_miles = -1\.0 is too small"):
        ask(body)


BINARY_CASES = {
    "a header longer than the body": (b"{}", 3, "Length is 3, the body has 2 bytes"),
    "bytes of no input": (b'{"inputs":[]}xx', 13, "2 bytes behind the JSON belong to no input"),
    "no JSON at all": (b"xxxx", 0, "it is not JSON"),
}


@pytest.mark.parametrize("case", BINARY_CASES)
def test_bytes_that_do_not_add_up_are_refused(ask, case):
    body, length, said = BINARY_CASES[case]
    with pytest.raises(BodyRefused) as caught:
        ask(body, header_length=length)
    assert said in str(caught.value)


@pytest.mark.parametrize("size", [-1, 1.5, "20", True, None])
def test_a_size_that_is_no_number_of_bytes_is_refused(ask, size):
    tensor = {"name": "features", "shape": [1, 5], "datatype": "FP32"}
    body, said = binary(
        {"inputs": [tensor | {"parameters": {"binary_data_size": size}}]}, b"x" * 20
    )
    with pytest.raises(FieldsRefused, match="write its number of bytes"):
        ask(body, **said)


def test_more_bytes_than_there_are_cannot_be_spoken_of(ask):
    tensor = {"name": "features", "shape": [1, 5], "datatype": "FP32"}
    tensor["parameters"] = {"binary_data_size": 10**9}
    body, said = binary({"inputs": [tensor]}, b"x" * 20)
    with pytest.raises(BodyRefused, match=r"speaks of 1000000000 bytes .* and 20 are left"):
        ask(body, **said)


def test_another_model_or_version_is_not_served(codec, head):
    for said in ({"name": "other"}, {"version": "1"}):
        with pytest.raises(ModelNotServed, match="is not served here"):
            codec.decode(b"{}", type(head())("/v2", **{"name": "flight_delay"} | said))


def test_an_error_is_told_in_the_protocols_form(codec):
    assert codec.encode_error(ModelNotServed("model", "x", "y"), "id") == (
        b"""{"error":"model 'x' is not served here; this server runs 'y'."}"""
    )
