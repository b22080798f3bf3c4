"""``Catalog``: the feature definitions as compiled, readable without importing Feast.

Importing Feast takes seconds and hundreds of megabytes, so it is done once for each version of the
definitions: the compiled catalog lies in ``<home>/catalog/<definitions_sha256>.json``, and every
command, task and worker reads it from there.
"""

import contextlib
import fcntl
import hashlib
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from featurestore.catalog.descriptions import Descriptions
from featurestore.errors import DefinitionsRefused
from featurestore.feast_plugins.configuration import CONFIG
from headrace import storage
from headrace.plan import ViewRead
from headrace.settings import Settings
from headrace.spec import Part

REPOSITORY = "featurestore"
"""The package that holds ``feature_store.yaml`` and ``definitions/``."""


class ServiceView(Part):
    """The features of one view that a feature service takes."""

    view: str
    features: tuple[str, ...]


class Catalog(Part):
    """Everything that the definitions say."""

    format: Literal["headrace-catalog-2"] = "headrace-catalog-2"
    project: str
    definitions_sha256: str
    views: tuple[ViewRead, ...]
    services: dict[str, tuple[ServiceView, ...]]
    on_demand: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The on-demand views that each service lists besides: only Feast computes those."""
    push_sources: dict[str, tuple[str, ...]] = Field(default_factory=dict)
    """The views that each push source feeds."""
    described: Descriptions = Descriptions()


def load_catalog(settings: Settings, *, repository: str = REPOSITORY) -> Catalog:
    """Return the catalog of the definitions as they stand now, compiling them if need be.

    When it returns, Feast's registry holds these definitions too.

    Raises:
        DefinitionsRefused: if the definitions cannot be used.
    """
    digest = definitions_sha256(repository)
    if found := _compiled(settings, digest):
        return found
    with _one_at_a_time(settings):
        if found := _compiled(settings, digest):  # by another process, meanwhile
            return found
        from featurestore.feast_plugins.compile import compile_definitions

        catalog = compile_definitions(settings, repository=repository)
        path = _folder(settings) / f"{catalog.definitions_sha256}.json"
        storage.write_atomic(str(path), catalog.model_dump_json(indent=1).encode())
        return catalog


def mark_applied(settings: Settings, digest: str | None) -> None:
    """Write down which definitions Feast's registry holds; None: perhaps not all of any."""
    path = _folder(settings) / "applied"
    if digest is None:
        path.unlink(missing_ok=True)
    else:
        storage.write_atomic(str(path), _application(settings, digest).encode())


def _compiled(settings: Settings, digest: str) -> Catalog | None:
    """The catalog of a version of the definitions, if Feast's registry holds that version too."""
    if not _is_applied(settings, digest):
        return None
    try:
        data = storage.read_bytes(str(_folder(settings) / f"{digest}.json"))
        return Catalog.model_validate_json(data)
    except (FileNotFoundError, ValidationError):
        return None  # never compiled here, or by a version of Headrace with another format


@contextlib.contextmanager
def _one_at_a_time(settings: Settings) -> Iterator[None]:
    # Several flows may start at once after a change: one compiles, and writes Feast's registry.
    folder = _folder(settings)
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _folder(settings: Settings) -> Path:
    return settings.home / "catalog"


def _is_applied(settings: Settings, digest: str) -> bool:
    # Definitions that are taken back have a catalog already, but Feast's registry has the newer.
    try:
        text = storage.read_bytes(str(_folder(settings) / "applied")).decode()
    except FileNotFoundError:
        return False
    return text == _application(settings, digest)


def _application(settings: Settings, digest: str) -> str:
    # Feast's registry also says where tables and online store lie. Hashed: a URL may hold a secret.
    places = f"{digest}\n{settings.storage_uri}\n{settings.online_uri}"
    return hashlib.sha256(places.encode()).hexdigest()


def definitions_sha256(repository: str = REPOSITORY) -> str:
    """The hash of ``feature_store.yaml`` and of every module of ``definitions/``."""
    folder = repository_folder(repository)
    total = hashlib.sha256()
    for path in [folder / CONFIG, *sorted((folder / "definitions").rglob("*.py"))]:
        data = _read(path)
        total.update(f"{path.relative_to(folder).as_posix()} {len(data)}\n".encode() + data)
    return total.hexdigest()


def repository_folder(repository: str) -> Path:
    """The folder of the package that holds the definitions."""
    found = find_spec(repository)
    if found is None or not found.submodule_search_locations:
        raise DefinitionsRefused(repository, "there is no such package")
    return Path(found.submodule_search_locations[0])


def service_reads(catalog: Catalog, service: str) -> tuple[ViewRead, ...]:
    """What a feature service of the catalog reads, view by view in its order."""
    return tuple(_read_of(catalog, part) for part in catalog.services[service])


def _read_of(catalog: Catalog, part: ServiceView) -> ViewRead:
    view = next(v for v in catalog.views if v.view == part.view)
    wanted = tuple(next(f for f in view.features if f.name == name) for name in part.features)
    return view.model_copy(update={"features": wanted})


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DefinitionsRefused(str(path), error.strerror or error) from error
