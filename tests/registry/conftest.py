"""One real MLflow registry on SQLite for the room, and small facts to put into it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from headrace.scorecard import Scorecard, SliceScore
from headrace.spec import Gate, LabelSource, ModelSpec
from registry.models import ModelRegistry, ModelVersion


@pytest.fixture(scope="session")
def registry_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A database in a folder that does not exist yet."""
    folder: Path = tmp_path_factory.mktemp("registry") / "new" / "folder"
    return f"sqlite:///{folder / 'registry.db'}"


@pytest.fixture
def registry(registry_uri: str) -> ModelRegistry:
    return ModelRegistry(registry_uri)


@pytest.fixture
def register(registry: ModelRegistry) -> Callable[..., ModelVersion]:
    """A factory of versions: ``register("m", "aa")``."""

    def make(name: str, digest: str, *, auc: float = 0.75) -> ModelVersion:
        return registry.register(
            name,
            bundle_uri=f"/storage/bundles/{digest}",
            digest=digest,
            metrics={"roc_auc": auc},
            parameters={"rounds": 300, "eta": 0.1, "tree_method": "hist"},
            tags={"code_revision": "abc123", "feature_service": "flight_delay"},
        )

    return make


@pytest.fixture
def card() -> Scorecard:
    """A holdout with a large, a small and a one-class slice."""
    return Scorecard(
        rows=2000,
        metrics={"roc_auc": 0.74, "log_loss": 0.41, "brier": 0.13},
        slices=(
            SliceScore(by="origin", value="JFK", rows=1200, metrics={"roc_auc": 0.76}),
            SliceScore(by="origin", value="LGA", rows=700, metrics={"brier": 0.2}),
            SliceScore(by="origin", value="EWR", rows=100, metrics={"roc_auc": 0.4}),
        ),
    )


@pytest.fixture
def spec() -> ModelSpec:
    return ModelSpec(
        name="flight_delay",
        description="Predicts whether a flight arrives late.",
        owner="operations",
        feature_service="flight_delay",
        label=LabelSource(
            table="flights",
            entity_keys=("origin", "carrier"),
            event_timestamp="scheduled",
            created_timestamp="arrived",
            column="is_late",
        ),
        scoring_table="schedule",
        gates=(Gate(metric="roc_auc", at_least=0.7),),
    )
