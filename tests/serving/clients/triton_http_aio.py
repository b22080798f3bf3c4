"""tritonclient over HTTP on an event loop. See world."""

import asyncio

import numpy as np
import tritonclient.http.aio as triton

from tests.serving.clients import world

w = world.from_arguments()


async def main():
    async with triton.InferenceServerClient(w.http) as client:
        assert await client.is_server_ready()
        assert await client.is_model_ready(w.name)
        assert (await client.get_model_metadata(w.name))["name"] == w.name

        async def infer(number):
            rows = np.array(w.rows, np.float32)
            features = triton.InferInput("features", list(rows.shape), "FP32")
            features.set_data_from_numpy(rows, binary_data=bool(number % 2))
            answer = await client.infer(w.name, [features], request_id=str(number))
            assert answer.get_response()["id"] == str(number)
            assert answer.as_numpy("prediction").tobytes() == w.predicted.tobytes()

        await asyncio.gather(*map(infer, range(50)))


asyncio.run(main())
print("done")
