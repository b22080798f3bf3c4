"""The commit of a batch: one manifest, created exclusively and last. Readers open nothing else.

::

    <output>/manifests/<revision>.json   a chain: the newest is what readers see

A manifest names every part with its rows, size and SHA-256. Either it is there, and then all of
it, or readers see the revision before. Nothing else makes rows visible: a part without a record, a
record without a manifest, are not there for a reader. docs/commit_protocol.md tells the whole.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import pyarrow as pa
from pydantic import Field

from headrace import chain, storage
from headrace.errors import HeadraceError
from headrace.sealed import seal, unseal
from headrace.spec import Part
from headrace.storage import sha256
from tasks.batch.lease import Lease, LeaseLost
from tasks.batch.output import ShardRecord
from tasks.batch.parts import WRITER, File, read_part


class CommitRefused(HeadraceError):
    """A run whose parts do not add up to its input."""

    def __init__(self, output: str, reason: str) -> None:
        self.output, self.reason = output, reason
        super().__init__(
            f"{output} is not committed: {reason}. Nothing of this run is visible to readers; "
            "run the same command again to resume."
        )


class NotCommitted(HeadraceError):
    """Predictions that were asked for and never committed."""

    def __init__(self, output: str, reason: str) -> None:
        self.output, self.reason = output, reason
        super().__init__(f"{output} cannot be read: {reason}.")


class Manifest(Part):
    """What was committed: one revision of an output."""

    revision: int
    epoch: int
    """Of the lease under which it was written; it never falls from one revision to the next."""
    run: str
    """Names what was computed: the same rows, bundle and options make the same run."""
    model: str
    bundle: str
    input: str
    """What was scored: a path, a URL, or a table and its window."""
    rows: int
    predicted: int
    rejected: int
    shards: tuple[ShardRecord, ...]
    """In the order of the input."""
    quarantined: Mapping[str, str] = Field(default_factory=dict)
    """Files of the input that were left out, and why."""
    writer: str = WRITER
    """Which library wrote it, and the parts of the shards that this run scored."""
    oldest: int = 1
    """The oldest revision whose parts are kept."""
    facts: Mapping[str, Any] = Field(default_factory=dict)
    """What was measured on the way; no two runs need agree on it."""

    @property
    def digest(self) -> str:
        """SHA-256 of everything that does not depend on when, where and how often it was tried."""
        varying = {"revision": 0, "epoch": 0, "writer": "", "oldest": 1, "facts": {}}
        return sha256(seal(self.model_copy(update=varying)))

    def files(self, *, rejected: bool = False) -> Iterator[File]:
        """Its parts in the order of the input: those with predictions, or the rejected rows."""
        for shard in self.shards:
            file = shard.rejected if rejected else shard.predicted
            if file:
                yield file


def read_manifest(output: str, revision: int | None = None) -> Manifest | None:
    """The newest manifest, or that of ``revision``; None if there is none.

    Raises:
        Damaged: if its bytes are not those that were written. An older revision is not taken
            instead: nobody would notice.
    """
    folder = _folder(output)
    number = chain.newest(folder) if revision is None else revision
    if not number:
        return None
    try:
        document = chain.read(folder, number)
    except FileNotFoundError:
        return None
    return unseal(document, Manifest, uri=chain.address(folder, number))


def history(output: str) -> list[Manifest]:
    """Every revision, oldest first."""
    found = (read_manifest(output, number) for number in chain.numbers(_folder(output)))
    return [manifest for manifest in found if manifest]


def commit(
    output: str,
    *,
    lease: Lease,
    run: str,
    model: str,
    bundle: str,
    input: str,  # noqa: A002  (the manifest's own word)
    rows: int,
    shards: Sequence[ShardRecord],
    quarantined: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
) -> Manifest:
    """Make a run visible, once. A run that is the newest revision already is left as it is.

    Args:
        output: where its shards are.
        lease: held on the output.
        run: names what was computed.
        model: whose predictions they are.
        bundle: digest of what predicted.
        input: what was scored.
        rows: how many rows went in, as planned.
        shards: what became of each planned shard, in the order of the input.
        quarantined: files that were left out, and why.
        facts: what was measured; not part of the manifest's digest.

    Raises:
        CommitRefused: if rows in are not rows predicted plus rows rejected, a shard is there
            twice, or a part is missing.
        LeaseLost: if another run has taken the output over.
    """
    _check(output, rows, shards)
    wanted = Manifest(
        revision=1,
        epoch=lease.epoch,
        run=run,
        model=model,
        bundle=bundle,
        input=input,
        rows=rows,
        predicted=sum(shard.predicted.rows for shard in shards),
        rejected=sum(shard.rejected.rows for shard in shards if shard.rejected),
        shards=tuple(shards),
        quarantined=dict(quarantined or {}),
        facts=dict(facts or {}),
    )
    newest = read_manifest(output)
    if newest and newest.digest == wanted.digest:
        return newest
    lease.confirm()
    if shards:
        storage.sync_folder(f"{output}/parts")
    return _append(output, wanted)


def create(output: str, manifest: Manifest) -> bool:
    """Create a manifest as its revision; False if another one has the number."""
    return chain.add(_folder(output), manifest.revision, seal(manifest))


def is_committed(output: str, run: str) -> Manifest | None:
    """The newest manifest if it is that of ``run``."""
    newest = read_manifest(output)
    return newest if newest and newest.run == run else None


def read_predictions(
    output: str, *, rejected: bool = False, revision: int | None = None
) -> pa.Table:
    """The committed rows of an output, in the order of its input.

    Args:
        output: a path or URL.
        rejected: the rows that could not be scored, instead of those that were.
        revision: an older one; the newest if None.

    Raises:
        NotCommitted: if there is no such revision.
        Damaged, PartRefused: if a file is missing or was changed.
    """
    tables = list(iterate_predictions(output, rejected=rejected, revision=revision))
    return pa.concat_tables(tables) if tables else pa.table({})


def iterate_predictions(
    output: str, *, rejected: bool = False, revision: int | None = None
) -> Iterator[pa.Table]:
    """The same, one part at a time, for predictions that do not fit into memory."""
    manifest = _committed(output, revision)
    for file in manifest.files(rejected=rejected):
        yield read_part(output, file)


def _committed(output: str, revision: int | None) -> Manifest:
    manifest = read_manifest(output, revision)
    if manifest is None:
        which = "no run has committed" if revision is None else f"there is no revision {revision}"
        raise NotCommitted(output, which)
    newest = read_manifest(output) if revision is not None else None
    if newest and manifest.revision < newest.oldest:
        raise NotCommitted(
            output,
            f"revision {revision} was cleaned away; {newest.oldest} is the oldest that is kept",
        )
    return manifest


def _append(output: str, wanted: Manifest) -> Manifest:
    """Make ``wanted`` the newest revision, or find that it is so already."""
    while True:
        newest = read_manifest(output)
        if newest and newest.digest == wanted.digest:
            return newest
        if newest and newest.epoch > wanted.epoch:
            raise LeaseLost(output, wanted.epoch, newest.epoch)
        changes = {"revision": 1}
        if newest:
            changes = {"revision": newest.revision + 1, "oldest": newest.oldest}
        manifest = wanted.model_copy(update=changes)
        # Another may take the number first: an owner of a lower epoch that woke up late, or one of
        # a higher. The next round finds out which.
        if create(output, manifest):
            return manifest


def _check(output: str, rows: int, shards: Sequence[ShardRecord]) -> None:
    names = [shard.shard for shard in shards]
    if len(set(names)) != len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise CommitRefused(output, f"shard {twice} is there twice")
    predicted = sum(shard.predicted.rows for shard in shards)
    rejected = sum(shard.rejected.rows for shard in shards if shard.rejected)
    if predicted + rejected != rows:
        raise CommitRefused(
            output, f"{rows} rows went in, {predicted} predicted + {rejected} rejected came out"
        )
    # One listing: a part may have been removed by hand since its shard was scored.
    missing = {file.name for shard in shards for file in shard.files}
    missing -= set(storage.list_names(f"{output}/parts"))
    if missing:
        raise CommitRefused(output, f"{len(missing)} parts are missing, {min(missing)} is one")


def _folder(output: str) -> str:
    return f"{output}/manifests"
