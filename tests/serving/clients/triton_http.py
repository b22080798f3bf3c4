"""tritonclient over HTTP: every call, every datatype, as JSON and as bytes. See world."""

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException, np_to_triton_dtype

from tests.serving.clients import world

w = world.from_arguments()
client = triton.InferenceServerClient(w.http)


def tensor(name, values, binary):
    values = np.asarray(values)
    made = triton.InferInput(name, list(values.shape), np_to_triton_dtype(values.dtype))
    made.set_data_from_numpy(values, binary_data=binary)
    return made


def output(name="prediction", binary=True):
    return triton.InferRequestedOutput(name, binary_data=binary)


def infer(inputs, outputs=None, **options):
    return client.infer(w.name, inputs, outputs=outputs, **options)


def is_refused(call, said):
    try:
        call()
    except InferenceServerException as error:
        return said in str(error)
    return False


assert client.is_server_live()
assert client.is_server_ready()
assert client.is_model_ready(w.name)
assert client.is_model_ready(w.name, w.version)
assert not client.is_model_ready("other")
assert client.get_server_metadata()["name"] == "headrace"
metadata = client.get_model_metadata(w.name)
assert [told["name"] for told in metadata["inputs"]][: len(w.columns)] == w.columns
assert metadata["versions"] == [w.version]

for binary_in in (True, False):
    for binary_out in (True, False, None):
        asked = None if binary_out is None else [output(binary=binary_out)]
        features = tensor("features", np.array(w.rows, np.float32), binary_in)
        answer = infer([features], asked, request_id="mine")
        assert answer.as_numpy("prediction").tobytes() == w.predicted.tobytes()
        assert answer.get_response()["id"] == "mine"

for dtype in ("bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f2", "f4", "f8"):
    whole = np.array(w.whole_rows).astype(dtype)
    for binary in (True, False):
        if binary is False and dtype == "f2":
            continue  # the client itself has no JSON of it
        answer = infer([tensor("features", whole, binary)])
        wanted = w.predicted_bool if dtype == "bool" else w.predicted_whole
        assert answer.as_numpy("prediction").tobytes() == wanted.tobytes(), dtype

columns = [
    tensor(c, np.array(v, np.float32), True) for c, v in zip(w.columns, w.by_column, strict=True)
]
assert infer(columns).as_numpy("prediction").tobytes() == w.predicted.tobytes()

for binary in (True, False):
    keys = [
        tensor("origin", np.array([b"JFK", b"XXX"], np.object_), binary),
        tensor("scheduled_departure", np.array([w.moment] * 2, np.object_), binary),
        tensor("distance_miles", np.array([w.rows[0][2]] * 2, np.float64), binary),
    ]
    answer = infer(keys)
    assert answer.as_numpy("prediction").tolist()[0] == w.predicted.tolist()[0]
    assert answer.as_numpy("status__weather").tolist() == [b"present", b"never_seen"]

features = tensor("features", np.array(w.rows, np.float32), True)
assert infer([features], priority=1, timeout=60_000_000).get_response()["parameters"]
assert is_refused(lambda: infer([features], timeout=0.5), "write microseconds")
assert is_refused(lambda: infer([features], timeout=1), "nothing was computed")
wrong = tensor("features", np.zeros((1, 2), np.float32), True)
assert is_refused(lambda: infer([wrong]), "write [rows,3]")
assert is_refused(lambda: client.infer("other", [features]), "is not served here")
assert is_refused(lambda: infer([features], [output("y")]), "there is no output")
shared = triton.InferInput("features", [2, 3], "FP32")
shared.set_shared_memory("region", 24)
assert is_refused(lambda: infer([shared]), "shared memory is not offered")

assert client.get_model_repository_index()[0]["state"] == "READY"
client.unload_model(w.name)
assert not client.is_model_ready(w.name)
assert client.get_model_repository_index()[0]["state"] == "UNAVAILABLE"
client.load_model(w.name)
assert infer([features]).as_numpy("prediction").tobytes() == w.predicted.tobytes()
assert is_refused(lambda: client.load_model("never_released"), "never_released")
assert is_refused(lambda: client.load_model(w.name, config="{}"), "move the endpoint's release")
client.close()
print("done")
