"""Remove what no kept revision of an output names: ``python -m tasks.batch.clean OUTPUT``.

Old revisions stay readable until then, and with them every part they name. Cleaning holds the
lease, so no run writes meanwhile, and first commits the newest revision once more under its own
epoch: from then on a run that was given up for dead long ago cannot commit parts that are gone.
"""

import argparse
import itertools
import sys

from headrace import storage
from headrace.errors import ExitCode, HeadraceError
from headrace.spec import Part
from tasks.batch import commit
from tasks.batch.lease import SECONDS, Lease, LeaseLost, forget_older, held

KEEP = 2


class Cleaned(Part):
    """What is gone."""

    parts: int
    shards: int
    """Records: of shards that are in no kept revision, committed or not."""
    oldest: int
    """The oldest revision that can still be read."""


def clean(output: str, *, keep: int = KEEP, seconds: float = SECONDS) -> Cleaned:
    """Keep the newest revisions of an output and remove what they do not name.

    What a killed run had finished and nobody committed is removed too. Manifests stay: they are
    the history.

    Args:
        output: a path or URL.
        keep: how many revisions stay readable, at least 1.
        seconds: how long a holder of its lease may give no sign of life.

    Raises:
        NotCommitted: if there is no revision at all.
    """
    with held(output, owner=f"clean {output}", seconds=seconds) as lease:
        return _clean(output, keep, lease)


def _clean(output: str, keep: int, lease: Lease) -> Cleaned:
    while True:
        kept = _newest(output, keep)
        shards = {shard.shard for one in kept for shard in one.shards}
        parts = {file.name for one in kept for shard in one.shards for file in shard.files}
        loose_shards = _names(output, "shards") - {f"{shard}.json" for shard in shards}
        loose_parts = _names(output, "parts") - parts
        oldest = kept[-1].revision
        nothing_to_do = not (loose_shards or loose_parts) and oldest == kept[0].oldest
        if nothing_to_do or _fence(output, kept[0], oldest, lease):
            break  # else an owner that woke up late has just committed: look again
    # Records first: one without its parts would only cost a look.
    for folder, names in (("shards", loose_shards), ("parts", loose_parts)):
        for name in names:
            storage.remove(f"{output}/{folder}/{name}")
        storage.remove_unfinished(f"{output}/{folder}")
    forget_older(lease)
    return Cleaned(parts=len(loose_parts), shards=len(loose_shards), oldest=oldest)


def _newest(output: str, keep: int) -> list[commit.Manifest]:
    """The newest revisions, newest first, as many as have ``keep`` different contents."""
    revisions = commit.history(output)[::-1]
    if not revisions:
        raise commit.NotCommitted(output, "no run has committed")
    contents = list(dict.fromkeys(one.digest for one in revisions))[:keep]
    kept = itertools.takewhile(lambda one: one.digest in contents, revisions)
    return [one for one in kept if one.revision >= revisions[0].oldest]


def _fence(output: str, newest: commit.Manifest, oldest: int, lease: Lease) -> bool:
    """Commit ``newest`` again in the epoch of ``lease``; False if it is not the newest any more."""
    if newest.epoch > lease.epoch:
        raise LeaseLost(output, lease.epoch, newest.epoch)
    changes = {"revision": newest.revision + 1, "epoch": lease.epoch, "oldest": oldest}
    return commit.create(output, newest.model_copy(update=changes))


def _names(output: str, folder: str) -> set[str]:
    return set(storage.list_names(f"{output}/{folder}"))


def main(argv: list[str] | None = None) -> int:
    """Run the command; the result goes to stdout."""
    parser = argparse.ArgumentParser(
        prog="python -m tasks.batch.clean", description="Remove old revisions of an output."
    )
    parser.add_argument("output", help="path or URL of the output")
    parser.add_argument(
        "--keep", type=int, default=KEEP, help=f"how many revisions stay readable ({KEEP})"
    )
    chosen = parser.parse_args(argv)
    if chosen.keep < 1:
        parser.error(f"--keep: {chosen.keep} would leave nothing; write 1 or more")
    try:
        cleaned = clean(chosen.output, keep=chosen.keep)
    except HeadraceError as error:
        print(f"error: {error}", file=sys.stderr)  # noqa: T201  (this is a command)
        return error.exit_code
    print(  # noqa: T201
        f"removed {cleaned.parts} parts and {cleaned.shards} records; "
        f"revision {cleaned.oldest} and later can be read"
    )
    return ExitCode.DONE


if __name__ == "__main__":
    raise SystemExit(main())
