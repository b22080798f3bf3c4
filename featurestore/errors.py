"""What can go wrong between a table of feature values and a model's input.

FeatureStoreError                  base of the room (exit code 1)
├── DefinitionsRefused             definitions or feature_store.yaml that cannot be used (exit 2)
├── FeatureNotMaterialized         a view or feature that the online store does not hold
├── SampleDataMissing              the sample project's data are not installed (exit 2)
├── TimeWithoutZone                a moment that does not say its time zone (exit 2)
├── EntityKeyRefused               a key that does not have its entity's type (exit 2)
├── WireBroken                     bytes that are no message at all; told as the next one
├── StoredValueBroken              bytes in the online store that are not what they must be
├── OnlineStoreFailed              the online store, a file or a server, cannot be used
├── RowsLost                       a part of a join that does not have the rows it must
└── ViewReplaced                   a view was written anew meanwhile, by another definition or run

A missing table is ``UnknownName``, a window without rows ``DatesOutsideData``, and missing columns
or wrong types are ``SchemaMismatch``: these belong to ``headrace.errors``.
"""

from datetime import datetime
from pathlib import Path

from headrace.errors import HeadraceError, UsageError

MATERIALIZE = "python -m flows.materialize"


class FeatureStoreError(HeadraceError):
    """Base of every error of this room."""


class DefinitionsRefused(FeatureStoreError, UsageError):
    """Feature definitions, or a ``feature_store.yaml``, that cannot be used."""

    def __init__(self, where: str, reason: object) -> None:
        self.where, self.reason = where, reason
        super().__init__(f"feature definitions are refused at {where}: {reason}.")


class FeatureNotMaterialized(FeatureStoreError):
    """A view, or a feature of one, that the online store does not hold."""

    def __init__(self, what: str, path: Path | str) -> None:
        self.what, self.path = what, path
        super().__init__(f"{what} is not in the online store {path}; run: {MATERIALIZE}")


class SampleDataMissing(FeatureStoreError, UsageError):
    """The package with the sample project's data is not installed."""

    def __init__(self, package: str) -> None:
        self.package = package
        super().__init__(f"{package} is not installed; run: pip install 'headrace[flows]'")


class TimeWithoutZone(FeatureStoreError, UsageError):
    """A moment that does not say its time zone."""

    def __init__(self, moment: datetime) -> None:
        self.moment = moment
        super().__init__(
            f"{moment.isoformat()} has no time zone; write {moment.isoformat()}+00:00 for UTC."
        )


class EntityKeyRefused(FeatureStoreError, UsageError):
    """A value that cannot be the key of an entity."""

    def __init__(self, key: str, value: object, dtype: str) -> None:
        self.key, self.value, self.dtype = key, value, dtype
        super().__init__(f"key {key} = {value!r} is refused: write a {dtype} or null.")


class WireBroken(FeatureStoreError):
    """Bytes that are no message; whoever knows which value it was says so."""


class StoredValueBroken(FeatureStoreError):
    """Bytes in the online store that are not a value of the declared type."""

    def __init__(self, feature: str, dtype: str, value: bytes) -> None:
        self.feature, self.dtype, self.value = feature, dtype, value
        super().__init__(
            f"feature {feature} is no {dtype} in the online store: {value[:16].hex()!r}. "
            f"Another program wrote it; move the store's file away and run: {MATERIALIZE}"
        )


class OnlineStoreFailed(FeatureStoreError):
    """The online store, a file or a server, cannot be read or written."""

    def __init__(self, action: str, path: Path | str, reason: object) -> None:
        self.action, self.path, self.reason = action, path, reason
        super().__init__(f"cannot {action} the online store {path}: {reason}. {_remedy(str(path))}")


class ViewReplaced(FeatureStoreError):
    """A view that another process has begun to write from the start."""

    def __init__(self, view: str, place: Path | str) -> None:
        self.view, self.place = view, place
        super().__init__(
            f"feature view {view} in the online store {place} is not the one this run began with: "
            "the store was emptied, or another run writes the view from the start or has another "
            f"definition of it. Run again: {MATERIALIZE}"
        )


class RowsLost(FeatureStoreError):
    """A part of a join that does not have what was found for the rows it must have."""

    def __init__(self, view: str, first: int, end: int, found: int) -> None:
        self.view, self.first, self.end, self.found = view, first, end, found
        super().__init__(
            f"the parts of view {view} have {found} rows for the {end - first} from {first} on. "
            "The rows were changed while they were joined; run the join again, in an empty folder."
        )


def _remedy(path: str) -> str:
    if "://" in path:
        return "Check that the server runs and that HEADRACE_ONLINE_STORE names it."
    return (
        "If it is locked, let the other writer finish; if it is damaged, move it away and "
        "materialise again; else check its permissions and the free space."
    )
