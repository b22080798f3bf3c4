import os
from dataclasses import dataclass, field
from datetime import UTC, datetime

import httpx
import numpy as np
import pytest

from featurestore.freshness import ReadStatus
from featurestore.online.reader import OnlineRows
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
from headrace.chain import newest
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead, pin
from headrace.release import move_release
from headrace.spec import DriftPolicy, RequestField
from headrace.transform import find_transform
from monitoring.inference_log import InferenceLog
from serving.app import create_server
from serving.dataplane import STATUS_NAMES
from serving.loading import ModelLoader
from serving.predictor import golden_table
from serving.repository import ModelRepository
from serving.settings import ServerSettings

# Whole programs, each run in a process of its own.
collect_ignore_glob = ["clients/*.py"]
ENDPOINT = "flight_delay"


@pytest.fixture(autouse=True)
def _no_settings_of_the_person(monkeypatch):
    for variable in list(os.environ):
        if variable.startswith("HEADRACE_"):
            monkeypatch.delenv(variable)


def view(name, keys, features, ttl_seconds=None):
    return ViewRead(
        view=name,
        table=name,
        join_keys=tuple(JoinKey(name=key) for key in keys),
        event_timestamp="event_timestamp",
        created_timestamp="created_timestamp",
        ttl_seconds=ttl_seconds,
        features=tuple(FeatureRead(name=feature, dtype="DOUBLE") for feature in features),
    )


@pytest.fixture(scope="session")
def plan():
    return FeaturePlan(
        project="headrace",
        feature_service="flight_delay",
        definitions_sha256="0" * 64,
        event_timestamp="scheduled_departure",
        views=(
            view("weather", ["origin"], ["temperature", "wind_speed"], ttl_seconds=3600),
            view("planes", ["tailnum"], ["seats"]),
        ),
        request=(
            RequestField(
                name="scheduled_departure",
                dtype="timestamp",
                description="when the flight is due to leave",
            ),
            RequestField(
                name="distance_miles", description="miles to fly", at_least=0, at_most=10_000
            ),
        ),
        inputs_from_request=("distance_miles",),
        transforms=(pin(find_transform("flights.scheduled_hour")),),
    )


def some_matrix(rows, columns, seed=0):
    random = np.random.default_rng(seed)
    matrix = random.normal(size=(rows, columns)).astype(np.float32)
    matrix[random.random(matrix.shape) < 0.2] = np.nan
    return matrix


@pytest.fixture(scope="session")
def booster(plan):
    """A factory of tiny models: another seed, another model."""
    import xgboost as xgb

    def train(seed=0, columns=None):
        matrix = some_matrix(300, columns or len(plan.columns), seed)
        label = np.random.default_rng(seed).random(300) < 0.4
        settings = {"objective": "binary:logistic", "max_depth": 3, "nthread": 1}
        return xgb.train(settings, xgb.DMatrix(matrix, label), 3)

    return train


@pytest.fixture(scope="session")
def bundle_files(plan, booster):
    """A factory of what a bundle holds; every part can be replaced."""

    def build(seed=0, **changes):
        model = booster(seed)
        matrix = some_matrix(20, len(plan.columns), seed + 100)
        golden = golden_table(plan.columns, matrix, model.inplace_predict(matrix))
        files = {
            model_file("xgboost"): bytes(model.save_raw("ubj")),
            GOLDEN: arrow_bytes(golden),
            REFERENCE: b"profile",
            CARD: b"# A tiny model",
        }
        return files | changes

    return build


@pytest.fixture(scope="session")
def manifest(plan):
    return BundleManifest(
        model=ENDPOINT,
        task="binary",
        runtime="xgboost",
        plan=plan,
        drift=DriftPolicy(),
        lineage=Lineage(
            code_revision="0" * 40,
            training_set_sha256="0" * 64,
            training_rows=300,
            trained_from=datetime(2013, 1, 1, tzinfo=UTC),
            trained_until=datetime(2013, 6, 1, tzinfo=UTC),
            tested_until=datetime(2013, 7, 1, tzinfo=UTC),
        ),
        metrics={"roc_auc": 0.5},
        parameters={"max_depth": 3},
        files={},
    )


