"""Request-time features as pure column functions, written once for training and serving.

A transform takes NumPy columns, of a request or of features, and gives one float column of the
same length. Numbers come as float64 (missing is NaN), timestamps of a request as datetime64[us],
everything else as Python objects (missing is None). It is named ``<module>.<function>`` after its
place in ``featurestore/transforms/`` and pinned in the feature plan by the hash of its source and
of what it uses, so a server whose code differs refuses the bundle.
"""

import hashlib
import importlib
import inspect
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import CodeType
from typing import Any

import numpy as np

from headrace.errors import TransformRefused, UnknownName
from headrace.names import checked_name

PACKAGE = "featurestore.transforms"
_TRIED, _ALONE = 256, 16  # rows that a transform is tried on at once, and alone
_PLAIN = (str, int, float, bool, tuple, datetime, timedelta, type(None))


@dataclass(frozen=True)
class Transform:
    """One request-time feature: ``function(*columns) -> column``."""

    name: str
    inputs: tuple[str, ...]
    function: Callable[..., np.ndarray]
    source_sha256: str

    def __call__(self, *columns: np.ndarray) -> np.ndarray:
        """Return the feature of each row as float64, shape (rows,)."""
        return np.asarray(self.function(*columns), dtype=np.float64)

    @property
    def output(self) -> str:
        """The name of the column it makes."""
        return self.name.rsplit(".", 1)[-1]


def transform(*inputs: str) -> Callable[[Callable[..., np.ndarray]], Transform]:
    """Declare a pure column function of the columns named in ``inputs``.

    >>> @transform("distance")
    ... def is_long(distance):
    ...     return distance > 1000
    >>> is_long(np.array([500.0, 2000.0]))
    array([0., 1.])
    """

    def declare(function: Callable[..., np.ndarray]) -> Transform:
        module = function.__module__.rsplit(".", 1)[-1]
        return Transform(
            name=f"{module}.{function.__name__}",
            inputs=inputs,
            function=function,
            source_sha256=source_sha256(function),
        )

    return declare


def check_row_by_row(transform: Transform, columns: Sequence[np.ndarray]) -> None:
    """Refuse a transform that would give a server something else than it gave in training.

    Tries it on a few hundred rows at once, then on some of them alone: a transform that uses the
    mean of its column, say, or changes its inputs, is found before a model learns from it.

    Args:
        transform: to be tried.
        columns: its inputs, each of shape (rows,).

    Raises:
        TransformRefused: saying what it does.
    """
    rows = len(columns[0]) if columns else 0
    if not rows:
        return
    places = np.unique(np.linspace(0, rows - 1, _TRIED).astype(int))
    sample = [column[places] for column in columns]
    given = [column.copy() for column in sample]
    together = transform(*given)
    if together.shape != (len(places),):
        raise TransformRefused(
            transform.name, f"it gives shape {together.shape} for {len(places)} rows"
        )
    if any(not _same(a, b) for a, b in zip(sample, given, strict=True)):
        raise TransformRefused(transform.name, "it changes its inputs")
    for i in range(0, len(places), max(len(places) // _ALONE, 1)):
        alone = transform(*(column[i : i + 1] for column in sample))
        if not _same(alone, together[i : i + 1]):
            raise TransformRefused(
                transform.name,
                f"row {places[i]} gives {together[i]} among others and {alone.tolist()} alone",
            )


def _same(a: np.ndarray, b: np.ndarray) -> bool:
    if a.dtype == object:
        return all(x is y or x == y for x, y in zip(a, b, strict=True))
    return a.tobytes() == b.tobytes()


def source_sha256(function: Callable[..., Any]) -> str:
    """The hash of a function's source and of all of ours that it uses, directly or not.

    Functions are followed by the names their code uses; the plain constants among those names count
    too. What belongs to other packages is the lock's to fix.
    """
    sources = {f"{f.__module__}.{f.__qualname__}": text for f, text in _closure(function)}
    document = "\n".join(f"{name}\n{sources[name]}" for name in sorted(sources))
    return hashlib.sha256(document.encode()).hexdigest()


def _closure(function: Callable[..., Any]) -> Iterator[tuple[Callable[..., Any], str]]:
    ours = function.__module__.split(".")[0]
    waiting, seen = [inspect.unwrap(function)], set()
    while waiting:
        found = waiting.pop()
        if found in seen:
            continue
        seen.add(found)
        used = {name: found.__globals__.get(name) for name in _names(found.__code__)}
        constants = [f"{n} = {v!r}" for n, v in sorted(used.items()) if isinstance(v, _PLAIN)]
        yield found, "\n".join([inspect.getsource(found), *constants])
        functions = [inspect.unwrap(v) for v in used.values() if callable(v)]
        waiting += [
            f for f in functions if inspect.isfunction(f) and f.__module__.split(".")[0] == ours
        ]


def _names(code: CodeType) -> set[str]:
    inner = [constant for constant in code.co_consts if isinstance(constant, CodeType)]
    return set(code.co_names).union(*map(_names, inner))


def find_transform(name: str) -> Transform:
    """Return the transform ``<module>.<function>`` of ``featurestore/transforms/``.

    Raises:
        UnknownName: if there is no such module or transform.
    """
    module_name, _, attribute = name.partition(".")
    checked_name("transform module", module_name)
    try:
        module = importlib.import_module(f"{PACKAGE}.{module_name}")
    except ModuleNotFoundError as error:
        raise UnknownName("transform module", module_name, _module_names()) from error
    found = {t.output: t for t in vars(module).values() if isinstance(t, Transform)}
    if attribute not in found:
        raise UnknownName(f"transform in {module_name}", attribute, found)
    return found[attribute]


def all_transforms() -> tuple[Transform, ...]:
    """Every transform of ``featurestore/transforms/``, by name."""
    modules = [importlib.import_module(f"{PACKAGE}.{name}") for name in _module_names()]
    found = {v.name: v for m in modules for v in vars(m).values() if isinstance(v, Transform)}
    return tuple(found[name] for name in sorted(found))


def _module_names() -> list[str]:
    import pkgutil

    return [m.name for m in pkgutil.iter_modules(importlib.import_module(PACKAGE).__path__)]
