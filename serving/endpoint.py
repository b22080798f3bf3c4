"""One endpoint: the model that answers for it, and the release that it follows.

A thread of its own asks whether the release has moved. A new bundle is loaded beside the old one
and takes its place by one reference; requests under way finish on the model they began with, which
is freed when the last of them lets go. A bundle that is refused changes nothing: the model before
keeps answering, and ``refused`` says why.
"""

import logging
import threading
import weakref
from collections.abc import Callable
from typing import Literal

from pydantic import ValidationError

from headrace.errors import BundleRefused, HeadraceError, UnknownName
from headrace.release import Release, newer_release, read_release, require_release
from serving.errors import ModelTooLarge
from serving.loading import Loaded, ModelLoader
from serving.served import ServedModel

State = Literal["READY", "LOADING", "UNAVAILABLE"]
"""Words of the model repository extension of the Open Inference Protocol."""

EVICTED = "it left memory for others; the next request brings it back"
_REFUSED = (BundleRefused, UnknownName, ModelTooLarge)
_EARLIER = 5  # revisions that a start goes back where the newest is refused
_SETTLE_SECONDS = 1.0
_LONGEST_PAUSE_SECONDS = 5.0
_logger = logging.getLogger(__name__)


class Endpoint:
    """An endpoint that this server was told to serve."""

    def __init__(
        self,
        name: str,
        loader: ModelLoader,
        *,
        make_room: Callable[["Endpoint", int], None],
        changed: Callable[[], None],
        poll_seconds: float = 1.0,
    ) -> None:
        """Know of the endpoint; ``begin`` loads its model.

        Args:
            name: the endpoint.
            loader: loads its models.
            make_room: called with a model's size in bytes before it is kept.
            changed: called whenever another model answers, or none.
            poll_seconds: how often to look for a newer release.
        """
        self.name, self.loader = name, loader
        self._make_room, self._changed = make_room, changed
        self._poll_seconds = poll_seconds
        self.loaded: Loaded | None = None
        """What answers, and its size; None while nothing does."""
        self.refused: str | None = None
        """Why the newest release does not run; None where it does."""
        self.unreachable: str | None = None
        """Why the last look at the release failed; None where it went well."""
        self.evicted = False
        """Whether the model left memory for others; it comes back when it is asked for."""
        self.is_loading, self._again = False, False
        self.reserved_bytes = 0
        """Memory kept free for the model that loads now."""
        self.used = 0
        """When it was last asked for, by the repository's count of requests."""
        self.load_seconds = 1.0
        """How long its last model took to load."""
        self._seen = 0
        self._turn = threading.Lock()  # one look at a time
        self._closing, self._asked = threading.Event(), threading.Event()
        self._watcher: threading.Thread | None = None

    @property
    def current(self) -> ServedModel | None:
        """The model that answers. Read it once per request."""
        loaded = self.loaded
        return loaded.model if loaded else None

    @property
    def state(self) -> State:
        """Whether it answers; while it loads its first model, not yet."""
        if self.loaded:
            return "READY"
        return "LOADING" if self.is_loading or self._asked.is_set() else "UNAVAILABLE"

    @property
    def reason(self) -> str:
        """What is wrong, or why nothing answers; empty where all is well."""
        return self.refused or self.unreachable or (EVICTED if self.evicted else "")

    @property
    def taken_bytes(self) -> int:
        """The memory that it has, or that is kept free for it."""
        return max(self.reserved_bytes, self.loaded.size_bytes if self.loaded else 0)

    def begin(self) -> None:
        """Load what the release names, or the newest revision before it that proves itself.

        That is what a server that had run all along would answer with: a refused release leaves
        the one before in its place.

        Raises:
            UnknownName: if the endpoint was never released.
            BundleRefused: if none of the last revisions proves itself; with the newest's reason.
            HeadraceError: if storage or the online store cannot be asked.
        """
        with self._turn:
            self._begin()

    def watch(self) -> None:
        """Follow the release from now on."""
        self._watcher = threading.Thread(target=self._watch, name=f"watch {self.name}", daemon=True)
        self._watcher.start()

    def close(self) -> None:
        """Stop following; requests under way keep their model."""
        self._closing.set()
        self._asked.set()
        if self._watcher and self._watcher is not threading.current_thread():
            # One that is loading is not waited for: it ends with the process.
            self._watcher.join(timeout=1.0)

    def look(self, *, asked: bool = False) -> bool:
        """Follow the release once; True if another model answers now.

        Args:
            asked: whether a model that left memory is to come back.
        """
        with self._turn:
            return self._look(asked=asked)

    def look_again(self) -> bool:
        """As ``look``, and try once more what was refused before."""
        with self._turn:
            if self.refused:
                self._seen, self.refused = 0, None
            self._again = True
            try:
                return self._look(asked=True)
            finally:
                self._again = False

    def _look(self, *, asked: bool) -> bool:
        before = self.current
        try:
            if not self.evicted:
                self._follow()
            elif asked:
                self._begin()
        except _REFUSED as error:
            # Refused for good: a bundle never changes, so wait until the release moves on.
            self.refused, self.evicted = self._tell(self.refused, error), False
        except (HeadraceError, ValidationError, FileNotFoundError) as error:
            # Could not ask: nothing is known about the new release, so ask again later.
            self.unreachable = self._tell(self.unreachable, error)
        else:
            self.unreachable = None
        return self.current is not before

    def drained(self, seconds: float) -> bool:
        """Let go of the model, and wait until its last request has; False if that takes longer."""
        gone = threading.Event()
        if self.loaded:
            weakref.finalize(self.loaded.model, gone.set)
            self.loaded = None
            return gone.wait(seconds)
        return True

    def evict(self) -> None:
        """Let go of the model; requests under way finish on it."""
        self.loaded, self.evicted = None, True
        self._changed()
        _logger.info("endpoint=%s left memory for others", self.name)

    def ask(self) -> None:
        """Have an evicted model loaded again; returns at once."""
        self._asked.set()

    def _watch(self) -> None:
        pause = self._poll_seconds
        while not self._closing.is_set():
            # Nobody waits for an evicted model until somebody asks for it.
            asked = self._asked.wait(None if self.evicted else pause)
            if self._closing.is_set():
                return
            self._asked.clear()
            self.look(asked=asked)
            # A store that is away is asked less and less often: each try may load a whole model.
            longest = max(_LONGEST_PAUSE_SECONDS, self._poll_seconds)
            pause = min(2 * pause, longest) if self.unreachable else self._poll_seconds

    def _begin(self) -> None:
        """Load the newest revision that proves itself; see ``begin``."""
        newest = require_release(self.loader.storage_uri, self.name)
        self._seen = newest.revision
        try:
            self._load(newest)
        except BundleRefused as error:
            self.refused = self._tell(self.refused, error)
            if not self._load_earlier(newest):
                raise
        else:
            self.refused = None

    def _load_earlier(self, newest: Release) -> bool:
        for revision in range(newest.revision - 1, max(0, newest.revision - 1 - _EARLIER), -1):
            try:
                self._load(read_release(self.loader.storage_uri, self.name, revision))
            except BundleRefused as error:
                _logger.error("endpoint=%s revision=%d: %s", self.name, revision, error)
            else:
                return True
        return False

    def _follow(self) -> None:
        """Load a newer release, if there is one."""
        root = self.loader.storage_uri
        if self._seen:
            release = newer_release(root, self.name, self._seen)
        else:
            release = require_release(root, self.name)
        if release is None:
            return
        try:
            self._load(release)
        except _REFUSED:
            self._seen = release.revision
            raise
        self._seen, self.refused = release.revision, None

    def _load(self, release: Release) -> None:
        self.is_loading = True
        try:
            # While another model answers, this one takes its time to become fast.
            settle = _SETTLE_SECONDS if self.loaded else 0.0
            loaded = self.loader.load(release, self._room, again=self._again, settle_seconds=settle)
            self._take(loaded)
        finally:
            self.is_loading, self.reserved_bytes = False, 0

    def _room(self, size: int) -> None:
        self._make_room(self, size)

    def _take(self, loaded: Loaded) -> None:
        self.loaded, self.evicted, self.load_seconds = loaded, False, loaded.seconds
        self._changed()
        model = loaded.model
        _logger.info(
            "endpoint=%s revision=%d digest=%s seconds=%.2f bytes=%d",
            *(self.name, model.release.revision, model.version, loaded.seconds, loaded.size_bytes),
        )

    def _tell(self, known: str | None, error: Exception) -> str:
        reason = str(error)
        if reason != known:  # once, not every second
            answers = self.current.version if self.current else "nothing"
            _logger.error("endpoint=%s is answered by %s: %s", self.name, answers, reason)
        return reason
