"""FastAPI, the Feast SDK and XGBoost: ``fastapi_feast.py MODEL PORT REPOSITORY``.

The folder REPOSITORY holds a ``feature_store.yaml``; its registry is a local file that is read
once and never again, which is the best that the SDK can do.
"""

import sys

import numpy as np
import uvicorn
import xgboost as xgb
from fastapi import FastAPI
from feast import FeatureStore
from pydantic import BaseModel

model = xgb.Booster({"nthread": 1})
model.load_model(sys.argv[1])
store = FeatureStore(sys.argv[3])
names = [f"{view}:{view}_f{n}" for view in ("first", "second") for n in range(10)]
columns = [name.partition(":")[2] for name in names]
app = FastAPI()


class Request(BaseModel):
    """One entity."""

    entity: str


@app.post("/predict")
async def predict(request: Request) -> dict[str, str | float]:
    """Answer it."""
    found = store.get_online_features(names, [{"entity": request.entity}]).to_dict()
    row = np.array([[found[column][0] for column in columns]], np.float32)
    return {"prediction": float(model.inplace_predict(row)[0])}


if __name__ == "__main__":
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[2]), log_level="warning")
