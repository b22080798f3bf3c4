"""Ray Serve: ``ray_serve_app.py MODEL PORT``."""

import sys
import time

import numpy as np
import ray
import xgboost as xgb
from ray import serve
from starlette.requests import Request


@serve.deployment(num_replicas=1, ray_actor_options={"num_cpus": 1}, max_ongoing_requests=100)
class Model:
    """An XGBoost model."""

    def __init__(self, path: str) -> None:
        self.model = xgb.Booster({"nthread": 1})
        self.model.load_model(path)

    async def __call__(self, request: Request) -> dict[str, str | float]:
        """Answer one row."""
        body = await request.json()
        row = np.array([body["features"]], np.float32)
        return {"id": body["id"], "prediction": float(self.model.inplace_predict(row)[0])}


if __name__ == "__main__":
    ray.init(num_cpus=2, include_dashboard=False, logging_level="error")
    serve.start(http_options={"host": "127.0.0.1", "port": int(sys.argv[2])})
    serve.run(Model.bind(sys.argv[1]), route_prefix="/predict")
    while True:
        time.sleep(1)