@dataclass
class Store:
    """A storage root with bundles and releases of tiny models."""

    root: str
    manifest: BundleManifest
    bundle_files: object
    digests: list = field(default_factory=list)

    def bundle(self, seed=0, **changes):
        manifest = changes.pop("manifest", self.manifest)
        files = self.bundle_files(seed, **changes)
        return write_bundle(f"{self.root}/bundles", manifest, files)

    def release(self, digest, endpoint=ENDPOINT):
        """Move ``endpoint`` to ``digest``; revisions of other endpoints are theirs alone."""
        revision = newest(f"{self.root}/releases/{endpoint}")
        move_release(
            self.root, endpoint, champion=digest, expected=revision, by="test", reason="test"
        )
        self.digests.append(digest)
        return digest


@pytest.fixture
def store(tmp_path, manifest, bundle_files):
    """A store that nothing was released in yet."""
    return Store(str(tmp_path / "storage"), manifest, bundle_files)


class MemoryReader:
    """An online store in a dictionary: (view, keys) to the values of its features."""

    def __init__(self, plan, values, fails=None):
        self.plan, self.values, self.fails, self.closed = plan, values, fails, False

    def read(self, keys, at):
        if self.fails:
            raise self.fails
        rows = OnlineRows({}, {}, {})
        for read in self.plan.views:
            entities = list(zip(*(keys[name] for name in read.key_names), strict=True))
            found = [self.values.get((read.view, *entity)) for entity in entities]
            missing = [np.nan] * len(read.columns)
            table = np.array([missing if f is None else f for f in found], np.float64)
            rows.columns.update(zip(read.columns, table.T, strict=True))
            seen = np.array([f is not None for f in found])
            rows.status[read.view] = np.where(
                seen, ReadStatus.PRESENT, ReadStatus.NEVER_SEEN
            ).astype(np.uint8)
            rows.event_times[read.view] = np.where(
                seen, at - np.timedelta64(60, "s"), np.datetime64("NaT", "us")
            )
        return rows

    async def read_async(self, keys, at):
        return self.read(keys, at)

    @property
    def failure(self):
        return str(self.fails) if self.fails else None

    def close(self):
        self.closed = True


VALUES = {
    ("weather", "JFK"): [71.5, 12.0],
    ("weather", "LGA"): [69.0, 8.0],
    ("planes", "N123AA"): [178.0],
}


@pytest.fixture
def open_reader():
    return lambda plan: MemoryReader(plan, VALUES)


@pytest.fixture
def loader(store, open_reader):
    """Loads the models of the store, in this process, without a trial."""
    return ModelLoader(store.root, open_reader)


@pytest.fixture
def repository(store, loader):
    """A repository of one endpoint, at revision 1."""
    if not store.digests:
        store.release(store.bundle())
    repository = ModelRepository([ENDPOINT], loader, poll_seconds=0.02)
    yield repository
    repository.close()


@pytest.fixture
def endpoint(repository):
    """The endpoint of the repository."""
    return repository.endpoints[ENDPOINT]


@pytest.fixture
def settings():
    return ServerSettings(max_body_bytes=20_000, max_rows=50, body_seconds=0.5)


@pytest.fixture
def log(store):
    log = InferenceLog(store.root, status_names=STATUS_NAMES, flush_seconds=60)
    yield log
    log.close()


@pytest.fixture
def app(repository, settings, log):
    return create_server(repository, settings=settings, log=log).app


class Client:
    """HTTP without a socket, one call at a time."""

    def __init__(self, app):
        self._app = app

    def request(self, method, path, **options):
        import asyncio

        async def send():
            transport = httpx.ASGITransport(self._app)
            async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
                return await client.request(method, path, **options)

        return asyncio.run(send())

    def get(self, path, **options):
        return self.request("GET", path, **options)

    def post(self, path, **options):
        return self.request("POST", path, **options)


@pytest.fixture
def client(app):
    return Client(app)


@pytest.fixture
def instance():
    """A factory of good rows; a field set to ``...`` is left out."""

    def build(**changes):
        row = {
            "origin": "JFK",
            "tailnum": "N123AA",
            "scheduled_departure": "2013-08-01T12:00:00Z",
            "distance_miles": 2475,
        }
        return {name: value for name, value in (row | changes).items() if value is not ...}

    return build
