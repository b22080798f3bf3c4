"""What ``benchmarks.serving`` serves: a model, its release, features in Redis, and requests."""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks._wrk import Questions
from benchmarks.online_read import FEATURES, NOW, feast_config, feast_store, plan_of, write_views
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
from headrace.release import move_release
from headrace.settings import Settings
from headrace.spec import DriftPolicy
from serving.predictor import golden_table

ENDPOINT = "bench"
VIEWS = ("first", "second")
COLUMNS = len(VIEWS) * FEATURES
TREES, DEPTH = 200, 6
REQUESTS = 20_000
MOMENT = "2013-06-01T00:00:00Z"
RAW_PATH, KEYS_PATH = f"/v2/models/{ENDPOINT}/infer", "/api/v1/infer"
_EPOCH = datetime(2013, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class World:
    """A home with a release, and the files of requests."""

    settings: Settings
    model: Path
    """The model alone, for peers."""
    ubjson: bytes
    """The same, as a bundle holds it."""
    rows: np.ndarray
    """float32, shape (REQUESTS, COLUMNS)."""
    predictions: np.ndarray
    """What the model says of each: float32, shape (REQUESTS,)."""
    feast: Path
    """A Feast repository over the same Redis."""
    folder: Path

    def raw(self, kind: str, path: str, body: Any, **patterns: str) -> Questions:
        """Questions about ``rows``; ``body(number, row)`` writes one, ``row`` a list of floats."""
        lines = (body(number, row) for number, row in enumerate(self.rows.tolist(), 1))
        return self._questions(kind, path, lines, self.predictions, patterns)

    def keyed(self, kind: str, path: str, entities: int, body: Any) -> Questions:
        """Questions about entities drawn from a Zipf distribution; ``body(entity)`` writes one."""
        ranks = 1.0 / np.arange(1, entities + 1)
        random = np.random.default_rng(3)
        drawn = random.choice(random.permutation(entities), 5 * REQUESTS, p=ranks / ranks.sum())
        lines = (body(f"entity-{number}") for number in drawn.tolist())
        values = features_of(entities)[drawn].astype(np.float32)
        return self._questions(kind, path, lines, predict(self.model, values), {"name": "-"})

    def _questions(
        self, kind: str, path: str, bodies: Iterable[Any], expected: np.ndarray, patterns: Any
    ) -> Questions:
        lines, values = self.folder / f"{kind}.bodies", self.folder / f"{kind}.expected"
        lines.write_text("\n".join(json.dumps(b, separators=(",", ":")) for b in bodies) + "\n")
        values.write_text("\n".join(map(repr, expected.tolist())) + "\n")
        return Questions(path, lines, values, **patterns)


def make_world(folder: Path, redis: str, *, entities: int) -> World:
    """Train, bundle and release the model; write the features of ``entities`` into Redis."""
    settings = Settings(home=folder / "home", online_store=redis)
    plan, model = plan_of(*VIEWS), folder / "model.ubj"
    ubjson = train(model)
    rows = np.random.default_rng(1).normal(size=(REQUESTS, COLUMNS)).astype(np.float32)
    predictions = predict(model, rows)
    manifest = BundleManifest(
        model=ENDPOINT,
        task="binary",
        runtime="xgboost",
        plan=plan,
        drift=DriftPolicy(),
        lineage=Lineage(
            code_revision="0" * 40,
            training_set_sha256="0" * 64,
            training_rows=len(rows),
            trained_from=_EPOCH,
            trained_until=NOW,
            tested_until=NOW,
        ),
        metrics={"roc_auc": 0.5},
        parameters={"max_depth": DEPTH},
        files={},
    )
    golden = golden_table(plan.columns, rows[:20], predictions[:20])
    files = {
        model_file("xgboost"): ubjson,
        GOLDEN: arrow_bytes(golden),
        REFERENCE: b"",
        CARD: b"# A model for benchmarks",
    }
    digest = write_bundle(settings.uri("bundles"), manifest, files)
    move_release(
        settings.storage_uri, ENDPOINT, champion=digest, expected=0, by="benchmark", reason="first"
    )
    write_views(settings, names=VIEWS, entities=entities)
    feast = folder / "feast"
    feast.mkdir()
    feast_store(settings, feast)
    # JSON is YAML.
    (feast / "feature_store.yaml").write_text(json.dumps(feast_config(settings, feast)))
    return World(settings, model, ubjson, rows, predictions, feast, folder)


def raw_questions(world: World) -> Questions:
    """Rows as one tensor of the Open Inference Protocol."""
    return world.raw("raw", RAW_PATH, _v2_body, value=r'"data":%s*%[([-%d.e]+)%]')


def keyed_questions(world: World, entities: int) -> Questions:
    """An entity of the plain API; its features are read."""
    return world.keyed("keys", KEYS_PATH, entities, _keyed_body)


def train(path: Path) -> bytes:
    """Train 200 full trees of depth 6 on noise, keep them at ``path``, and return their UBJSON."""
    import xgboost as xgb

    random = np.random.default_rng(0)
    matrix = random.normal(size=(50_000, COLUMNS)).astype(np.float32)
    label = (matrix[:, :5].sum(axis=1) + random.normal(size=len(matrix)) > 0).astype(np.float32)
    settings = {"objective": "binary:logistic", "max_depth": DEPTH, "nthread": 2, "seed": 0}
    booster = xgb.train(settings, xgb.QuantileDMatrix(matrix, label), TREES)
    booster.save_model(path)
    return bytes(booster.save_raw("ubj"))


def predict(model: Path, rows: np.ndarray) -> np.ndarray:
    """What XGBoost's own Python package says: float32, shape (rows,)."""
    import xgboost as xgb

    booster = xgb.Booster({"nthread": 2})
    booster.load_model(model)
    given: np.ndarray = booster.inplace_predict(rows)
    return given


def features_of(entities: int) -> np.ndarray:
    """The values that ``write_views`` wrote: float64, shape (entities, COLUMNS)."""
    random = np.random.default_rng(0)
    blocks = []
    for _ in VIEWS:
        random.integers(0, 3600, entities)
        blocks.append(np.column_stack([random.normal(size=entities) for _ in range(FEATURES)]))
    return np.hstack(blocks)


def _v2_body(number: int, row: list[float]) -> dict[str, Any]:
    tensor = {"name": "features", "shape": [1, COLUMNS], "datatype": "FP32", "data": row}
    return {"id": str(number), "inputs": [tensor]}


def _keyed_body(entity: str) -> dict[str, Any]:
    return {"instances": [{"entity": entity, "at": MOMENT}]}
