"""``Catalog``: the feature definitions as compiled, readable without importing Feast.

Importing Feast takes seconds and hundreds of megabytes, so it is done once for each version of the
definitions: the compiled catalog lies in ``<home>/catalog/<definitions_sha256>.json``, and every
command, task and worker reads it from there.
"""

import hashlib
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from featurestore.errors import DefinitionsRefused
from headrace import storage
from headrace.errors import SpecRefused, UnknownName
from headrace.plan import FeaturePlan, ViewRead, pin
from headrace.settings import Settings
from headrace.spec import ModelSpec, Part
from headrace.transform import find_transform

REPOSITORY = "featurestore"
"""The package that holds ``feature_store.yaml`` and ``definitions/``."""
CONFIG = "feature_store.yaml"


class ServiceView(Part):
    """The features of one view that a feature service takes."""

    view: str
    features: tuple[str, ...]


class Catalog(Part):
    """Everything that the definitions say."""

    format: Literal["headrace-catalog-1"] = "headrace-catalog-1"
    project: str
    definitions_sha256: str
    views: tuple[ViewRead, ...]
    services: dict[str, tuple[ServiceView, ...]]


def load_catalog(settings: Settings, *, repository: str = REPOSITORY) -> Catalog:
    """Return the catalog of the definitions as they stand now, compiling them if need be.

    Raises:
        DefinitionsRefused: if the definitions cannot be used.
    """
    path = settings.home / "catalog" / f"{definitions_sha256(repository)}.json"
    try:
        return Catalog.model_validate_json(storage.read_bytes(str(path)))
    except (FileNotFoundError, ValidationError):
        # Never compiled here, or by a version of Headrace with another format.
        from featurestore.compile import compile_definitions

        catalog = compile_definitions(settings, repository=repository)
    storage.write_atomic(str(path), catalog.model_dump_json(indent=1).encode())
    return catalog


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


def plan_for(catalog: Catalog, spec: ModelSpec) -> FeaturePlan:
    """Return what a model of this spec reads: the features of its service, transforms pinned.

    Raises:
        UnknownName: for a feature service or a transform that is not there.
        SpecRefused: if the label's entity keys lack a join key of the service.
    """
    if spec.feature_service not in catalog.services:
        raise UnknownName("feature service", spec.feature_service, catalog.services)
    plan = FeaturePlan(
        project=catalog.project,
        feature_service=spec.feature_service,
        definitions_sha256=catalog.definitions_sha256,
        event_timestamp=spec.label.event_timestamp,
        views=tuple(_read_of(catalog, part) for part in catalog.services[spec.feature_service]),
        request=spec.request,
        inputs_from_request=spec.inputs_from_request,
        transforms=tuple(pin(find_transform(name)) for name in spec.transforms),
    )
    _check_sources(plan, spec)
    return plan


def _read_of(catalog: Catalog, part: ServiceView) -> ViewRead:
    view = next(v for v in catalog.views if v.view == part.view)
    wanted = tuple(next(f for f in view.features if f.name == name) for name in part.features)
    return view.model_copy(update={"features": wanted})


def _check_sources(plan: FeaturePlan, spec: ModelSpec) -> None:
    if missing := sorted(set(plan.entity_keys) - set(spec.label.entity_keys)):
        keys = ", ".join(missing)
        raise SpecRefused(
            spec.name, f"feature service {plan.feature_service} needs {keys} in label.entity_keys"
        )
    reads = {column for view in plan.views for column in view.columns}
    request = {field.name for field in plan.request} | {plan.event_timestamp, *plan.entity_keys}
    for transform in plan.transforms:
        if unknown := sorted(set(transform.inputs) - reads - request):
            raise SpecRefused(
                spec.name,
                f"transform {transform.name} needs {', '.join(unknown)}, which is neither a "
                f"request field nor a feature of {plan.feature_service}",
            )


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise DefinitionsRefused(str(path), error.strerror or error) from error
