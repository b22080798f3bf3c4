"""S3 and what speaks its protocol, as ``storage`` needs it.

Imported for ``s3://`` URLs only. An object's stamp is its size and ETag, so equal content has equal
stamps. ``s3_client`` asks, ``s3_transfer`` moves and checks bytes.
"""

import re
from pathlib import Path
from typing import Any

from headrace.backends.found import Found
from headrace.backends.s3_client import Refused, has_answered, heals, run, run_once, split
from headrace.backends.s3_transfer import (
    PART_BYTES,
    StoredDamaged,
    abort_below,
    download,
    get,
    put,
    upload,
)
from headrace.healing import healed


def read(uri: str) -> bytes:
    """The whole object."""
    return run(uri, get)


def read_range(uri: str, start: int, stop: int, *, version: str | None) -> bytes:
    """The bytes from ``start`` until ``stop``, of the version with the given stamp."""
    asked = {"Range": f"bytes={start}-{stop - 1}"}
    if version:
        asked["IfMatch"] = f'"{version.split()[-1]}"'
    try:
        return run(uri, lambda s3, bucket, key: get(s3, bucket, key, **asked))
    except FileExistsError as error:
        raise Refused(f"it is no longer ({version})", "Begin again.") from error


def find(uri: str) -> Found:
    """The object at ``uri``."""
    try:
        reply = run(uri, lambda s3, bucket, key: s3.head_object(Bucket=bucket, Key=key))
    except FileNotFoundError:
        # A HEAD has no body: the 404 of a missing bucket looks like that of a missing object.
        if not has_answered(split(uri)[0]):
            _has_below(uri)
        raise
    return _found(uri, reply["ContentLength"], reply["ETag"])


def find_below(uri: str) -> list[Found]:
    """Every object below ``uri``, taken as a folder, or the object itself."""
    root = uri.partition("://")[0] + "://" + split(uri)[0]
    entries = [entry for page in _pages(uri, delimiter="") for entry in page.get("Contents", ())]
    files = [entry for entry in entries if not entry["Key"].endswith("/")]
    if files:
        return sorted(_found(f"{root}/{e['Key']}", e["Size"], e["ETag"]) for e in files)
    try:
        return [find(uri)]
    except FileNotFoundError:
        return []


def find_matching(pattern: str) -> list[Found]:
    """Every object that fits a glob."""
    import fsspec.utils

    fits = re.compile(fsspec.utils.glob_translate(pattern)).match
    fixed = re.split(r"[*?\[]", pattern, maxsplit=1)[0].rpartition("/")[0]
    return [found for found in find_below(fixed) if fits(found.uri)]


def exists(uri: str) -> bool:
    """True if an object is there, or objects below it, taken as a folder."""
    try:
        find(uri)
    except FileNotFoundError:
        return _has_below(uri)
    return True


def names(uri: str) -> list[str]:
    """The names directly below ``uri``, taken as a folder."""
    found = []
    for page in _pages(uri, delimiter="/"):
        found += [entry["Key"] for entry in page.get("Contents", ())]
        found += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
    prefix = _folder(split(uri)[1])
    return [name[len(prefix) :].rstrip("/") for name in found if name != prefix]


def write(uri: str, data: bytes, *, durable: bool = True) -> None:  # noqa: ARG001  (S3 always is)
    """Put ``data`` at ``uri``; what arrives is checked."""
    run(uri, lambda s3, bucket, key: put(s3, bucket, key, data))


def create(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri`` unless something is there.

    Raises:
        FileExistsError: if something is there: perhaps this very write, whose reply was lost.
    """

    async def put_new(s3: Any, bucket: str, key: str) -> None:
        condition = {"IfNoneMatch": "*"}

        async def once() -> None:
            try:
                await put(s3, bucket, key, data, **condition)
            except StoredDamaged as stored:
                # The name is ours and the bytes under it are damaged: they alone may be replaced.
                condition.clear()
                condition["IfMatch"] = stored.etag
                raise

        await healed(once, heals)

    run_once(uri, put_new)


def write_file(uri: str, path: Path) -> None:
    """Put a local file at ``uri``, in parts if it is large; memory stays at a part."""
    if path.stat().st_size <= PART_BYTES:
        write(uri, path.read_bytes())
        return
    run_once(uri, lambda s3, bucket, key: upload(s3, bucket, key, path))


def read_file(uri: str, path: Path) -> None:
    """Put the object at ``uri`` into a local file; memory stays at a chunk."""
    run(uri, lambda s3, bucket, key: download(s3, bucket, key, path))


def remove(uri: str) -> None:
    """Delete the object, if it is there."""
    run(uri, lambda s3, bucket, key: s3.delete_object(Bucket=bucket, Key=key))


def abort_uploads(uri: str) -> int:
    """End every multipart upload below ``uri`` that was begun and not completed; how many."""
    return run(uri, abort_below)


def _has_below(uri: str) -> bool:
    async def ask(s3: Any, bucket: str, key: str) -> bool:
        reply = await s3.list_objects_v2(Bucket=bucket, Prefix=_folder(key), MaxKeys=1)
        return bool(reply["KeyCount"])

    return run(uri, ask)


def _pages(uri: str, *, delimiter: str) -> list[dict[str, Any]]:
    async def ask(s3: Any, bucket: str, key: str) -> list[dict[str, Any]]:
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=_folder(key), Delimiter=delimiter
        )
        return [page async for page in pages]

    return run(uri, ask)


def _found(uri: str, size: int, etag: str) -> Found:
    plain = etag.strip('"')
    return Found(uri, size, f"{size} {plain}")


def _folder(key: str) -> str:
    return f"{key.rstrip('/')}/" if key.strip("/") else ""
