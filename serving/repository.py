"""The models of one server: which endpoints it answers for, and with which model each.

Every request takes its model here, once, by one look-up in a table that is replaced whole when
anything changes: so an answer never mixes two releases, and a reader never waits for a loader.
``load`` and ``unload`` change which endpoints there are; each endpoint follows its release by
itself (``serving/endpoint.py``). Within a memory budget, the models that were used least recently
leave, and come back when they are asked for.
"""

import itertools
import logging
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headrace import storage
from headrace.errors import HeadraceError, UnknownName
from serving.endpoint import Endpoint, State
from serving.errors import ModelNotReady, ModelNotServed, ModelTooLarge
from serving.loading import ModelLoader
from serving.served import ServedModel
from serving.wanted import Wanted

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class ModelState:
    """One line of the index."""

    name: str
    version: str
    """The short digest of the bundle that answers; empty where none does."""
    state: State
    reason: str = ""
    """Why nothing answers, or why the newest release does not."""


class ModelRepository:
    """The endpoints that a server answers for. Safe to use from several threads."""

    def __init__(
        self,
        names: Sequence[str],
        loader: ModelLoader,
        *,
        poll_seconds: float = 1.0,
        memory_bytes: int = 0,
        drain_seconds: float = 10.0,
        wanted: Wanted | None = None,
    ) -> None:
        """Load what the releases of ``names`` say.

        Args:
            names: the endpoints to begin with; the first answers where a request names none.
            loader: loads their models.
            poll_seconds: how often each endpoint looks for a newer release.
            memory_bytes: what the models may take together; 0: there is no limit.
            drain_seconds: how long ``unload`` waits for requests under way.
            wanted: what the workers of one server share; None: there is only this one.

        Raises:
            UnknownName: if an endpoint was never released.
            BundleRefused: if no model at all proves itself; with the first one's reason.
            ModelTooLarge: if one does not fit into the budget by itself.
        """
        self.named = tuple(names)
        self._loader, self._poll_seconds = loader, poll_seconds
        self._memory_bytes, self._drain_seconds = memory_bytes, drain_seconds
        self._tick = itertools.count(1).__next__
        self._changing = threading.RLock()
        self._ordering = threading.Lock()  # one load or unload at a time
        self._watching = False
        self._table: Mapping[tuple[str | None, str | None], tuple[ServedModel, Endpoint]] = {}
        self.endpoints: Mapping[str, Endpoint] = {}
        """By name, in the order in which they were asked for; replaced whole."""
        self._unloaded: frozenset[str] = frozenset()
        self._wanted = wanted
        self._closing = threading.Event()
        self._follower: threading.Thread | None = None
        self._begin(wanted.applied_to(self.named) if wanted else self.named)

    def served(self, name: str | None = None, version: str | None = None) -> ServedModel:
        """Return the model that answers a request: the only place where that is decided.

        Args:
            name: the endpoint; None: the first one.
            version: the short digest that the caller insists on; None: whichever answers.

        Raises:
            ModelNotServed: if this server does not run it.
            ModelNotReady: if it should, and cannot now; where it left memory, it is loaded again.
        """
        try:
            model, endpoint = self._table[name, version]
        except KeyError:
            raise self._why_not(name, version) from None
        endpoint.used = self._tick()
        return model

    def start_watching(self) -> None:
        """Let every endpoint follow its release from now on."""
        with self._changing:
            self._watching = True
            for endpoint in self.endpoints.values():
                endpoint.watch()
        if self._wanted:
            self._follower = threading.Thread(target=self._follow, name="wanted", daemon=True)
            self._follower.start()

    def close(self) -> None:
        """Stop following releases; requests under way keep their models."""
        self._closing.set()
        for endpoint in self.endpoints.values():
            endpoint.close()
        self._loader.close()

    def look(self) -> bool:
        """Follow every release once; True if another model answers anywhere."""
        moved = [endpoint.look() for endpoint in list(self.endpoints.values())]
        return any(moved)

    def load(self, name: str) -> None:
        """Answer for one more endpoint, or look at its release now. Blocks: call on a thread.

        Raises:
            UnknownName: if it was never released.
            BundleRefused: if its bundle does not prove itself.
            ModelTooLarge: if it does not fit into the memory budget by itself.
            ModelNotReady: if it is served already, and its newest release cannot be.
            HeadraceError: if storage or the online store cannot be asked.
        """
        self._load(name)
        if self._wanted:
            self._wanted.wish(name, loaded=True)

    def unload(self, name: str) -> None:
        """Answer for ``name`` no more. Blocks until its requests under way have ended.

        Raises:
            ModelNotServed: if this server does not answer for it.
        """
        self._unload(name)
        if self._wanted:
            self._wanted.wish(name, loaded=False)

    def index(self) -> list[ModelState]:
        """Every endpoint that is served, or could be. Asks storage: call on a thread."""
        states = [
            ModelState(e.name, e.current.version if e.current else "", e.state, e.reason)
            for e in list(self.endpoints.values())
        ]
        known = {state.name for state in states}
        released = storage.list_names(f"{self._loader.storage_uri}/releases")
        for name in [name for name in released if name not in known]:
            why = "unloaded" if name in self._unloaded else "not loaded"
            states.append(ModelState(name, "", "UNAVAILABLE", f"{why}; load it to serve it"))
        return states

    def summary(self) -> str:
        """What answers now, in a few words."""
        answering = [e.current for e in self.endpoints.values() if e.current]
        return ", ".join(
            f"{model.release.endpoint} revision {model.release.revision} ({model.version})"
            for model in answering
        )

    def _load(self, name: str) -> None:
        with self._ordering:
            if endpoint := self.endpoints.get(name):
                endpoint.look_again()
                if endpoint.reason:
                    raise ModelNotReady(name, endpoint.reason)
                return
            endpoint = self._endpoint(name)
            endpoint.begin()
            with self._changing:
                self.endpoints = {**self.endpoints, name: endpoint}
                self._unloaded -= {name}
                self._rebuild()
                if self._watching:
                    endpoint.watch()

    def _unload(self, name: str) -> None:
        with self._ordering:
            with self._changing:
                endpoint = self.endpoints.get(name)
                if endpoint is None:
                    raise ModelNotServed("model", name, ", ".join(self.endpoints))
                self.endpoints = {n: e for n, e in self.endpoints.items() if n != name}
                self._unloaded |= {name}
                self._rebuild()
            endpoint.close()
            if not endpoint.drained(self._drain_seconds):
                _logger.warning("endpoint=%s unloaded; requests under way still hold it", name)

    def _follow(self) -> None:
        """Do what other workers were told."""
        assert self._wanted is not None
        while not self._closing.wait(self._poll_seconds):
            if not self._wanted.changed():
                continue
            for name, loaded in self._wanted.read().items():
                try:
                    if loaded and name not in self.endpoints:
                        self._load(name)
                    elif not loaded and name in self.endpoints:
                        self._unload(name)
                except HeadraceError as error:
                    _logger.error(
                        "endpoint=%s: another worker was told to serve it, and this one cannot: %s",
                        name,
                        error,
                    )

    def _begin(self, names: Sequence[str]) -> None:
        self.endpoints = {name: self._endpoint(name) for name in names}
        failures: list[HeadraceError] = []
        for endpoint in self.endpoints.values():
            try:
                endpoint.begin()
            except UnknownName:
                raise
            except HeadraceError as error:
                _logger.error("endpoint=%s does not answer: %s", endpoint.name, error)
                failures.append(error)
        if failures and not any(endpoint.loaded for endpoint in self.endpoints.values()):
            raise failures[0]

    def _endpoint(self, name: str) -> Endpoint:
        return Endpoint(
            name,
            self._loader,
            make_room=self._make_room,
            changed=self._rebuild,
            poll_seconds=self._poll_seconds,
        )

    def _rebuild(self) -> None:
        """Make the table anew from what the endpoints answer with now."""
        with self._changing:
            table: dict[tuple[str | None, str | None], tuple[ServedModel, Endpoint]] = {}
            for number, (name, endpoint) in enumerate(self.endpoints.items()):
                if (model := endpoint.current) is not None:
                    for asked in (name, None) if number == 0 else (name,):
                        table[asked, None] = table[asked, model.version] = model, endpoint
            self._table = table

    def _why_not(self, name: str | None, version: str | None) -> HeadraceError:
        endpoints = self.endpoints
        endpoint = endpoints.get(name) if name else next(iter(endpoints.values()), None)
        if endpoint is None:
            return ModelNotServed("model", name or "", ", ".join(endpoints))
        model = endpoint.current
        if model is not None:
            return ModelNotServed("version", version or "", model.version)
        if endpoint.evicted:
            endpoint.ask()
        return ModelNotReady(endpoint.name, endpoint.reason, endpoint.load_seconds)

    def _make_room(self, wanted: Endpoint, size_bytes: int) -> None:
        """Let models leave until ``size_bytes`` more fit, the least recently used first."""
        if not self._memory_bytes:
            return
        if size_bytes > self._memory_bytes:
            raise ModelTooLarge(wanted.name, size_bytes, self._memory_bytes)
        with self._changing:
            wanted.reserved_bytes = size_bytes
            others = [e for e in self.endpoints.values() if e is not wanted]
            # Those that were named at the start leave last.
            others.sort(key=lambda e: (e.name in self.named, e.used))
            leaving = iter([e for e in others if e.loaded])
            while sum(e.taken_bytes for e in others) + size_bytes > self._memory_bytes:
                endpoint = next(leaving, None)
                if endpoint is None:  # the rest is reserved by models that load at this moment
                    raise ModelTooLarge(wanted.name, size_bytes, self._memory_bytes)
                endpoint.evict()
