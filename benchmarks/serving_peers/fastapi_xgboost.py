"""FastAPI and XGBoost, as a user would write it: ``fastapi_xgboost.py MODEL PORT``."""

import sys

import numpy as np
import uvicorn
import xgboost as xgb
from fastapi import FastAPI
from pydantic import BaseModel

model = xgb.Booster({"nthread": 1})
model.load_model(sys.argv[1])
app = FastAPI()


class Request(BaseModel):
    """One row."""

    id: str
    features: list[float]


@app.post("/predict")
async def predict(request: Request) -> dict[str, str | float]:
    """Answer it."""
    row = np.array([request.features], np.float32)
    return {"id": request.id, "prediction": float(model.inplace_predict(row)[0])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
