import grpc
import numpy as np
import pytest

from headrace.errors import SettingRefused
from serving.errors import GrpcMissing, PortTaken
from serving.grpc import check
from serving.grpc.health import _MESSAGES
from serving.settings import ServerSettings

ROW = [71.5, 12.0, 178.0, 2475.0, 8.0]


def tensor(datatype="FP32", shape=(1, 5), name="features", **contents):
    return {
        "name": name,
        "datatype": datatype,
        "shape": list(shape),
        **({"contents": contents} if contents else {}),
    }


def raw(*rows):
    values = np.array(rows, "<f4")
    return {
        "inputs": [tensor(shape=values.shape)],
        "raw_input_contents": [values.tobytes()],
    }


def refused(call):
    with pytest.raises(grpc.RpcError) as caught:
        call()
    return caught.value


def test_raw_contents_come_back_raw_bit_for_bit(served, predicted, store):
    response = served.infer(id="mine", **raw(ROW, ROW))
    (output,) = response.outputs
    assert (output.name, output.datatype, list(output.shape)) == ("prediction", "FP32", [2])
    assert list(response.raw_output_contents) == [predicted([ROW, ROW]).tobytes()]
    assert (response.id, response.model_version) == ("mine", store.digests[0][:12])


TYPED = {
    "INT8": "int_contents",
    "INT16": "int_contents",
    "INT32": "int_contents",
    "INT64": "int64_contents",
    "UINT8": "uint_contents",
    "UINT16": "uint_contents",
    "UINT32": "uint_contents",
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
}


@pytest.mark.parametrize("datatype", TYPED)
def test_typed_contents_come_back_typed(served, predicted, datatype):
    row = [71, 12, 100, 24, 8]
    response = served.infer(inputs=[tensor(datatype, **{TYPED[datatype]: row})])
    assert not response.raw_output_contents
    (value,) = response.outputs[0].contents.fp32_contents
    assert np.float32(value) == predicted([row])[0]


def test_booleans_are_numbers_to_the_model(served, predicted):
    flags = [True, False, True, True, False]
    response = served.infer(inputs=[tensor("BOOL", bool_contents=flags)])
    (value,) = response.outputs[0].contents.fp32_contents
    assert np.float32(value) == predicted([flags])[0]


def test_keys_are_read_and_what_became_of_them_is_said(served, predicted):
    response = served.infer(
        inputs=[
            tensor("BYTES", [1], "origin", bytes_contents=[b"JFK"]),
            tensor("BYTES", [1], "tailnum", bytes_contents=[b"N123AA"]),
            tensor("BYTES", [1], "scheduled_departure", bytes_contents=[b"2013-08-01T12:00:00Z"]),
            tensor("FP64", [1], "distance_miles", fp64_contents=[2475.0]),
        ]
    )
    outputs = {output.name: output.contents for output in response.outputs}
    assert np.float32(outputs["prediction"].fp32_contents[0]) == predicted([ROW])[0]
    assert list(outputs["status__weather"].bytes_contents) == [b"present"]
    assert response.parameters["degraded"].bool_param is False


def test_an_id_comes_from_metadata_where_the_request_has_none(served):
    assert served.infer(metadata=[("x-request-id", "theirs")], **raw(ROW)).id == "theirs"
    ids = {served.infer(**raw(ROW)).id for _ in range(2)}
    assert len(ids) == 2


