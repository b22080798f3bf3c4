"""S3 as ``storage`` needs it: every byte checked, every request repeated while it may heal.

Imported by ``storage`` for ``s3://`` URLs only. One client, and so one connection pool, a process
and a configuration; safe with threads (all requests run on fsspec's one event loop) and after a
fork (a child makes its own). Credentials, region and endpoint come from the ``AWS_*`` variables
and files, as everywhere.

What is checked: the length of each reply; the checksum S3 keeps for an object, by botocore; and the
MD5 that an ETag is, of objects written in one request, on the way up and on the way down.
"""

import asyncio
import functools
import hashlib
import os
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import aiohttp
from botocore.exceptions import (
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from botocore.parsers import ResponseParserError

from headrace.healing import healed

Result = TypeVar("Result")

PART_BYTES = 32 << 20
"""A larger file is uploaded in parts of this size, which bounds the memory that takes."""
_CHUNK_BYTES = 1 << 20
_CONNECT_SECONDS, _READ_SECONDS = 5, 20
_CONNECTIONS = 32
_BUSY_CODES = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError"),
    *("ServiceUnavailable", "ConditionalRequestConflict", "OperationAborted"),
    # What was sent was damaged on the way.
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "InvalidDigest"),
}
_MISSING_CODES = {"NoSuchKey", "404", "NotFound"}
_CREDENTIAL_CODES = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}


class Damaged(ConnectionError):
    """Bytes that are not those the other end has; asked for again."""


class NotThere(OSError):
    """A bucket that does not exist: not the same as an object that is not there."""


@dataclass(frozen=True)
class Head:
    """What S3 says of an object."""

    bytes: int
    etag: str

    @property
    def stamp(self) -> str:
        """What changes with the object's content."""
        return f"{self.bytes} {self.etag}"


def read(uri: str) -> bytes:
    """The whole object."""
    return bytes(_run(uri, _get))


def read_range(uri: str, start: int, stop: int, *, etag: str | None = None) -> bytes:
    """The bytes from ``start`` until ``stop``, of the version ``etag`` if given."""
    asked: dict[str, Any] = {"Range": f"bytes={start}-{stop - 1}"}
    if etag:
        asked["IfMatch"] = etag
    data = bytes(_run(uri, lambda s3, bucket, key: _get(s3, bucket, key, **asked)))
    if len(data) != stop - start:
        raise OSError(f"it has no bytes {start} to {stop}: it gave {len(data)}")
    return data


def head(uri: str) -> Head:
    """Size and ETag of the object."""
    try:
        reply = _run(uri, lambda s3, bucket, key: s3.head_object(Bucket=bucket, Key=key))
    except FileNotFoundError:
        # A HEAD has no body: the 404 of a missing bucket looks like that of a missing object.
        if _split(uri)[0] not in _known_buckets:
            has_below(uri)
        raise
    return Head(reply["ContentLength"], reply["ETag"].strip('"'))


def has_below(uri: str) -> bool:
    """True if there are objects below ``uri``, taken as a folder."""

    async def ask(s3: Any, bucket: str, key: str) -> bool:
        reply = await s3.list_objects_v2(Bucket=bucket, Prefix=_folder(key), MaxKeys=1)
        return bool(reply["KeyCount"])

    return _run(uri, ask)


def names(uri: str) -> list[str]:
    """The names directly below ``uri``, taken as a folder."""
    found = []
    for page in _pages(uri, delimiter="/"):
        found += [entry["Key"] for entry in page.get("Contents", ())]
        found += [entry["Prefix"] for entry in page.get("CommonPrefixes", ())]
    prefix = _folder(_split(uri)[1])
    return sorted({name[len(prefix) :].rstrip("/") for name in found} - {""})


def find(uri: str) -> list[tuple[str, Head]]:
    """URL and head of every object below ``uri``, taken as a folder, sorted."""
    bucket = _split(uri)[0]
    return sorted(
        (f"s3://{bucket}/{entry['Key']}", Head(entry["Size"], entry["ETag"].strip('"')))
        for page in _pages(uri, delimiter="")
        for entry in page.get("Contents", ())
        if not entry["Key"].endswith("/")
    )


