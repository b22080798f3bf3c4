"""Which endpoints the workers of one server answer for: a small file that all of them follow.

A call of ``load`` or ``unload`` reaches one worker. It writes the wish here, and the others, which
look once a second, do the same; a worker that starts begins with what is wished then. The file
belongs to one server and goes with it: what a server begins with is said by its settings.
"""

import fcntl
import json
from pathlib import Path

from headrace import storage


class Wanted:
    """Endpoints that were loaded (True) or unloaded (False) since the server began."""

    def __init__(self, path: Path) -> None:
        """Follow the file at ``path``, which need not be there yet."""
        self._path = path
        self._seen: tuple[int, int] | None = None

    def read(self) -> dict[str, bool]:
        """What is wished now, by endpoint."""
        try:
            return {str(name): bool(on) for name, on in json.loads(self._path.read_bytes()).items()}
        except FileNotFoundError:
            return {}

    def changed(self) -> bool:
        """Whether the file was written since this was last asked."""
        try:
            found = self._path.stat()
        except FileNotFoundError:
            return False
        seen, self._seen = self._seen, (found.st_mtime_ns, found.st_ino)
        return seen != self._seen

    def wish(self, name: str, *, loaded: bool) -> None:
        """Have every worker answer for an endpoint, or none."""
        with self._path.with_suffix(".lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            wishes = self.read() | {name: loaded}
            storage.write_atomic(str(self._path), json.dumps(wishes).encode(), durable=False)

    def applied_to(self, names: tuple[str, ...]) -> tuple[str, ...]:
        """The endpoints to begin with, given those that the settings name."""
        wishes = self.read()
        more = [name for name, on in wishes.items() if on and name not in names]
        return tuple(name for name in (*names, *more) if wishes.get(name, True))
