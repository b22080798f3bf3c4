"""A release: which bundle an endpoint runs, changed only by compare-and-swap.

Revision N of an endpoint is the file ``releases/<endpoint>/<N>.json``, created exclusively and
never changed: whoever creates N+1 first has moved the release, everybody else gets a
``ReleaseConflict``. The files are the history; a server watches by asking whether the next one
exists, which costs one small look-up and works the same on a folder and on S3.
"""

import json
from datetime import UTC, datetime

from pydantic import AwareDatetime

from headrace import storage
from headrace.errors import ReleaseConflict, UnknownName
from headrace.names import checked_name
from headrace.spec import Part


class Release(Part):
    """One revision: what the endpoint runs, and who moved it there, when and why."""

    endpoint: str
    revision: int
    champion: str
    """Digest of the bundle that answers."""
    moved_at: AwareDatetime
    moved_by: str
    reason: str


def current_release(root: str, endpoint: str, *, at_least: int = 0) -> Release | None:
    """Return the newest revision, or None if the endpoint was never released.

    Args:
        root: the folder or URL that holds ``releases/``.
        endpoint: its name.
        at_least: a revision known to exist; a watcher passes its own to look only further on.
    """
    if at_least:
        revision = at_least
        while storage.exists(_uri(root, endpoint, revision + 1)):
            revision += 1
        return _read(root, endpoint, revision)
    revisions = _revisions(root, endpoint)
    return _read(root, endpoint, revisions[-1]) if revisions else None


def newer_release(root: str, endpoint: str, revision: int) -> Release | None:
    """Return the newest revision after ``revision``, or None if there is none."""
    if not storage.exists(_uri(root, endpoint, revision + 1)):
        return None
    return current_release(root, endpoint, at_least=revision + 1)


def require_release(root: str, endpoint: str) -> Release:
    """Return the newest revision.

    Raises:
        UnknownName: if the endpoint was never released.
    """
    release = current_release(root, endpoint)
    if release is None:
        raise UnknownName("released endpoint", endpoint, storage.list_names(f"{root}/releases"))
    return release


def history(root: str, endpoint: str) -> list[Release]:
    """Every revision, oldest first."""
    return [_read(root, endpoint, revision) for revision in _revisions(root, endpoint)]


def move_release(
    root: str, endpoint: str, *, champion: str, expected: int, by: str, reason: str
) -> Release:
    """Make ``champion`` answer at ``endpoint``, if the release is still at ``expected``.

    Args:
        root: the folder or URL that holds ``releases/``.
        endpoint: its name.
        champion: digest of a bundle that was verified.
        expected: the revision the caller looked at when it decided; 0 for the first.
        by: who moves it.
        reason: why, in words; kept in the history.

    Raises:
        ReleaseConflict: if somebody else moved it in between.
    """
    release = Release(
        endpoint=endpoint,
        revision=expected + 1,
        champion=champion,
        moved_at=datetime.now(UTC),
        moved_by=by,
        reason=reason,
    )
    document = json.dumps(release.model_dump(mode="json"), indent=1, sort_keys=True).encode()
    revisions = _revisions(root, endpoint)
    if (revisions[-1] if revisions else 0) != expected:
        raise ReleaseConflict(endpoint, expected)
    if not storage.create_exclusive(_uri(root, endpoint, release.revision), document):
        raise ReleaseConflict(endpoint, expected)
    return release


def _uri(root: str, endpoint: str, revision: int) -> str:
    return f"{root}/releases/{checked_name('endpoint', endpoint)}/{revision:08d}.json"


def _revisions(root: str, endpoint: str) -> list[int]:
    names = storage.list_names(f"{root}/releases/{checked_name('endpoint', endpoint)}")
    return [int(n.removesuffix(".json")) for n in names if n.endswith(".json") and n[:8].isdigit()]


def _read(root: str, endpoint: str, revision: int) -> Release:
    return Release.model_validate_json(storage.read_bytes(_uri(root, endpoint, revision)))