def write(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri``; what arrives is checked."""
    _run(uri, lambda s3, bucket, key: _put(s3, bucket, key, data))


def create(uri: str, data: bytes) -> None:
    """Put ``data`` at ``uri`` unless something is there.

    Raises:
        FileExistsError: if something is there: perhaps this very write, whose reply was lost.
    """

    async def put(s3: Any, bucket: str, key: str) -> None:
        condition = {"IfNoneMatch": "*"}

        async def once() -> None:
            try:
                await _put(s3, bucket, key, data, **condition)
            except _Stored as stored:
                # The name is ours, the bytes under it are damaged: only they may be replaced.
                condition.clear()
                condition["IfMatch"] = stored.etag
                raise

        await healed(once, heals)

    _run(uri, put, repeat=False)


def write_file(uri: str, path: Path) -> None:
    """Put a local file at ``uri``, in parts if it is large; memory stays at two parts."""
    if path.stat().st_size <= PART_BYTES:
        write(uri, path.read_bytes())
        return
    _run(uri, lambda s3, bucket, key: _upload(s3, bucket, key, path), repeat=False)


def read_file(uri: str, path: Path) -> None:
    """Put the object at ``uri`` into a local file; memory stays at a chunk."""
    _run(uri, lambda s3, bucket, key: _download(s3, bucket, key, path))


def delete(uri: str) -> None:
    """Delete the object, if it is there."""
    _run(uri, lambda s3, bucket, key: s3.delete_object(Bucket=bucket, Key=key))


def abandoned_uploads(uri: str) -> list[tuple[str, str]]:
    """(key, upload id) of the multipart uploads below ``uri`` that were begun and not ended."""

    async def ask(s3: Any, bucket: str, key: str) -> list[tuple[str, str]]:
        pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
        return [(u["Key"], u["UploadId"]) async for page in pages for u in page.get("Uploads", ())]

    return _run(uri, ask)


def abort_upload(uri: str, key: str, upload: str) -> None:
    """End an upload that will never be completed, so that nobody pays for its parts."""

    async def abort(s3: Any, bucket: str, _: str) -> None:
        try:
            await s3.abort_multipart_upload(Bucket=bucket, Key=key, UploadId=upload)
        except ClientError as error:
            if _code(error) != "NoSuchUpload":  # somebody else ended it
                raise

    _run(uri, abort)


def heals(error: BaseException) -> bool:
    """True for a failure that another attempt may not meet."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or _code(error) in _BUSY_CODES
    kinds = (HTTPClientError, FlexibleChecksumError, IncompleteReadError, ResponseStreamingError)
    others = (ResponseParserError, aiohttp.ClientError, asyncio.TimeoutError, Damaged)
    return isinstance(error, (*kinds, *others))


class _Stored(Damaged):
    """What was sent was stored, damaged."""

    def __init__(self, etag: str) -> None:
        self.etag = etag
        super().__init__("what was stored is not what was sent")


async def _get(s3: Any, bucket: str, key: str, **asked: Any) -> bytes:
    reply = await s3.get_object(Bucket=bucket, Key=key, **asked)
    async with reply["Body"] as body:
        data = bytes(await body.read())
    if len(data) != reply["ContentLength"]:
        raise Damaged(f"{len(data)} of {reply['ContentLength']} bytes came")
    if "Range" not in asked:
        _check(reply, hashlib.md5(data, usedforsecurity=False).hexdigest())
    return data


async def _download(s3: Any, bucket: str, key: str, path: Path) -> None:
    reply = await s3.get_object(Bucket=bucket, Key=key)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    async with reply["Body"] as body:
        with path.open("wb") as file:
            while chunk := await body.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += file.write(chunk)
    if size != reply["ContentLength"]:
        raise Damaged(f"{size} of {reply['ContentLength']} bytes came")
    _check(reply, digest.hexdigest())


async def _put(s3: Any, bucket: str, key: str, data: bytes, **condition: str) -> None:
    reply = await s3.put_object(Bucket=bucket, Key=key, Body=data, **condition)
    try:
        _check(reply, hashlib.md5(data, usedforsecurity=False).hexdigest())
    except Damaged as error:
        raise _Stored(reply["ETag"]) from error


async def _upload(s3: Any, bucket: str, key: str, path: Path) -> None:
    begun = await healed(lambda: s3.create_multipart_upload(Bucket=bucket, Key=key), heals)
    upload = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
    try:
        parts = [part async for part in _parts(s3, upload, path)]
        await healed(
            lambda: s3.complete_multipart_upload(**upload, MultipartUpload={"Parts": parts}), heals
        )
    except ClientError as error:
        # Completed before, and the reply was lost: the upload is no more and the object is there.
        if _code(error) != "NoSuchUpload" or not await _is_whole(s3, bucket, key, path):
            await _abort(s3, upload)
            raise
    except BaseException:
        await _abort(s3, upload)
        raise


async def _parts(s3: Any, upload: dict[str, str], path: Path) -> AsyncIterator[dict[str, Any]]:
    number = 0
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            number += 1

            async def send(data: bytes = data, number: int = number) -> str:
                reply = await s3.upload_part(**upload, PartNumber=number, Body=data)
                _check(reply, hashlib.md5(data, usedforsecurity=False).hexdigest())
                return str(reply["ETag"])

            yield {"PartNumber": number, "ETag": await healed(send, heals)}


async def _abort(s3: Any, upload: dict[str, str]) -> None:
    try:
        await healed(lambda: s3.abort_multipart_upload(**upload), heals)
    except (ClientError, ConnectionError):
        return  # what made the upload fail is the news; storage.abort_uploads ends it later


async def _is_whole(s3: Any, bucket: str, key: str, path: Path) -> bool:
    try:
        found = await healed(lambda: s3.head_object(Bucket=bucket, Key=key), heals)
    except ClientError:
        return False
    etag = found["ETag"].strip('"')
    return bool(etag == _multipart_etag(path))


def _multipart_etag(path: Path) -> str:
    # The MD5 of the parts' MD5s, and how many there are.
    digests = []
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            digests.append(hashlib.md5(data, usedforsecurity=False).digest())
    whole = hashlib.md5(b"".join(digests), usedforsecurity=False).hexdigest()
    return f"{whole}-{len(digests)}"


def _check(reply: dict[str, Any], md5: str) -> None:
    """Raise ``Damaged`` if the reply's ETag is an MD5, and another one."""
    etag = reply.get("ETag", "").strip('"')
    is_md5 = re.fullmatch("[0-9a-f]{32}", etag) and (
        reply.get("ServerSideEncryption", "AES256") == "AES256"
        and "SSECustomerAlgorithm" not in reply
    )
    if is_md5 and etag != md5:
        raise Damaged(f"its MD5 is {md5}, S3 has {etag}")


def _pages(uri: str, *, delimiter: str) -> list[dict[str, Any]]:
    async def ask(s3: Any, bucket: str, key: str) -> list[dict[str, Any]]:
        pages = s3.get_paginator("list_objects_v2").paginate(
            Bucket=bucket, Prefix=_folder(key), Delimiter=delimiter
        )
        return [page async for page in pages]

    return _run(uri, ask)


def _run(
    uri: str, ask: Callable[[Any, str, str], Awaitable[Result]], *, repeat: bool = True
) -> Result:
    """Run a request on fsspec's event loop; told in Python's own errors."""
    from fsspec.asyn import sync

    filesystem = _filesystem(os.getpid(), _configuration())
    bucket, key = _split(uri)

    async def request() -> Result:
        s3 = await filesystem.set_session()
        if not repeat:
            return await ask(s3, bucket, key)
        return await healed(lambda: ask(s3, bucket, key), heals)

    try:
        result: Result = sync(filesystem.loop, request)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise PermissionError(f"{error}; {_CREDENTIALS}") from error
    except ClientError as error:
        raise _translated(error, bucket, key) from error
    _known_buckets.add(bucket)
    return result


_CREDENTIALS = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role"
_known_buckets: set[str] = set()
"""Buckets that answered; a 404 of a HEAD does not say whether bucket or object is missing."""


def _translated(error: ClientError, bucket: str, key: str) -> OSError:
    code = _code(error)
    message = error.response.get("Error", {}).get("Message", "")
    if code == "NoSuchBucket":
        return NotThere(f"there is no bucket {bucket!r}; make it, or check AWS_ENDPOINT_URL")
    if code in _MISSING_CODES:
        return FileNotFoundError(f"s3://{bucket}/{key}")
    if code == "PreconditionFailed":
        return FileExistsError(f"s3://{bucket}/{key}")
    if code in _CREDENTIAL_CODES:
        return PermissionError(f"S3 does not accept the credentials ({code}); {_CREDENTIALS}")
    if code in ("AccessDenied", "403"):
        return PermissionError(
            f"S3 denies it ({code}); the credentials need this right on bucket {bucket!r}"
        )
    return OSError(f"S3 says {code}: {message}")


def _code(error: ClientError) -> str:
    return str(error.response.get("Error", {}).get("Code", ""))


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def _folder(key: str) -> str:
    return f"{key.rstrip('/')}/" if key.strip("/") else ""


def _configuration() -> tuple[tuple[str, str], ...]:
    return tuple(sorted(pair for pair in os.environ.items() if pair[0].startswith("AWS_")))


@functools.lru_cache(maxsize=8)
def _filesystem(_process: int, _variables: tuple[tuple[str, str], ...]) -> Any:
    # fsspec would make one a thread, each with a connection pool of its own.
    import s3fs

    return s3fs.S3FileSystem(
        skip_instance_cache=True,
        use_listings_cache=False,
        config_kwargs={
            "connect_timeout": _CONNECT_SECONDS,
            "read_timeout": _READ_SECONDS,
            "max_pool_connections": _CONNECTIONS,
            "retries": {"total_max_attempts": 1},
        },
    )
