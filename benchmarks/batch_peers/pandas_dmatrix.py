"""The plain loop that people write: pandas, ``DMatrix``, ``predict``, pandas."""

import sys
from pathlib import Path

import pandas as pd
import xgboost

source, out, model = map(Path, sys.argv[1:])
booster = xgboost.Booster(model_file=model)
out.mkdir()
for path in sorted(source.glob("*.parquet")):
    rows = pd.read_parquet(path)
    if len(rows):
        predictions = booster.predict(xgboost.DMatrix(rows), validate_features=False)
        result = pd.DataFrame({"row": range(len(rows)), "prediction": predictions})
        result.to_parquet(out / path.name)
