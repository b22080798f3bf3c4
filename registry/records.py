"""The records of the registry, and how they lie in the tags of an MLflow model version."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from pydantic import AwareDatetime

from headrace.spec import Part

DIGEST = "digest"
BUNDLE_URI = "bundle_uri"
DECISION = "decision."
"""The tag of a decision is this and the hash of what was decided."""


class ModelVersion(Part):
    """One registered version of a model."""

    name: str
    version: int
    digest: str
    """Of its bundle."""
    bundle_uri: str
    run_id: str
    """The MLflow run that holds its metrics and parameters."""
    created: AwareDatetime
    aliases: tuple[str, ...]
    metrics: dict[str, float]
    tags: dict[str, str]


class RecordedDecision(Part):
    """What was decided about a version, when and why."""

    name: str
    version: int
    decision: str
    reason: str
    facts: dict[str, Any]
    """The numbers behind it."""
    decided_at: AwareDatetime


def version_of(found: Any, aliases: Mapping[str, str], metrics: dict[str, float]) -> ModelVersion:
    """Our record of MLflow's model version, with its model's aliases and its run's metrics."""
    own = {DIGEST, BUNDLE_URI}
    tags = {key: value for key, value in found.tags.items() if not key.startswith(DECISION)}
    number = int(found.version)
    return ModelVersion(
        name=found.name,
        version=number,
        digest=tags[DIGEST],
        bundle_uri=tags[BUNDLE_URI],
        run_id=found.run_id,
        created=datetime.fromtimestamp(found.creation_timestamp / 1000, UTC),
        aliases=tuple(sorted(alias for alias, to in aliases.items() if int(to) == number)),
        metrics=metrics,
        tags={key: value for key, value in tags.items() if key not in own},
    )


def decision_of(name: str, version: int, text: str) -> RecordedDecision:
    """Our record of the JSON in a decision's tag."""
    return RecordedDecision(name=name, version=version, **json.loads(text))
