"""The bare limit of XGBoost: Arrow batches to ``inplace_predict`` to Parquet, and nothing else."""

import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xgboost

source, out, model = map(Path, sys.argv[1:])
booster = xgboost.Booster(model_file=model)
out.mkdir()
for path in sorted(source.glob("*.parquet")):
    schema = pa.schema([("row", pa.int64()), ("prediction", pa.float32())])
    with pq.ParquetWriter(out / path.name, schema) as writer:
        row = 0
        for batch in pq.ParquetFile(path).iter_batches(131_072):
            features = np.column_stack([column.to_numpy() for column in batch.columns])
            predictions = booster.inplace_predict(features)
            rows = np.arange(row, row + len(features))
            writer.write_table(pa.table([rows, predictions], schema=schema))
            row += len(features)
