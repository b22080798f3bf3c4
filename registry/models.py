"""Model versions: which bundles were registered, what they measured, and what was decided.

A version is immutable and stands for one bundle digest; an alias is a name that moves. The files
of a model are in its bundle; MLflow keeps the record: a run with metrics, parameters and lineage
for each version, and the decisions about it.
"""

import functools
import hashlib
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from headrace.errors import UnknownName
from headrace.names import checked_name
from registry.door import EXISTS, NOT_FOUND, allowing, artifact_location, asking, connect
from registry.records import (
    BUNDLE_URI,
    DECISION,
    DIGEST,
    ModelVersion,
    RecordedDecision,
    decision_of,
    version_of,
)

__all__ = ["ModelRegistry", "ModelVersion", "RecordedDecision"]


class ModelRegistry:
    """The model registry at an MLflow tracking URI.

    Every method raises ``RegistryUnreachable`` if the registry does not answer; no exception of
    MLflow leaves this room.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri

    def register(
        self,
        name: str,
        *,
        bundle_uri: str,
        digest: str,
        metrics: Mapping[str, float],
        parameters: Mapping[str, float | int | str],
        tags: Mapping[str, str],
    ) -> ModelVersion:
        """Return the version of a bundle, registering it if it is new.

        Safe to run twice and by several at once: a digest has one version.

        Args:
            name: the model.
            bundle_uri: the folder or URL of its bundle.
            digest: of the bundle.
            metrics: of the holdout.
            parameters: what the trainer was given.
            tags: lineage: data fingerprint, code revision, feature service.
        """
        checked_name("model", name)
        if found := self.version_by_digest(name, digest):
            return found
        kept = {**tags, DIGEST: digest, BUNDLE_URI: bundle_uri}
        with asking(self._uri):
            with allowing(EXISTS):
                self._client.create_registered_model(name)
            run_id = self._record_run(name, metrics, parameters, kept)
            # A server lets no run name files of its own machine, so a folder gets a scheme.
            source = bundle_uri if "://" in bundle_uri else f"bundle://{bundle_uri}"
            ours = self._client.create_model_version(
                name, source, run_id=run_id, tags=kept, await_creation_for=None
            )
        return self._first_of(name, digest, int(ours.version))

    def versions(self, name: str) -> tuple[ModelVersion, ...]:
        """Every version of a model, oldest first.

        Raises:
            UnknownName: if no version of it was ever registered.
        """
        found = self._search(name)
        if not found:
            raise UnknownName("registered model", name, self._names())
        return found

    def all_versions(self) -> tuple[ModelVersion, ...]:
        """Every version of every model, by model and oldest first."""
        return tuple(version for name in sorted(self._names()) for version in self._search(name))

    def version_by_alias(self, name: str, alias: str) -> ModelVersion | None:
        """The version an alias points to; None where there is no such alias or model."""
        return next((found for found in self._search(name) if alias in found.aliases), None)

    def version_by_digest(self, name: str, digest: str) -> ModelVersion | None:
        """The version of a bundle; None if it is not registered."""
        return next(iter(self._search(name, digest)), None)

    def set_alias(self, name: str, alias: str, version: int) -> None:
        """Move ``alias`` to ``version``; moving it where it is already is no change.

        Raises:
            UnknownName: if there is no such version.
            RegistryRefused: for an alias that MLflow keeps for itself, such as ``latest``.
        """
        self._require(name, version)
        with asking(self._uri):
            self._client.set_registered_model_alias(name, checked_name("alias", alias), version)

    def record_decision(
        self, name: str, version: int, *, decision: str, reason: str, facts: Mapping[str, Any]
    ) -> RecordedDecision:
        """Write down what was decided about a version, for good.

        Safe to run twice: the same decision for the same reason and facts is one record, with the
        time at which it was first made.

        Raises:
            UnknownName: if there is no such version.
        """
        self._require(name, version)
        what = {"decision": decision, "reason": reason, "facts": dict(facts)}
        document = json.dumps(what, sort_keys=True)
        key = DECISION + hashlib.sha256(document.encode()).hexdigest()[:32]
        with asking(self._uri):
            tags = self._client.get_model_version(name, str(version)).tags
            if key not in tags:
                tags = {key: json.dumps({**what, "decided_at": datetime.now(UTC).isoformat()})}
                self._client.set_model_version_tag(name, str(version), key, tags[key])
        return decision_of(name, version, tags[key])

    def decisions(self, name: str) -> tuple[RecordedDecision, ...]:
        """Every decision about a model, oldest first; empty if there was none."""
        with asking(self._uri):
            wanted = f"name = '{checked_name('model', name)}'"
            found = _all_pages(self._client.search_model_versions, wanted)
        records = [
            decision_of(name, int(version.version), text)
            for version in found
            for key, text in version.tags.items()
            if key.startswith(DECISION)
        ]
        return tuple(sorted(records, key=lambda record: record.decided_at))

    @functools.cached_property
    def _client(self) -> Any:
        return connect(self._uri)

    def _search(self, name: str, digest: str | None = None) -> tuple[ModelVersion, ...]:
        wanted = f"name = '{checked_name('model', name)}'"
        if digest is not None:
            wanted += f" and tags.{DIGEST} = '{checked_name('digest', digest)}'"
        with asking(self._uri):
            found = _all_pages(self._client.search_model_versions, wanted)
            aliases = self._aliases(name) if found else {}
            metrics = self._metrics(name, found)
        # A version without a digest is one that another process is taking back right now.
        whole = [one for one in found if DIGEST in one.tags]
        versions = [version_of(one, aliases, metrics.get(one.run_id, {})) for one in whole]
        return tuple(sorted(versions, key=lambda version: version.version))

    def _aliases(self, name: str) -> dict[str, str]:
        return dict(self._client.get_registered_model(name).aliases)

    def _metrics(self, name: str, found: list[Any]) -> dict[str, dict[str, float]]:
        """Metrics by run id: one question for many versions, one look-up for one."""
        if len(found) <= 1:
            runs = [self._client.get_run(version.run_id) for version in found]
        else:
            experiment = self._client.get_experiment_by_name(name)
            runs = _all_pages(
                functools.partial(self._client.search_runs, [experiment.experiment_id])
            )
        return {run.info.run_id: run.data.metrics for run in runs}

    def _record_run(
        self,
        name: str,
        metrics: Mapping[str, float],
        parameters: Mapping[str, float | int | str],
        tags: Mapping[str, str],
    ) -> str:
        from mlflow.entities import Metric, Param

        now = int(datetime.now(UTC).timestamp() * 1000)
        run = self._client.create_run(
            self._experiment(name), tags=dict(tags), run_name=tags[DIGEST][:12]
        )
        run_id = str(run.info.run_id)
        self._client.log_batch(
            run_id,
            metrics=[Metric(key, value, now, 0) for key, value in metrics.items()],
            params=[Param(key, str(value)) for key, value in parameters.items()],
        )
        self._client.set_terminated(run_id)
        return run_id

    def _experiment(self, name: str) -> str:
        if self._client.get_experiment_by_name(name) is None:
            with allowing(EXISTS):
                self._client.create_experiment(name, artifact_location(self._uri))
        return str(self._client.get_experiment_by_name(name).experiment_id)

    def _first_of(self, name: str, digest: str, ours: int) -> ModelVersion:
        """The lowest version of a digest: of several who registered it at once, the first wins."""
        first = self._search(name, digest)[0]
        if first.version != ours:
            with asking(self._uri), allowing(NOT_FOUND):
                self._client.delete_model_version(name, str(ours))
        return first

    def _require(self, name: str, version: int) -> None:
        known = {found.version for found in self.versions(name)}
        if version not in known:
            raise UnknownName(f"version of {name}", str(version), map(str, known))

    def _names(self) -> list[str]:
        with asking(self._uri):
            return [found.name for found in self._client.search_registered_models()]


def _all_pages(search: Any, *query: str) -> list[Any]:
    page = search(*query)
    found = list(page)
    while page.token:
        page = search(*query, page_token=page.token)
        found += page
    return found
