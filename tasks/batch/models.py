"""The models of a worker: each loaded once by its digest, few of them kept.

A model that is pushed out is freed when the last shard that uses it lets go: never in the middle of
a prediction.
"""

import threading
from collections import OrderedDict

from serving.predictor import Predictor, load_predictor
from serving.runtimes.device import DeviceChoice

KEPT = 2
"""Models that a worker holds: that of the run, and that of the one before or beside it."""


class Models:
    """Models by digest and device, the last used of them kept."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._loaded: OrderedDict[tuple[str, str, str], Predictor] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, bundles_root: str, digest: str, device: DeviceChoice) -> Predictor:
        """Return a model, loaded and proven on its golden rows if it was not here yet.

        Raises:
            BundleRefused: as ``load_predictor``.
        """
        key = (bundles_root, digest, device)
        with self._lock:  # two threads of a worker must not load one model twice
            if key not in self._loaded:
                while len(self._loaded) >= self._kept:
                    self._loaded.popitem(last=False)
                self._loaded[key] = load_predictor(bundles_root, digest, device=device)
            self._loaded.move_to_end(key)
            return self._loaded[key]


of_this_worker = Models()
"""One for the process, as a worker's shards come one by one."""
