"""A home with a small released model and its features: what a server needs to answer."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from featurestore.catalog.catalog import Catalog
from featurestore.columns import TIMESTAMP
from featurestore.stores.materialize import materialize
from headrace.bundle import (
    CARD,
    GOLDEN,
    REFERENCE,
    BundleManifest,
    Lineage,
    arrow_bytes,
    model_file,
    write_bundle,
)
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.release import move_release
from headrace.settings import Settings
from headrace.spec import DriftPolicy, RequestField
from serving.predictor import golden_table

ENDPOINT = "flights"
V2 = f"/v2/models/{ENDPOINT}/infer"
WRITTEN = datetime(2013, 8, 1, 11, 30, tzinfo=UTC)
PLAN = FeaturePlan(
    project="tiny",
    feature_service="flights",
    definitions_sha256="0" * 64,
    event_timestamp="scheduled_departure",
    views=(
        ViewRead(
            view="weather",
            table="weather",
            join_keys=(JoinKey(name="origin"),),
            event_timestamp="event_timestamp",
            created_timestamp="created_timestamp",
            ttl_seconds=None,
            features=tuple(FeatureRead(name=f, dtype="DOUBLE") for f in ("rain", "wind")),
        ),
    ),
    request=(
        RequestField(name="scheduled_departure", dtype="timestamp", description="when it leaves"),
        RequestField(name="distance_miles", description="miles to fly"),
    ),
    inputs_from_request=("distance_miles",),
    transforms=(),
)
COLUMNS = PLAN.columns
RAW = b'{"inputs":[{"name":"features","shape":[1,3],"datatype":"FP32","data":[0.25,12.5,730.0]}]}'
KEYED = (
    b'{"instances":[{"origin":"JFK","scheduled_departure":"2013-08-01T12:00:00Z",'
    b'"distance_miles":730}]}'
)


def write_home(home: Path, *, seed: int = 0) -> str:
    """Write a model and release it; return its digest."""
    import xgboost as xgb

    random = np.random.default_rng(seed)
    matrix = random.normal(size=(300, len(COLUMNS))).astype(np.float32)
    label = matrix.sum(axis=1) + random.normal(size=300) > 0
    settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
    model = xgb.train(settings, xgb.DMatrix(matrix, label), 3)
    golden = golden_table(PLAN.columns, matrix[:20], model.inplace_predict(matrix[:20]))
    moment = datetime(2013, 1, 1, tzinfo=UTC)
    manifest = BundleManifest(
        model=ENDPOINT,
        task="binary",
        runtime="xgboost",
        plan=PLAN,
        drift=DriftPolicy(),
        lineage=Lineage(
            code_revision="0" * 40,
            training_set_sha256="0" * 64,
            training_rows=300,
            trained_from=moment,
            trained_until=moment,
            tested_until=moment,
        ),
        metrics={},
        parameters={},
        files={},
    )
    files = {
        model_file("xgboost"): bytes(model.save_raw("ubj")),
        GOLDEN: arrow_bytes(golden),
        REFERENCE: b"profile",
        CARD: b"# A tiny model",
    }
    _materialise(home)
    storage = Settings(home=home).storage_uri
    digest = write_bundle(f"{storage}/bundles", manifest, files)
    move_release(storage, ENDPOINT, champion=digest, expected=0, by="test", reason="test")
    return digest


def _materialise(home: Path) -> None:
    settings = Settings(home=home)
    times = dict.fromkeys(("event_timestamp", "created_timestamp"), pa.array([WRITTEN], TIMESTAMP))
    path = home / "storage" / "offline" / "weather.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"origin": ["JFK"], "rain": [0.25], "wind": [12.5], **times}), path)
    catalog = Catalog(
        project=PLAN.project, definitions_sha256="0" * 64, views=PLAN.views, services={}
    )
    materialize(settings, catalog, until=WRITTEN + timedelta(minutes=1))
