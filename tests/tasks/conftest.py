"""Models that endpoints run, as far as the flows that watch features look at them."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest

from headrace.bundle import BundleManifest, Lineage, file_names, write_bundle
from headrace.plan import FeaturePlan
from headrace.release import move_release
from headrace.settings import Settings
from headrace.spec import DriftPolicy

NEW_YEAR = datetime(2013, 1, 1, tzinfo=UTC)


@pytest.fixture(scope="session")
def manifest_of() -> Callable[..., BundleManifest]:
    """What ``bundle.json`` says of a small XGBoost model that follows a plan."""

    def make(model: str, plan: FeaturePlan, *, training_rows: int) -> BundleManifest:
        return BundleManifest(
            model=model,
            task="binary",
            runtime="xgboost",
            plan=plan,
            drift=DriftPolicy(),
            lineage=Lineage(
                code_revision="0" * 40,
                training_set_sha256="0" * 64,
                training_rows=training_rows,
                trained_from=NEW_YEAR,
                trained_until=NEW_YEAR,
                tested_until=NEW_YEAR,
            ),
            metrics={},
            parameters={},
            files={},
        )

    return make


@pytest.fixture
def released(manifest_of: Callable[..., BundleManifest]) -> Callable[..., str]:
    """Write a bundle that reads ``plan`` and release it; no model is in it. Returns its digest."""

    def make(settings: Settings, plan: FeaturePlan, *, endpoint: str) -> str:
        manifest = manifest_of(endpoint, plan, training_rows=0)
        digest = write_bundle(
            settings.uri("bundles"), manifest, dict.fromkeys(file_names("xgboost"), b"")
        )
        move_release(
            settings.storage_uri,
            endpoint,
            champion=digest,
            expected=0,
            by="a test",
            reason="it needs a running model",
        )
        return digest

    return make
