"""LitServe with its batching: ``litserve_app.py MODEL PORT``."""

import sys
from typing import Any

import litserve as ls
import numpy as np
import xgboost as xgb


class Model(ls.LitAPI):
    """An XGBoost model, answering up to 64 requests at once."""

    def setup(self, device: str) -> None:  # noqa: ARG002
        """Load it."""
        self.model = xgb.Booster({"nthread": 1})
        self.model.load_model(sys.argv[1])

    def decode_request(self, request: dict[str, Any]) -> tuple[str, list[float]]:
        """The row."""
        return request["id"], request["features"]

    def batch(self, inputs: list[tuple[str, list[float]]]) -> list[tuple[str, list[float]]]:
        """Leave rows as they are."""
        return inputs

    def predict(self, rows: list[tuple[str, list[float]]]) -> list[tuple[str, float]]:
        """Answer them."""
        given = self.model.inplace_predict(np.array([row for _, row in rows], np.float32))
        return [(name, float(value)) for (name, _), value in zip(rows, given, strict=True)]

    def unbatch(self, output: list[tuple[str, float]]) -> list[tuple[str, float]]:
        """Leave answers as they are."""
        return output

    def encode_response(self, output: tuple[str, float]) -> dict[str, str | float]:
        """The answer."""
        return {"id": output[0], "prediction": output[1]}


if __name__ == "__main__":
    api = Model(max_batch_size=64, batch_timeout=0.001)
    server = ls.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=int(sys.argv[2]),
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
