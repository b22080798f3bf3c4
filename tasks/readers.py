"""Who reads which features: the models that endpoints run now, and what they would lose.

Definitions change while models run. A model goes on reading what it was trained on, so a view
that one reads is not rebuilt into something else under its name.
"""

import logging
from collections.abc import Iterator

from featurestore.catalog.catalog import Catalog
from featurestore.catalog.changes import losses
from headrace import storage
from headrace.bundle import read_manifest
from headrace.errors import BundleRefused, UsageError
from headrace.plan import FeaturePlan
from headrace.release import current_release
from headrace.settings import Settings
from headrace.spec import Part

_log = logging.getLogger(__name__)


class Reader(Part):
    """A model version that an endpoint runs."""

    endpoint: str
    role: str
    """``champion``."""
    model: str
    digest: str
    plan: FeaturePlan


class ReadByLiveModel(UsageError):
    """A definition that changed under a model which an endpoint runs."""

    def __init__(self, view: str, changes: tuple[str, ...], reader: Reader) -> None:
        self.view, self.changes, self.reader = view, changes, reader
        super().__init__(
            f"feature view {view} is not rebuilt: {'; '.join(changes)}, but the {reader.role} of "
            f"endpoint {reader.endpoint!r} (bundle {reader.digest[:12]}) reads it. Leave {view} as "
            f"it was and write the changed one beside it, such as {next_name(view)}; when no "
            "endpoint reads the old one any more, take it away. --replace rebuilds it all the same."
        )


def live_readers(settings: Settings) -> tuple[Reader, ...]:
    """The models that endpoints run now.

    One whose bundle cannot be read is left out, with a warning: its server cannot load it either.
    """
    return tuple(_readers(settings))


def check_nothing_lost(settings: Settings, catalog: Catalog) -> None:
    """Refuse definitions under which a running model could not go on reading.

    Raises:
        ReadByLiveModel: naming the view, what changed, and who reads it.
    """
    defined = {view.view: view for view in catalog.views}
    for reader in live_readers(settings):
        if reader.plan.project != catalog.project:
            continue  # its rows lie elsewhere, out of these definitions' reach
        for wanted in reader.plan.views:
            if changes := losses(wanted, defined.get(wanted.view)):
                raise ReadByLiveModel(wanted.view, changes, reader)


def next_name(view: str) -> str:
    """The name of a view's next version.

    >>> next_name("weather"), next_name("weather_v2")
    ('weather_v2', 'weather_v3')
    """
    stem, found, number = view.rpartition("_v")
    return f"{stem}_v{int(number) + 1}" if found and number.isdecimal() else f"{view}_v2"


def _readers(settings: Settings) -> Iterator[Reader]:
    for endpoint in storage.list_names(settings.uri("releases")):
        release = current_release(settings.storage_uri, endpoint)
        if release is None:
            continue
        try:
            manifest = read_manifest(settings.uri("bundles"), release.champion)
        except BundleRefused as error:
            _log.warning("nobody can tell what endpoint %s reads: %s", endpoint, error)
            continue
        yield Reader(
            endpoint=endpoint,
            role="champion",
            model=manifest.model,
            digest=release.champion,
            plan=manifest.plan,
        )
