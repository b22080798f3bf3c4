"""Spark: ``mapInPandas`` with the model loaded once a partition."""

import os
import sys
from collections.abc import Iterator

import pandas as pd
import xgboost
from pyspark.sql import SparkSession

source, out, model = sys.argv[1:]
os.environ["PYSPARK_PYTHON"] = sys.executable  # else its workers take any python3


def score(batches: Iterator[pd.DataFrame]) -> Iterator[pd.DataFrame]:
    """The predictions of a partition, batch by batch."""
    booster = xgboost.Booster(model_file=model)
    for batch in batches:
        yield pd.DataFrame({"prediction": booster.inplace_predict(batch.to_numpy())})


spark = (
    SparkSession.builder.master("local[2]")
    .config("spark.ui.enabled", "false")
    .config("spark.driver.bindAddress", "127.0.0.1")
    .config("spark.sql.execution.arrow.maxRecordsPerBatch", "131072")
    .getOrCreate()
)
spark.read.parquet(source).mapInPandas(score, "prediction float").write.parquet(out)
spark.stop()
