"""From a release to a model that may answer: tried, loaded, proven, warmed and measured."""

import logging
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from headrace.errors import HeadraceError
from headrace.plan import FeaturePlan
from headrace.release import Release
from serving.no_features import NoFeatures
from serving.predictor import Predictor, load_predictor
from serving.runtimes.device import DeviceChoice
from serving.schema import RequestSchema
from serving.served import FeatureReader, ServedModel
from serving.trial import Trials
from serving.trial_process import memory_bytes, settle, size_bytes

_WARM_ROWS = (1, 8, 64, 256)
"""Batches as they come: the first call of each size pays for memory that later ones find."""
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Loaded:
    """A model that may answer, and what it took."""

    model: ServedModel
    size_bytes: int
    """Its files and what loading them took in memory: measured, not estimated."""
    seconds: float
    """From the first byte read to the last warm-up."""


@dataclass(frozen=True)
class ModelLoader:
    """Loads models of one storage root."""

    storage_uri: str
    """The root that holds ``releases/`` and ``bundles/``."""
    open_reader: Callable[[FeaturePlan], FeatureReader]
    """Opens the online store for a plan."""
    device: DeviceChoice = "cpu"
    threads: int = 1
    """Cores that one ``predict`` may use; 0: all."""
    trials: Trials | None = None
    """Has each bundle loaded by a child first; None: bundles of this process's own making."""
    warm_results: Callable[[ServedModel], None] | None = None
    """Computes results that are kept before the model answers."""

    def load(
        self,
        release: Release,
        make_room: Callable[[int], None],
        *,
        again: bool = False,
        settle_seconds: float = 0.0,
    ) -> Loaded:
        """Return the model of ``release``, ready to answer.

        Args:
            release: names the bundle.
            make_room: called with the model's size in bytes before it is kept.
            again: try once more what was refused before.
            settle_seconds: how long it may take to get as fast as it will be; a model that
                replaces another has the time, a server that starts does not.

        Raises:
            BundleRefused: if the bundle does not prove itself.
            HeadraceError: if storage or online store cannot be asked; trying again may do.
        """
        begun = time.perf_counter()
        tried = self.trials.check(release.champion, again=again) if self.trials else 0
        if tried:
            make_room(tried)
        before = memory_bytes()
        predictor = load_predictor(
            f"{self.storage_uri}/bundles",
            release.champion,
            threads=self.threads,
            device=self.device,
        )
        # A child, where nothing else goes on, has measured better than this process can.
        size = tried or size_bytes(predictor, before)
        if not tried:
            make_room(size)
        plan = predictor.plan
        reader = self.open_reader(plan) if plan.views else NoFeatures()
        model = ServedModel(release, predictor, reader, RequestSchema(plan))
        # Once the last request lets go of it. The event loop is where that happens, so it only
        # hands the parts on: freeing a large model takes longer than a request may wait.
        weakref.finalize(model, _free_elsewhere, [predictor, reader]).atexit = False
        settle(predictor, settle_seconds)
        warm_up(model)
        if self.warm_results:
            self.warm_results(model)
        return Loaded(model, size, time.perf_counter() - begun)

    def close(self) -> None:
        """Let go of what trials need."""
        if self.trials:
            self.trials.close()


def warm_up(model: ServedModel) -> None:
    """Let the model and its reader do once what requests will ask of them.

    The model computes batches of several sizes; the reader connects by looking up one entity that
    need not exist. A store that does not answer is no reason to refuse a model: requests of raw
    features can be answered, and health tells of the store.
    """
    columns = len(model.predictor.columns)
    for rows in _WARM_ROWS:
        model.predictor.predict(np.zeros((rows, columns), np.float32))
    try:
        model.reader.read(*unknown_entity(model.predictor.plan))
    except HeadraceError as error:
        _logger.warning("model=%s warms up without features: %s", model.version, error)


def unknown_entity(plan: FeaturePlan) -> tuple[dict[str, list[str | int | None]], np.ndarray]:
    """The keys and the moment of a read that any store answers: an entity that need not exist."""
    keys = {key.name: key for view in plan.views for key in view.join_keys}
    wanted: dict[str, list[str | int | None]] = {
        name: ["" if key.dtype == "STRING" else 0] for name, key in keys.items()
    }
    return wanted, np.array([time.time_ns() // 1000], "datetime64[us]")


def _free_elsewhere(parts: list[Predictor | FeatureReader]) -> None:
    threading.Thread(target=_free, args=(parts,), name="free-model", daemon=True).start()


def _free(parts: list[Predictor | FeatureReader]) -> None:
    for part in parts:
        part.close()
    parts.clear()
