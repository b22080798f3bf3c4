"""A BentoML service; ``MODEL`` is in the environment."""

import os

import bentoml
import numpy as np
import xgboost as xgb


@bentoml.service(workers=1)
class Model:
    """An XGBoost model."""

    def __init__(self) -> None:
        self.model = xgb.Booster({"nthread": 1})
        self.model.load_model(os.environ["MODEL"])

    @bentoml.api
    async def predict(self, id: str, features: list[float]) -> dict[str, str | float]:  # noqa: A002
        """Answer one row."""
        row = np.array([features], np.float32)
        return {"id": id, "prediction": float(self.model.inplace_predict(row)[0])}
