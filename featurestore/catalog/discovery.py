"""What features there are, found and described: views, services and features in people's words.

A ``Listing`` holds all that is known of them: the definitions, how far the stores reach, how many
values are missing, and who reads what. ``tasks/discovery.py`` gathers it; here it is searched.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from pydantic import AwareDatetime

from headrace.errors import UnknownName, UsageError
from headrace.spec import Part


class ReaderEntry(Part):
    """A model that reads features."""

    model: str
    digest: str
    """Of its bundle."""
    where: str
    """``champion of flight_delay``, or ``version 3`` of the registry."""
    as_defined: bool
    """Whether the definitions still say what it was trained on: views, types, keys and TTLs."""


class FeatureEntry(Part):
    """One feature of a view."""

    name: str
    column: str
    """What it is called in a model's input."""
    dtype: str
    description: str
    tags: dict[str, str]
    null_rate: float | None = None
    """Share of missing values in the last check, 0 to 1."""
    psi: float | None = None
    """How far it had moved in the last check, in nats."""


class ViewEntry(Part):
    """One feature view."""

    kind: Literal["view"] = "view"
    name: str
    description: str
    owner: str
    tags: dict[str, str]
    entities: tuple[str, ...]
    join_keys: tuple[str, ...]
    table: str
    push_source: str | None
    event_timestamp: str
    created_timestamp: str | None
    ttl_seconds: float | None
    newest_event: AwareDatetime | None
    """Of the table; None: it has no rows, or cannot be read."""
    online: str
    """``there``, ``loading``, ``missing`` or ``unknown``."""
    online_until: AwareDatetime | None
    """Everything known by then is in the online store."""
    online_newest_event: AwareDatetime | None
    features: tuple[FeatureEntry, ...]
    services: tuple[str, ...]
    readers: tuple[ReaderEntry, ...]
    findings: tuple[str, ...] = ()
    """What the last check found."""

    @property
    def ttl(self) -> str:
        """How old a value may be, in words."""
        if self.ttl_seconds is None:
            return "any age"
        for unit, length in (("day", 86400), ("hour", 3600), ("minute", 60)):
            count, rest = divmod(self.ttl_seconds, length)
            if count and not rest:
                return f"{count:g} {unit}{'s' if count > 1 else ''}"
        return f"{self.ttl_seconds:g} seconds"


class ServiceEntry(Part):
    """One feature service."""

    kind: Literal["service"] = "service"
    name: str
    description: str
    owner: str
    tags: dict[str, str]
    views: dict[str, tuple[str, ...]]
    """The features taken, by view."""
    on_demand: tuple[str, ...]
    """Views that only Feast computes."""
    models: tuple[str, ...]
    """Model specs that name it."""
    readers: tuple[ReaderEntry, ...]


class TransformEntry(Part):
    """One transform: a feature that is computed at request time."""

    kind: Literal["transform"] = "transform"
    name: str
    """As a model spec names it: ``flights.plane_age_years``."""
    description: str
    inputs: tuple[str, ...]
    source_sha256: str
    """What bundles pin."""
    models: tuple[str, ...]
    """Model specs that name it."""


Entry = ViewEntry | ServiceEntry | TransformEntry


class Listing(Part):
    """Everything that is known of the features."""

    project: str
    definitions_sha256: str
    views: tuple[ViewEntry, ...]
    services: tuple[ServiceEntry, ...]
    transforms: tuple[TransformEntry, ...] = ()
    checked_at: AwareDatetime | None = None
    """The moment of the last check; None: there was none."""
    problems: tuple[str, ...] = ()
    """What could not be asked, and why."""


class Hit(Part):
    """Something that a search found."""

    kind: Literal["view", "service", "feature", "transform"]
    name: str
    """Of a feature: ``<view>.<feature>``."""
    description: str


class NameAmbiguous(UsageError):
    """A feature's name that several views have."""

    def __init__(self, name: str, choices: Sequence[str]) -> None:
        self.name, self.choices = name, tuple(choices)
        super().__init__(f"several views have a feature {name!r}: write {' or '.join(choices)}.")


def search(listing: Listing, words: Sequence[str]) -> tuple[Hit, ...]:
    """Return what has every word in its name, description, tags, owner, entities or features.

    Upper and lower case are the same. What has the words in its name comes first.
    """
    wanted = [word.lower() for word in words]
    found = []
    for hit, text in _texts(listing):
        name = hit.name.lower()
        if all(word in f"{name} {text.lower()}" for word in wanted):
            found.append((not all(word in name for word in wanted), hit.kind == "feature", hit))
    return tuple(hit for *_, hit in sorted(found, key=lambda item: item[:2]))


def describe(listing: Listing, name: str) -> Entry:
    """Return the view, service or transform of a name, or the view that has that feature.

    Args:
        listing: where to look.
        name: ``weather``, ``flight_delay_v1``, or a feature: ``weather.wind``, Feast's
            ``weather:wind``, the column ``weather__wind``, or ``wind`` where only one view has it.
            Of a feature's view the other features are left out.

    Raises:
        UnknownName: with what is nearest.
        NameAmbiguous: for a feature of several views.
    """
    entries: list[Entry] = [*listing.views, *listing.services, *listing.transforms]
    for entry in entries:
        if entry.name == name:
            return entry
    having = [
        (view, feature)
        for view in listing.views
        for feature in view.features
        if name in (feature.column, f"{view.name}.{feature.name}", f"{view.name}:{feature.name}")
    ] or [(v, f) for v in listing.views for f in v.features if f.name == name]
    if len(having) == 1:
        view, feature = having[0]
        return view.model_copy(update={"features": (feature,)})
    if having:
        raise NameAmbiguous(name, [f"{view.name}.{feature.name}" for view, feature in having])
    known = [hit.name for hit, _ in _texts(listing) if hit.kind != "feature"]
    raise UnknownName("view, service, feature or transform", name, known)


def _texts(listing: Listing) -> Iterator[tuple[Hit, str]]:
    """Everything that can be found, and the words that it is found by besides its name."""
    for service in listing.services:
        yield (
            Hit(kind="service", name=service.name, description=service.description),
            " ".join([*_said(service), *service.views, *service.models]),
        )
    for view in listing.views:
        columns = [feature.name for feature in view.features]
        yield (
            Hit(kind="view", name=view.name, description=view.description),
            " ".join([*_said(view), *view.entities, *view.join_keys, view.table, *columns]),
        )
    for made in listing.transforms:
        yield (
            Hit(kind="transform", name=made.name, description=made.description),
            " ".join([made.description, *made.inputs, *made.models]),
        )
    for view in listing.views:
        for feature in view.features:
            yield (
                Hit(
                    kind="feature",
                    name=f"{view.name}.{feature.name}",
                    description=feature.description,
                ),
                " ".join(
                    [feature.description, feature.dtype, feature.column, *_words(feature.tags)]
                ),
            )


def _said(entry: ViewEntry | ServiceEntry) -> list[str]:
    return [entry.description, entry.owner, *_words(entry.tags)]


def _words(tags: dict[str, str]) -> list[str]:
    return [f"{name} {value} {name}:{value} {name}={value}" for name, value in tags.items()]
