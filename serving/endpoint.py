"""What an endpoint runs now: one reference, replaced whole when the release moves.

A background thread asks every second whether the release has moved. A new bundle is loaded and
reproduces its golden rows before it takes the place of the old one; requests under way finish on
the model they began with, which is freed when the last of them lets go. A bundle that is refused
changes nothing: the old model keeps answering, and ``refused`` says why.
"""

import logging
import threading
import weakref
from collections.abc import Callable

from pydantic import ValidationError

from headrace.errors import BundleRefused, HeadraceError, UnknownName
from headrace.plan import FeaturePlan
from headrace.release import Release, newer_release, require_release
from serving.dataplane import FeatureReader, ServedModel
from serving.predictor import load_predictor
from serving.schema import RequestSchema

_logger = logging.getLogger(__name__)


class Endpoint:
    """An endpoint and the model that answers for it."""

    def __init__(
        self,
        storage_uri: str,
        name: str,
        open_reader: Callable[[FeaturePlan], FeatureReader],
        *,
        poll_seconds: float = 1.0,
    ) -> None:
        """Load what the endpoint's release names.

        Args:
            storage_uri: the root that holds ``releases/`` and ``bundles/``.
            name: the endpoint.
            open_reader: opens the online store for a plan.
            poll_seconds: how often to look for a newer release.

        Raises:
            UnknownName: if the endpoint was never released.
            BundleRefused: if its bundle does not prove itself.
        """
        self.name, self._storage_uri, self._open_reader = name, storage_uri, open_reader
        self._poll_seconds = poll_seconds
        self.current = self._load(require_release(storage_uri, name))
        """The model that answers. Read it once per request."""
        self.refused: str | None = None
        """Why the newest release does not run; None where it does."""
        self.unreachable: str | None = None
        """Why the last look at the release failed; None where it went well."""
        self._seen = self.current.release.revision
        self._closing = threading.Event()
        self._watcher = threading.Thread(target=self._watch, name="release-watch", daemon=True)

    def start_watching(self) -> None:
        """Follow the release from now on."""
        self._watcher.start()

    def close(self) -> None:
        """Stop following; requests under way keep their model."""
        self._closing.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def summary(self) -> str:
        """What answers now, in a few words."""
        model = self.current
        return f"{self.name} revision {model.release.revision} ({model.version})"

    def look(self) -> bool:
        """Follow the release once; True if another model answers now."""
        release = None
        try:
            release = newer_release(self._storage_uri, self.name, self._seen)
            model = self._load(release) if release else None
        except (BundleRefused, UnknownName) as error:
            # Refused for good: a bundle never changes, so wait until the release moves on.
            self.refused = self._tell(self.refused, error)
            self._seen = release.revision if release else self._seen
            return False
        except (HeadraceError, ValidationError, FileNotFoundError) as error:
            # Could not ask: nothing is known about the new release, so ask again next time.
            self.unreachable = self._tell(self.unreachable, error)
            return False
        self.unreachable = None
        if model is None:
            return False
        self.current, self._seen, self.refused = model, model.release.revision, None
        _logger.info("endpoint=%s revision=%d digest=%s", self.name, self._seen, model.version)
        return True

    def _watch(self) -> None:
        while not self._closing.wait(self._poll_seconds):
            self.look()

    def _tell(self, known: str | None, error: Exception) -> str:
        reason = str(error)
        if reason != known:  # once, not every second
            revision = self.current.release.revision
            _logger.error("endpoint=%s keeps revision %d: %s", self.name, revision, reason)
        return reason

    def _load(self, release: Release) -> ServedModel:
        predictor = load_predictor(f"{self._storage_uri}/bundles", release.champion)
        reader = self._open_reader(predictor.plan)
        model = ServedModel(release, predictor, reader, RequestSchema(predictor.plan))
        weakref.finalize(model, reader.close)  # once the last request lets go of it
        return model
