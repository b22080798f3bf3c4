"""tritonclient over gRPC: every call, every datatype, the stream, an event loop. See world."""

import asyncio
import queue

import numpy as np
import tritonclient.grpc as triton
import tritonclient.grpc.aio as triton_aio
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.serving.clients import world

w = world.from_arguments()
assert world.fields_that_differ(triton.service_pb2) == []
client = triton.InferenceServerClient(w.grpc)


def tensor(name, values):
    values = np.asarray(values)
    made = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values)
    return made


def infer(inputs, **options):
    return client.infer(w.name, inputs, **options)


def status_of(call):
    try:
        call()
    except InferenceServerException as error:
        return error.status()
    return None


assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(w.name)
assert client.is_model_ready(w.name, w.version)
assert client.get_server_metadata().name == "headrace"
metadata = client.get_model_metadata(w.name)
assert [told.name for told in metadata.inputs][: len(w.columns)] == w.columns

features = tensor("features", np.array(w.rows, np.float32))
answer = infer([features], request_id="mine", outputs=[triton.InferRequestedOutput("prediction")])
assert answer.as_numpy("prediction").tobytes() == w.predicted.tobytes()
assert answer.get_response().id == "mine"
for dtype in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
    answer = infer([tensor("features", np.array(w.whole_rows).astype(dtype))])
    wanted = w.predicted_bool if dtype == "bool" else w.predicted_whole
    assert answer.as_numpy("prediction").tobytes() == wanted.tobytes(), dtype
keys = [
    tensor("origin", np.array([b"JFK", b"XXX"], np.object_)),
    tensor("scheduled_departure", np.array([w.moment] * 2, np.object_)),
    tensor("distance_miles", np.array([w.rows[0][2]] * 2, np.float64)),
]
answer = infer(keys)
assert answer.as_numpy("prediction").tolist()[0] == w.predicted.tolist()[0]
assert answer.as_numpy("status__weather").tolist() == [b"present", b"never_seen"]

assert infer([features], priority=1, timeout=60_000_000, client_timeout=30)
late = "StatusCode.DEADLINE_EXCEEDED"
assert status_of(lambda: infer([features], timeout=1)) == late
wrong = tensor("features", np.zeros((1, 2), np.float32))
assert status_of(lambda: infer([wrong])) == "StatusCode.INVALID_ARGUMENT"
assert status_of(lambda: client.infer("other", [features])) == "StatusCode.NOT_FOUND"

told = queue.Queue()
client.start_stream(lambda result, error: told.put((result, error)))
for number in range(20):
    client.async_stream_infer(w.name, [features], request_id=str(number))
client.async_stream_infer(w.name, [wrong])
for number in range(20):
    result, error = told.get(timeout=20)
    assert error is None, error
    assert result.get_response().id == str(number)
    assert result.as_numpy("prediction").tobytes() == w.predicted.tobytes()
result, error = told.get(timeout=20)
assert "write [rows,3]" in str(error)
client.stop_stream()

(state,) = client.get_model_repository_index().models
assert (state.name, state.state) == (w.name, "READY")
client.unload_model(w.name)
assert status_of(lambda: client.is_model_ready(w.name)) or not client.is_model_ready(w.name)
client.load_model(w.name)
assert infer([features]).as_numpy("prediction").tobytes() == w.predicted.tobytes()
assert status_of(lambda: client.load_model("never_released")) == "StatusCode.NOT_FOUND"


async def main():
    async with triton_aio.InferenceServerClient(w.grpc) as client:
        assert await client.is_server_ready()
        calls = (client.infer(w.name, [features], request_id=str(n)) for n in range(50))
        for number, answer in enumerate(await asyncio.gather(*calls)):
            assert answer.get_response().id == str(number)
            assert answer.as_numpy("prediction").tobytes() == w.predicted.tobytes()


asyncio.run(main())
client.close()
print("done")
