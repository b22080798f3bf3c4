"""A simulated object store: conditional put, the five ways a request can go wrong, and a scheduler.

``sim://NAME/...`` is an fsspec file system, so the code under test is the real one, from
``headrace.storage`` up. An ``Actor`` is a process in it: each request of an actor is a step, which
may be hit by a fault. ``Interleaving`` runs several actors one step at a time, in an order that a
test chooses; nothing depends on the clock.
"""

import contextlib
import dataclasses
import io
import itertools
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar, Literal

import fsspec
from fsspec.spec import AbstractFileSystem
from greenlet import getcurrent, greenlet

Fault = Literal["crash before", "crash after", "request lost", "reply lost", "in flight"]
FAULTS: tuple[Fault, ...] = (
    "crash before",
    "crash after",
    "request lost",
    "reply lost",
    "in flight",
)

_current = threading.local()


class Crashed(BaseException):
    """The actor is dead: no handler of it may run any further request."""


@dataclasses.dataclass
class Actor:
    """A process that uses the store: its faults by the number of the step they hit."""

    faults: dict[int, Fault] = dataclasses.field(default_factory=dict)
    steps: list[str] = dataclasses.field(default_factory=list)
    """What it has asked for, as the store names it."""
    is_crashed: bool = False
    pause: Callable[[], None] = lambda: None
    """Called before each step; an ``Interleaving`` waits in it."""

    @contextlib.contextmanager
    def acting(self) -> Iterator[None]:
        """Requests of this thread are this actor's; it ends quietly when it crashes."""
        _current.actor = self
        try:
            yield
        except Crashed:
            pass
        finally:
            _current.actor = None


class Store:
    """Objects by their name, and the requests that are still on their way."""

    stores: ClassVar[dict[str, "Store"]] = {}
    _numbers = itertools.count()

    def __init__(self) -> None:
        self.name = f"s{next(self._numbers)}"
        self.objects: dict[str, bytes] = {}
        self.in_flight: list[Callable[[], Any]] = []
        self.after_step: Callable[[], None] = lambda: None
        """Called whenever objects may have changed: a reader that looks each time."""
        self.stores[self.name] = self

    @property
    def uri(self) -> str:
        """The store's address."""
        return f"sim://{self.name}"

    def land(self) -> None:
        """Let everything arrive that is on its way, refused or not."""
        while self.in_flight:
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                self.in_flight.pop(0)()
            self.after_step()

    def ask(self, step: str, effect: Callable[[], Any]) -> Any:
        """Carry out a request of the current actor, or what its faults make of it."""
        actor: Actor | None = getattr(_current, "actor", None)
        if actor is None:
            return effect()  # a reader, or the test itself
        actor.pause()
        _current.actor = actor
        if actor.is_crashed:
            raise Crashed
        fault = actor.faults.get(len(actor.steps))
        actor.steps.append(step)
        try:
            return self._faulty(actor, fault, step, effect)
        finally:
            _current.actor = None  # who looks is nobody that could be hit
            self.after_step()
            _current.actor = actor

    def _faulty(self, actor: Actor, fault: Fault | None, step: str, effect: Callable) -> Any:
        if fault is None:
            return effect()
        if fault == "in flight":
            self.in_flight.append(effect)
        if fault in ("crash after", "reply lost"):
            with contextlib.suppress(FileExistsError, FileNotFoundError):
                effect()
        if fault.startswith("crash"):
            actor.is_crashed = True
            raise Crashed
        raise ConnectionError(f"{fault}: {step}")


class SimulatedFileSystem(AbstractFileSystem):
    """The store as fsspec sees it."""

    protocol = "sim"
    cachable = False

    def _store(self, path: str) -> tuple[Store, str]:
        name, _, key = self._strip_protocol(path).partition("/")
        return Store.stores[name], key

    def pipe_file(self, path: str, value: bytes, mode: str = "overwrite", **_: Any) -> None:
        store, key = self._store(path)

        def put() -> None:
            if mode == "create" and key in store.objects:
                raise FileExistsError(key)
            store.objects[key] = bytes(value)

        store.ask(f"{'create' if mode == 'create' else 'put'} {key}", put)

    def put_file(self, lpath: str, rpath: str, **_: Any) -> None:
        store, key = self._store(rpath)
        data = Path(lpath).read_bytes()
        store.ask(f"put {key}", lambda: store.objects.__setitem__(key, data))

    def cat_file(self, path: str, start: Any = None, end: Any = None, **_: Any) -> bytes:
        store, key = self._store(path)

        def get() -> bytes:
            if key not in store.objects:
                raise FileNotFoundError(key)
            return store.objects[key][start:end]

        return store.ask(f"get {key}", get)

    def get_file(self, rpath: str, lpath: str, **_: Any) -> None:
        Path(lpath).write_bytes(self.cat_file(rpath))

    def rm_file(self, path: str) -> None:
        store, key = self._store(path)
        store.ask(f"delete {key}", lambda: store.objects.pop(key, None))

    def exists(self, path: str, **_: Any) -> bool:
        store, key = self._store(path)
        return store.ask(
            f"look for {key}",
            lambda: any(name == key or name.startswith(f"{key}/") for name in store.objects),
        )

    def ls(self, path: str, detail: bool = True, **_: Any) -> list:
        store, key = self._store(path)

        def listed() -> list[str]:
            below = [name for name in store.objects if name.startswith(f"{key}/")]
            return sorted({f"{store.name}/{key}/{n[len(key) + 1 :].split('/')[0]}" for n in below})

        return store.ask(f"list {key}", listed)

    def _open(self, path: str, mode: str = "rb", **_: Any) -> io.BytesIO:
        return io.BytesIO(self.cat_file(path))


fsspec.register_implementation("sim", SimulatedFileSystem, clobber=True)


class Interleaving:
    """Actors that run in turn, a step at a time, on one thread: what happens is what was chosen."""

    def __init__(self) -> None:
        self._running: list[tuple[Actor, greenlet]] = []

    def start(self, actor: Actor, work: Callable[[], None]) -> None:
        """Let an actor begin; it stops before its first step."""
        scheduler = getcurrent()
        actor.pause = scheduler.switch

        def run() -> None:
            with actor.acting():
                work()

        self._running.append((actor, greenlet(run, scheduler)))
        self.step(len(self._running) - 1)

    def step(self, choice: int) -> bool:
        """Let one of those who still run take a step; False if nobody does any more."""
        self._running = [one for one in self._running if not one[1].dead]
        if not self._running:
            return False
        actor, running = self._running[choice % len(self._running)]
        _current.actor = actor
        running.switch()
        _current.actor = None
        return True
