"""The root of every error Headrace raises, and the exit codes of its commands.

HeadraceError                 the work failed (exit code 1)
├── UsageError                the caller asked for what cannot be (exit code 2)
│   ├── UnknownName           a model, table, column ... that is not there
│   ├── NameRefused           a name that may not become part of a path
│   ├── SettingRefused        a HEADRACE_ variable with a wrong name or value
│   ├── DatesOutsideData      a window in which the table has no rows
│   ├── SpecRefused           a ModelSpec that does not fit the data or itself
│   └── TransformRefused      a transform that is no pure function of each row
├── SchemaMismatch            a table without the columns or types it must have
├── StorageFailed             a place that cannot be read or written
│   └── DiskFull              no space, no quota or no file size left
├── BundleRefused             a bundle whose files are not what its digest says
└── ReleaseConflict           somebody else moved the release in between

Every class takes facts, keeps them as attributes and writes the sentence itself: the thing, the
value, the remedy.
"""

import difflib
from collections.abc import Iterable
from datetime import datetime
from enum import IntEnum
from typing import Any


class ExitCode(IntEnum):
    """What a command's exit code says."""

    DONE = 0
    """The work is done."""
    FAILED = 1
    """The work failed; nothing half-written is left behind."""
    USAGE = 2
    """The command was asked for something that cannot be; nothing was started."""
    FINDING = 3
    """The work is done and found something: drift, or a challenger that was not promoted."""


class HeadraceError(Exception):
    """Base of every error that Headrace raises on purpose."""

    exit_code = ExitCode.FAILED

    def __reduce__(self) -> tuple[Any, ...]:
        # An error that a Dask worker raises travels to the flow as its sentence and its facts;
        # Python would call __init__ with the sentence alone.
        return _as_it_was, (type(self), self.args, self.__dict__)


def _as_it_was(
    kind: type[HeadraceError], arguments: tuple[Any, ...], facts: dict[str, Any]
) -> HeadraceError:
    error = kind.__new__(kind)
    error.args = arguments
    error.__dict__.update(facts)
    return error


class UsageError(HeadraceError):
    """The caller asked for something that cannot be."""

    exit_code = ExitCode.USAGE


class UnknownName(UsageError):
    """A name that is not among the known ones."""

    def __init__(self, kind: str, name: str, known: Iterable[str], *, remedy: str = "") -> None:
        self.kind, self.name, self.known = kind, name, tuple(sorted(known))
        close = difflib.get_close_matches(name, self.known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else "."
        listed = ", ".join(self.known) or "none"
        more = f" {remedy}" if remedy else ""
        super().__init__(f"no {kind} is named {name!r}{hint} Known: {listed}.{more}")


class NameRefused(UsageError):
    """A name that may not become part of a path."""

    def __init__(self, kind: str, name: str) -> None:
        self.kind, self.name = kind, name
        super().__init__(
            f"{kind} name {name!r} is refused: write 1 to 64 of a-z, 0-9, '.', '_' and '-', "
            "starting with a letter or digit, without '..'."
        )


class SettingRefused(UsageError):
    """A setting with a wrong name or value."""

    def __init__(self, variable: str, value: object, expected: str) -> None:
        self.variable, self.value, self.expected = variable, value, expected
        super().__init__(f"setting {variable} = {value!r} is refused: {expected}.")


class DatesOutsideData(UsageError):
    """A window in which a table has no rows."""

    def __init__(
        self, table: str, since: datetime, until: datetime, first: datetime, last: datetime
    ) -> None:
        self.table, self.since, self.until, self.first, self.last = table, since, until, first, last
        super().__init__(
            f"{table} has no rows from {since:%Y-%m-%d %H:%M} until {until:%Y-%m-%d %H:%M} UTC: "
            f"it reaches from {first:%Y-%m-%d %H:%M} to {last:%Y-%m-%d %H:%M} UTC; "
            "choose dates in between."
        )


class SpecRefused(UsageError):
    """A ModelSpec that does not fit the data, the definitions or itself."""

    def __init__(self, model: str, reason: str) -> None:
        self.model, self.reason = model, reason
        super().__init__(f"model spec {model!r} is refused: {reason}")


class TransformRefused(UsageError):
    """A transform whose answer for a row depends on more than that row."""

    def __init__(self, transform: str, reason: str) -> None:
        self.transform, self.reason = transform, reason
        super().__init__(
            f"transform {transform} is refused: {reason}. A server sees one row where training "
            "sees many: compute each row from its own values, into a new array."
        )


class SchemaMismatch(HeadraceError):
    """A table that lacks columns, has wrong types or has no rows."""

    def __init__(self, table: str, problems: Iterable[str]) -> None:
        self.table, self.problems = table, tuple(problems)
        super().__init__(f"{table} does not fit: {'; '.join(self.problems)}.")


class StorageFailed(HeadraceError):
    """A place that cannot be read or written."""

    def __init__(
        self,
        action: str,
        uri: str,
        reason: object,
        *,
        remedy: str = "Check the path and its permissions.",
    ) -> None:
        self.action, self.uri, self.reason, self.remedy = action, uri, reason, remedy
        super().__init__(f"cannot {action} {uri}: {reason}. {remedy}")


class DiskFull(StorageFailed):
    """A place without room for what is to be written."""

    def __init__(self, action: str, uri: str, reason: object) -> None:
        super().__init__(action, uri, reason)
        self.args = (
            f"cannot {action} {uri}: {reason}. What was written before is whole: free some space "
            "there (`python -m tasks.batch.clean` removes old revisions of an output) or raise the "
            "quota, then run the same command again.",
        )


class BundleRefused(HeadraceError):
    """A bundle whose files are not what its digest says, or that does not answer as it must."""

    def __init__(self, digest: str, reason: str) -> None:
        self.digest, self.reason = digest, reason
        super().__init__(
            f"bundle {digest[:12]} is refused: {reason}. "
            "Restore it from a good copy, or train and deploy again."
        )


class ReleaseConflict(HeadraceError):
    """Somebody else moved the release between the read and the write."""

    def __init__(self, endpoint: str, expected: int) -> None:
        self.endpoint, self.expected = endpoint, expected
        super().__init__(
            f"release of {endpoint!r} is no longer at revision {expected}: somebody moved it in "
            "between. Look at the new release, then try again."
        )
