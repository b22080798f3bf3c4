"""Ray Data: ``map_batches`` with the model loaded once an actor."""

import sys
from pathlib import Path

import numpy as np
import ray
import xgboost

source, out, model = sys.argv[1:]


class Score:
    """The model of an actor."""

    def __init__(self) -> None:
        self.booster = xgboost.Booster(model_file=model)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The predictions of a batch."""
        features = np.column_stack(list(batch.values()))
        return {"prediction": self.booster.inplace_predict(features)}


ray.init(num_cpus=2, include_dashboard=False, log_to_driver=False)
Path(out).mkdir()
rows = ray.data.read_parquet(source)
if rows.count():
    rows.map_batches(Score, batch_size=131_072, concurrency=1).write_parquet(out)
ray.shutdown()