WRONG = {
    "an unknown model": ({"model_name": "other"}, "NOT_FOUND", "'other' is not served here"),
    "an unknown version": ({"model_version": "1"}, "NOT_FOUND", "version '1' is not served here"),
    "no inputs": ({"inputs": []}, "INVALID_ARGUMENT", "inputs are missing"),
    "a wrong shape": (
        {"inputs": [tensor(shape=[5], fp32_contents=ROW)]},
        "INVALID_ARGUMENT",
        "input 'features' has shape [5]; write [rows,5]",
    ),
    "an unknown datatype": (
        {"inputs": [tensor("FP8")]},
        "INVALID_ARGUMENT",
        'datatype "FP8"; write one of BOOL',
    ),
    "no contents": (
        {"inputs": [tensor()]},
        "INVALID_ARGUMENT",
        "has 0 values; shape [1,5] needs 5",
    ),
    "FP16 in typed contents": (
        {"inputs": [tensor("FP16")]},
        "INVALID_ARGUMENT",
        "send it in raw_input_contents",
    ),
    "more raw contents than inputs": (
        {"inputs": [tensor()], "raw_input_contents": [b"", b""]},
        "INVALID_ARGUMENT",
        "has 2 entries for 1 inputs",
    ),
    "both contents": (
        {"inputs": [tensor(fp32_contents=ROW)], "raw_input_contents": [b""]},
        "INVALID_ARGUMENT",
        "has contents and raw contents",
    ),
    "too many rows": (
        {"inputs": [tensor(shape=[51, 5])], "raw_input_contents": [bytes(51 * 20)]},
        "RESOURCE_EXHAUSTED",
        "51 rows is more than the 50 rows",
    ),
    "infinity": (
        {"inputs": [tensor(fp32_contents=[float("inf"), *ROW[1:]])]},
        "INVALID_ARGUMENT",
        "holds inf; send finite",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_request_has_the_right_status_and_says_what_is_wrong(served, case):
    fields, status, said = WRONG[case]
    error = refused(lambda: served.infer(**raw(ROW) | {"raw_input_contents": []} | fields))
    assert error.code() == grpc.StatusCode[status]
    assert said in error.details()
    assert "x-request-id" in dict(error.trailing_metadata())


def test_a_deadline_that_is_over_is_said_to_be(served):
    parameters = {"timeout": {"int64_param": 1}}  # a microsecond
    error = refused(lambda: served.infer(parameters=parameters, **raw(ROW)))
    assert error.code() == grpc.StatusCode.DEADLINE_EXCEEDED
    assert "nothing was computed" in error.details()


def test_a_message_that_is_too_long_is_refused_by_its_length(serving):
    small = serving(max_binary_bytes=1_000)
    error = refused(lambda: small.infer(**raw(*[ROW] * 60)))
    assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


def test_bytes_that_are_no_message_are_an_error_of_the_caller_alone(served):
    call = served.channel.unary_unary("/inference.GRPCInferenceService/ModelInfer")
    error = refused(lambda: call(b"\xff\xff\xff", timeout=5))
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "it is not a message of this call" in error.details()
    assert served.infer(**raw(ROW)).outputs


def test_a_stream_is_answered_in_its_order_and_goes_on_after_an_error(served, predicted):
    requests = [{"id": str(n), **raw([n, *ROW[1:]])} for n in range(100)]
    requests[3] = {"id": "3", "inputs": []}
    responses = served.stream(requests)
    assert [response.infer_response.id for response in responses] == [str(n) for n in range(100)]
    assert "inputs are missing" in responses[3].error_message
    answered = [r.infer_response.raw_output_contents[0] for r in responses if not r.error_message]
    rows = [[n, *ROW[1:]] for n in range(100) if n != 3]
    assert b"".join(answered) == predicted(rows).tobytes()


def test_server_and_model_say_who_they_are(served, columns, store):
    assert served.call("ServerLive").live
    assert served.call("ServerReady").ready
    assert served.call("ModelReady", name="flight_delay").ready
    server = served.call("ServerMetadata")
    assert (server.name, "model_repository" in server.extensions) == ("headrace", True)
    model = served.call("ModelMetadata", name="flight_delay")
    assert (model.platform, list(model.versions)) == ("headrace_xgboost", [store.digests[0][:12]])
    assert [t.name for t in model.inputs][: len(columns)] == columns
    assert [t.name for t in model.outputs] == ["prediction", "status__weather", "status__planes"]
    error = refused(lambda: served.call("ModelReady", name="other"))
    assert error.code() == grpc.StatusCode.NOT_FOUND


@pytest.mark.parametrize("field", ["model_name", "repository_name"])  # Triton's, KServe's
def test_a_model_leaves_and_comes_back(serving, field):
    served = serving()
    served.call("RepositoryModelUnload", **{field: "flight_delay"})
    assert not served.call("ServerReady").ready
    (state,) = served.call("RepositoryIndex").models
    assert (state.name, state.state) == ("flight_delay", "UNAVAILABLE")
    assert not served.call("RepositoryIndex", ready=True).models
    loaded = served.call("RepositoryModelLoad", **{field: "flight_delay"})
    assert (loaded.model_name, loaded.isLoaded) == ("flight_delay", True)
    assert served.infer(**raw(ROW)).outputs


def test_a_model_is_loaded_from_releases_alone(served):
    parameters = {"config": {"string_param": "{}"}}
    error = refused(
        lambda: served.call("RepositoryModelLoad", model_name="flight_delay", parameters=parameters)
    )
    assert "move the endpoint's release" in error.details()
    error = refused(lambda: served.call("RepositoryModelLoad", model_name="never_released"))
    assert error.code() == grpc.StatusCode.NOT_FOUND


def health(served, service=""):
    check = served.channel.unary_unary(
        "/grpc.health.v1.Health/Check",
        request_serializer=_MESSAGES["HealthCheckRequest"].SerializeToString,
        response_deserializer=_MESSAGES["HealthCheckResponse"].FromString,
    )
    return check(_MESSAGES["HealthCheckRequest"](service=service), timeout=5).status


def test_the_standard_health_service_answers_and_says_when_the_server_ends(serving):
    served = serving()
    assert [health(served, name) for name in ("", "flight_delay")] == [1, 1]
    assert refused(lambda: health(served, "other")).code() == grpc.StatusCode.NOT_FOUND
    served.draining = True
    assert [health(served, name) for name in ("", "flight_delay")] == [2, 2]
    assert not served.call("ServerReady").ready
    assert served.infer(**raw(ROW)).outputs


def test_a_taken_port_is_one_clear_error_before_anything_is_loaded(serving, served):
    with pytest.raises(PortTaken, match=f"127.0.0.1:{served.server.port}: Address already in use"):
        check(ServerSettings(grpc_port=served.server.port))
    with pytest.raises(PortTaken, match=f"127.0.0.1:{served.server.port}"):
        serving(grpc_port=served.server.port)


def test_workers_share_a_port_that_is_said():
    with pytest.raises(SettingRefused, match="HEADRACE_SERVER_GRPC_PORT = 0 is refused"):
        check(ServerSettings(grpc_port=0, workers=2))


def test_grpc_that_is_not_installed_is_one_clear_error(monkeypatch):
    monkeypatch.setattr("serving.grpc.find_spec", lambda name: None)
    with pytest.raises(GrpcMissing, match=r"pip install 'headrace\[grpc\]'"):
        check(ServerSettings(grpc_port=0))
    check(ServerSettings())
