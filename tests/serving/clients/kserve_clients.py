"""KServe's clients, REST and gRPC: readiness, inference in JSON, typed and raw. See world."""

import asyncio

import grpc
import httpx
import numpy as np
from kserve import InferenceGRPCClient, InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.grpc import grpc_predict_v2_pb2 as messages
from kserve.protocol.grpc.grpc_predict_v2_pb2_grpc import GRPCInferenceServiceStub
from kserve.protocol.infer_type import RequestedOutput

from tests.serving.clients import world

w = world.from_arguments()
url = f"http://{w.http}"
# Field 1 of a load is read as either one's name; see serving/grpc/schema.py.
assert world.fields_that_differ(messages) == [
    "RepositoryModelLoadRequest.model_name",
    "RepositoryModelUnloadRequest.model_name",
]


def tensor(name, values, datatype, *, binary):
    values = np.asarray(values)
    made = InferInput(name, list(values.shape), datatype)
    made.set_data_from_numpy(values, binary_data=binary)
    return made


async def error_of(call, kind):
    try:
        await call
    except kind as error:
        return error
    raise AssertionError("a wrong request was answered")


async def over_rest():
    client = InferenceRESTClient(RESTConfig(protocol="v2"))
    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, w.name)
    assert not await client.is_model_ready(url, "other")
    for binary in (True, False):
        features = tensor("features", np.array(w.rows, np.float32), "FP32", binary=binary)
        output = RequestedOutput("prediction", parameters={"binary_data": binary})
        request = InferRequest(w.name, [features], request_id="mine", request_outputs=[output])
        answer = await client.infer(url, request, model_name=w.name)
        assert answer.id == "mine"
        assert answer.outputs[0].as_numpy().tobytes() == w.predicted.tobytes()
    keys = [
        tensor("origin", np.array(["JFK"], np.object_), "BYTES", binary=False),
        tensor("scheduled_departure", np.array([w.moment], np.object_), "BYTES", binary=False),
        tensor("distance_miles", np.array([w.rows[0][2]], np.float64), "FP64", binary=False),
    ]
    answer = await client.infer(url, InferRequest(w.name, keys), model_name=w.name)
    found = {output.name: output.as_numpy().tolist() for output in answer.outputs}
    assert np.float32(found["prediction"][0]) == w.predicted[0]
    assert found["status__weather"] in ([b"present"], ["present"])
    wrong = tensor("features", np.zeros((1, 2), np.float32), "FP32", binary=False)
    asking = client.infer(url, InferRequest(w.name, [wrong]), model_name=w.name)
    assert "write [rows,3]" in str(await error_of(asking, httpx.HTTPStatusError))
    await client.close()


async def over_grpc():
    client = InferenceGRPCClient(w.grpc)
    assert await client.is_server_live()
    assert await client.is_server_ready()
    assert await client.is_model_ready(w.name)
    raw = InferInput("features", [2, 3], "FP32")
    raw.set_data_from_numpy(np.array(w.rows, np.float32), binary_data=True)
    typed = InferInput("features", [2, 3], "FP32", data=[v for row in w.rows for v in row])
    for features in (raw, typed):
        answer = await client.infer(InferRequest(w.name, [features], request_id="mine"))
        assert answer.id == "mine"
        assert answer.outputs[0].as_numpy().tobytes() == w.predicted.tobytes()
    wrong = InferInput("features", [1, 2], "FP32", data=[1.0, 2.0])
    error = await error_of(client.infer(InferRequest(w.name, [wrong])), grpc.RpcError)
    assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
    assert "write [rows,3]" in error.details()
    await client.close()

    async with grpc.aio.insecure_channel(w.grpc) as channel:
        stub = GRPCInferenceServiceStub(channel)
        unload = messages.RepositoryModelUnloadRequest(model_name=w.name)
        assert (await stub.RepositoryModelUnload(unload)).isUnloaded
        load = messages.RepositoryModelLoadRequest(model_name=w.name)
        assert (await stub.RepositoryModelLoad(load)).isLoaded
        metadata = await stub.ModelMetadata(messages.ModelMetadataRequest(name=w.name))
        assert [told.name for told in metadata.inputs][: len(w.columns)] == w.columns


asyncio.run(over_rest())
asyncio.run(over_grpc())
print("done")
