"""Requests to S3: one client a process and configuration, repeated while they may heal.

All requests run on fsspec's one event loop, so any thread may ask; a forked child makes a client
of its own. Credentials, region and endpoint come from the ``AWS_*`` variables and files, as
everywhere. The retries of botocore and s3fs are off: see ``headrace.healing``.
"""

import asyncio
import functools
import os
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

import aiohttp
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    FlexibleChecksumError,
    HTTPClientError,
    IncompleteReadError,
    NoCredentialsError,
    PartialCredentialsError,
    ResponseStreamingError,
)
from botocore.exceptions import ConnectionError as NoConnection
from botocore.parsers import ResponseParserError

from headrace.errors import HeadraceError
from headrace.healing import healed

Result = TypeVar("Result")
Ask = Callable[[Any, str, str], Awaitable[Result]]
"""Asks something of (client, bucket, key)."""

_CONNECT_SECONDS, _READ_SECONDS = 5, 20
_CONNECTIONS = 32
_BUSY = {
    *("SlowDown", "Throttling", "ThrottlingException", "RequestTimeout", "InternalError"),
    *("ServiceUnavailable", "ConditionalRequestConflict", "OperationAborted"),
    # What was sent was damaged on the way.
    *("BadDigest", "IncompleteBody", "XAmzContentSHA256Mismatch", "InvalidDigest"),
}
_MISSING = {"NoSuchKey", "404", "NotFound"}
_WRONG_CREDENTIALS = {"InvalidAccessKeyId", "SignatureDoesNotMatch", "ExpiredToken", "InvalidToken"}
_CREDENTIALS = "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or a profile or role."
_answered: set[str] = set()
"""Buckets that answered once."""


class Damaged(HeadraceError, ConnectionError):
    """Bytes that are not those the other end has; asked for again."""


class Refused(HeadraceError, OSError):
    """What S3 will not do, and what to do about it."""

    def __init__(self, reason: str, remedy: str) -> None:
        self.reason, self.remedy = reason, remedy
        super().__init__(reason)


def run(uri: str, ask: Ask[Result]) -> Result:
    """Ask for what ``uri`` names, again while it may heal.

    Raises:
        FileNotFoundError: if the object is not there.
        FileExistsError: if a condition on it does not hold.
        Refused: credentials, rights, or a bucket that does not exist.
        GaveUp: if it did not heal in time.
        OSError: whatever else S3 says.
    """

    async def again(s3: Any, bucket: str, key: str) -> Result:
        return await healed(lambda: ask(s3, bucket, key), heals)

    return run_once(uri, again)


def run_once(uri: str, ask: Ask[Result]) -> Result:
    """As ``run``, for what repeats its own requests."""
    from fsspec.asyn import sync

    filesystem = _filesystem(os.getpid(), _configuration())
    bucket, key = split(uri)

    async def request() -> Result:
        return await ask(await filesystem.set_session(), bucket, key)

    try:
        result: Result = sync(filesystem.loop, request)
    except (NoCredentialsError, PartialCredentialsError) as error:
        raise Refused(str(error), _CREDENTIALS) from error
    except ClientError as error:
        raise _translated(error, bucket, key) from error
    except BotoCoreError as error:  # a bucket name that cannot be, no region, a broken profile
        raise OSError(str(error)) from error
    _answered.add(bucket)
    return result


def heals(error: BaseException) -> bool:
    """True for a failure that another attempt may not meet."""
    if isinstance(error, ClientError):
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        return status >= 500 or status == 429 or code(error) in _BUSY
    on_the_way = (NoConnection, HTTPClientError, ResponseStreamingError, aiohttp.ClientError)
    damaged = (FlexibleChecksumError, IncompleteReadError, ResponseParserError, Damaged)
    return isinstance(error, (*on_the_way, *damaged, TimeoutError, asyncio.TimeoutError))


def code(error: ClientError) -> str:
    """S3's own name of what went wrong, or the HTTP status where a reply had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))


def has_answered(bucket: str) -> bool:
    """True if this process got an answer of the bucket before: so it exists."""
    return bucket in _answered


def split(uri: str) -> tuple[str, str]:
    """Bucket and key of a URL."""
    bucket, _, key = uri.partition("://")[2].partition("/")
    return bucket, key


def _translated(error: ClientError, bucket: str, key: str) -> OSError:
    name = code(error)
    if name == "NoSuchBucket":
        remedy = "Make it, or check its name and AWS_ENDPOINT_URL_S3."
        return Refused(f"there is no bucket {bucket!r}", remedy)
    if name in _MISSING:
        return FileNotFoundError(f"s3://{bucket}/{key}")
    if name == "PreconditionFailed":
        return FileExistsError(f"s3://{bucket}/{key}")
    if name in _WRONG_CREDENTIALS:
        return Refused(f"S3 does not accept the credentials ({name})", _CREDENTIALS)
    if name in ("AccessDenied", "403"):
        remedy = f"Give the credentials this right on bucket {bucket!r}."
        return Refused(f"S3 denies it ({name})", remedy)
    message = error.response.get("Error", {}).get("Message", "")
    return OSError(f"S3 says {name}: {message}")


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
