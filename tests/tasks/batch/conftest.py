"""Small bundles and inputs for batch prediction: real files, a model of three trees."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.columns import TIMESTAMP
from headrace import bundle
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead, pin
from headrace.settings import Settings
from headrace.spec import RequestField
from headrace.transform import find_transform
from serving.predictor import golden_table

NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)
NUMBERS = ("f0", "f1", "f2")

PLAIN = FeaturePlan(
    project="tiny",
    feature_service="none",
    definitions_sha256="0" * 64,
    event_timestamp="at",
    views=(),
    request=tuple(
        RequestField(name=name, description="a number", at_least=-100, at_most=100)
        for name in NUMBERS
    ),
    inputs_from_request=NUMBERS,
    transforms=(),
)
JOINED = FeaturePlan(
    project="tiny",
    feature_service="flight_delay",
    definitions_sha256="0" * 64,
    event_timestamp="scheduled_departure",
    views=(
        ViewRead(
            view="weather",
            table="weather",
            join_keys=(JoinKey(name="origin"),),
            event_timestamp="event_timestamp",
            created_timestamp="created_timestamp",
            ttl_seconds=7200,
            features=(
                FeatureRead(name="temperature", dtype="DOUBLE"),
                FeatureRead(name="wind", dtype="FLOAT"),
            ),
        ),
    ),
    request=(
        RequestField(name="scheduled_departure", dtype="timestamp", description="a moment"),
        RequestField(name="miles", description="miles to fly", at_least=1, at_most=6000),
    ),
    inputs_from_request=("miles",),
    transforms=(pin(find_transform("flights.scheduled_hour")),),
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A home of the test's own."""
    return Settings(home=tmp_path / "home")


@pytest.fixture(scope="session")
def _trees() -> Callable[[FeaturePlan, int], dict[str, bytes]]:
    """The files of a bundle with a model of three trees; another seed, another model."""

    def files(plan: FeaturePlan, seed: int) -> dict[str, bytes]:
        import xgboost

        random = np.random.default_rng(seed)
        matrix = random.normal(size=(300, len(plan.columns))).astype(np.float32)
        parameters = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
        label = matrix[:, 0] + random.normal(size=300) > 0
        model = xgboost.train(parameters, xgboost.DMatrix(matrix, label), 3)
        golden = golden_table(plan.columns, matrix[:8], model.inplace_predict(matrix[:8]))
        return {
            bundle.model_file("xgboost"): bytes(model.save_raw("ubj")),
            bundle.GOLDEN: bundle.arrow_bytes(golden),
            bundle.REFERENCE: b"profile",
            bundle.CARD: b"# A tiny model",
        }

    return files


@pytest.fixture
def bundle_of(
    settings: Settings,
    manifest_of: Callable[..., bundle.BundleManifest],
    _trees: Callable[[FeaturePlan, int], dict[str, bytes]],
) -> Callable[..., str]:
    """Write a bundle that follows a plan; returns its digest."""

    def write(plan: FeaturePlan, seed: int = 0) -> str:
        manifest = manifest_of("tiny", plan, training_rows=300)
        return bundle.write_bundle(settings.uri("bundles"), manifest, _trees(plan, seed))

    return write


@pytest.fixture
def plain(bundle_of: Callable[..., str]) -> str:
    """The digest of a bundle whose inputs are columns of what it scores."""
    return bundle_of(PLAIN)


@pytest.fixture
def joined(bundle_of: Callable[..., str], settings: Settings) -> str:
    """The digest of a bundle that joins weather, whose table is in the offline store."""
    write_weather(settings)
    return bundle_of(JOINED)


@pytest.fixture
def write_input(tmp_path: Path) -> Callable[..., Path]:
    """Write a table as a Parquet file of an input folder; returns the folder."""

    def write(table: pa.Table, name: str = "a.parquet", **options: object) -> Path:
        folder = tmp_path / "input"
        folder.mkdir(exist_ok=True)
        pq.write_table(table, folder / name, **options)
        return folder

    return write


@pytest.fixture
def numbers() -> Callable[..., pa.Table]:
    """Rows of ``PLAIN``'s columns; another seed, other rows."""

    def make(rows: int, seed: int = 0) -> pa.Table:
        random = np.random.default_rng(seed)
        columns = {name: random.normal(size=rows).astype(np.float32) for name in NUMBERS}
        return pa.table(columns | {"name": [f"row {n}" for n in range(rows)]})

    return make


@pytest.fixture
def flights() -> Callable[..., pa.Table]:
    """Rows of ``JOINED``'s requests, a minute apart."""

    def make(rows: int) -> pa.Table:
        random = np.random.default_rng(rows)
        return pa.table(
            {
                "origin": random.choice(["JFK", "LGA", "XXX"], rows).tolist(),
                "scheduled_departure": pa.array(
                    [NEW_YEAR + timedelta(minutes=n) for n in range(rows)], TIMESTAMP
                ),
                "miles": random.uniform(1, 6000, rows),
            }
        )

    return make


def write_weather(settings: Settings, *, warmer: float = 0.0) -> None:
    """Weather of a day and a half by the hour, at two airports."""
    folder = Path(settings.uri("offline"))
    folder.mkdir(parents=True, exist_ok=True)
    hours = [NEW_YEAR + timedelta(hours=hour) for hour in range(-3, 36)] * 2
    table = pa.table(
        {
            "origin": ["JFK"] * 39 + ["LGA"] * 39,
            "event_timestamp": pa.array(hours, TIMESTAMP),
            "created_timestamp": pa.array([h + timedelta(minutes=5) for h in hours], TIMESTAMP),
            "temperature": np.sin(np.arange(78.0)) * 20 + warmer,
            "wind": np.cos(np.arange(78.0)),
        }
    )
    pq.write_table(table, folder / "weather.parquet")


@pytest.fixture
def warm_up(settings: Settings) -> Callable[[], None]:
    """Write the weather anew, a degree warmer."""
    return lambda: write_weather(settings, warmer=1.0)
