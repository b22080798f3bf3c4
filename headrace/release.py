"""A release: which bundle an endpoint runs, changed only by compare-and-swap.

Revision N of an endpoint is the file ``releases/<endpoint>/<N>.json``, created exclusively and
never changed: whoever creates N+1 first has moved the release, everybody else gets a
``ReleaseConflict``. The files are the history; a server watches by asking whether the next one
exists, which costs one small look-up and works the same on a folder and on S3. Each document is
sealed: one whose bytes were changed is refused before it is parsed.
"""

from datetime import UTC, datetime

from pydantic import AwareDatetime

from headrace import chain, storage
from headrace.errors import ReleaseConflict, UnknownName
from headrace.names import checked_name
from headrace.sealed import seal, unseal
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
    folder = _folder(root, endpoint)
    if not at_least:
        revision = chain.newest(folder)
        return _read(folder, revision) if revision else None
    revision = at_least
    while chain.holds(folder, revision + 1):
        revision += 1
    return _read(folder, revision)


def newer_release(root: str, endpoint: str, revision: int) -> Release | None:
    """Return the newest revision after ``revision``, or None if there is none."""
    if not chain.holds(_folder(root, endpoint), revision + 1):
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


def read_release(root: str, endpoint: str, revision: int) -> Release:
    """Return one revision.

    Raises:
        FileNotFoundError: if there is none of that number.
    """
    return _read(_folder(root, endpoint), revision)


def history(root: str, endpoint: str) -> list[Release]:
    """Every revision, oldest first."""
    folder = _folder(root, endpoint)
    return [_read(folder, revision) for revision in chain.numbers(folder)]


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
    folder = _folder(root, endpoint)
    if chain.newest(folder) != expected or not chain.add(folder, release.revision, seal(release)):
        raise ReleaseConflict(endpoint, expected)
    return release


def _folder(root: str, endpoint: str) -> str:
    return f"{root}/releases/{checked_name('endpoint', endpoint)}"


def _read(folder: str, revision: int) -> Release:
    uri = chain.address(folder, revision)
    return unseal(chain.read(folder, revision), Release, uri=uri)
