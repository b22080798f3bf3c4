"""Objects up and down, each byte checked.

What is checked: the length of each reply; the checksum S3 keeps for an object, by botocore; and the
MD5 that an ETag is, of objects and parts written in one request, on the way up and down.
"""

import hashlib
import re
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

from botocore.exceptions import ClientError

from headrace.backends.s3_client import Damaged, code, heals
from headrace.healing import healed

PART_BYTES = 32 << 20
"""A larger file is uploaded in parts of this size, which bounds the memory that takes."""
_CHUNK_BYTES = 1 << 20


class StoredDamaged(Damaged):
    """What was sent was stored, and is not what was sent: S3 itself would have refused it."""

    def __init__(self, etag: str) -> None:
        self.etag = etag
        super().__init__("what was stored is not what was sent")


async def get(s3: Any, bucket: str, key: str, **asked: Any) -> bytes:
    """An object, or the range of it that is asked for."""
    reply = await s3.get_object(Bucket=bucket, Key=key, **asked)
    async with reply["Body"] as body:
        data = bytes(await body.read())
    _check_length(reply, len(data))
    if "Range" not in asked:
        _check(reply, _md5(data))
    return data


async def download(s3: Any, bucket: str, key: str, path: Path) -> None:
    """An object into a file; memory stays at a chunk."""
    reply = await s3.get_object(Bucket=bucket, Key=key)
    digest, size = hashlib.md5(usedforsecurity=False), 0
    async with reply["Body"] as body:
        with path.open("wb") as file:
            while chunk := await body.read(_CHUNK_BYTES):
                digest.update(chunk)
                size += file.write(chunk)
    _check_length(reply, size)
    _check(reply, digest.hexdigest())


async def put(s3: Any, bucket: str, key: str, data: bytes, **condition: str) -> None:
    """An object in one request.

    Raises:
        StoredDamaged: if the store has other bytes now.
    """
    reply = await s3.put_object(Bucket=bucket, Key=key, Body=data, **condition)
    try:
        _check(reply, _md5(data))
    except Damaged as error:
        raise StoredDamaged(reply["ETag"]) from error


async def upload(s3: Any, bucket: str, key: str, path: Path) -> None:
    """A file in parts, each sent again by itself; ended without a trace if it fails."""
    begun = await healed(lambda: s3.create_multipart_upload(Bucket=bucket, Key=key), heals)
    place = {"Bucket": bucket, "Key": key, "UploadId": begun["UploadId"]}
    try:
        parts = {"Parts": [part async for part in _sent(s3, place, path)]}
        await healed(lambda: s3.complete_multipart_upload(**place, MultipartUpload=parts), heals)
    except BaseException as error:
        # "No such upload" after a lost reply: it was completed, and the object is there.
        is_done = isinstance(error, ClientError) and code(error) == "NoSuchUpload"
        if is_done and await _is_there(s3, bucket, key, path):
            return
        await _abort(s3, place)
        raise


async def abort_below(s3: Any, bucket: str, key: str) -> int:
    """End every upload that was begun below a key and not completed; how many there were."""
    pages = s3.get_paginator("list_multipart_uploads").paginate(Bucket=bucket, Prefix=key)
    uploads = [begun async for page in pages for begun in page.get("Uploads", ())]
    for begun in uploads:
        await _abort(s3, {"Bucket": bucket, "Key": begun["Key"], "UploadId": begun["UploadId"]})
    return len(uploads)


async def _sent(s3: Any, place: dict[str, str], path: Path) -> AsyncIterator[dict[str, Any]]:
    number = 0
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            number += 1

            async def send(data: bytes = data, number: int = number) -> str:
                reply = await s3.upload_part(**place, PartNumber=number, Body=data)
                _check(reply, _md5(data))
                return str(reply["ETag"])

            yield {"PartNumber": number, "ETag": await healed(send, heals)}


async def _abort(s3: Any, place: dict[str, str]) -> None:
    try:
        await healed(lambda: s3.abort_multipart_upload(**place), heals)
    except (ClientError, ConnectionError):
        return  # completed or ended meanwhile; or S3 is away, and storage.remove_unfinished ends it


async def _is_there(s3: Any, bucket: str, key: str, path: Path) -> bool:
    try:
        found = await healed(lambda: s3.head_object(Bucket=bucket, Key=key), heals)
    except ClientError:
        return False
    return bool(found["ETag"].strip('"') == _etag_of_parts(path))


def _etag_of_parts(path: Path) -> str:
    # The MD5 of the parts' MD5s, and how many there are.
    digests = []
    with path.open("rb") as file:
        while data := file.read(PART_BYTES):
            digests.append(hashlib.md5(data, usedforsecurity=False).digest())
    return f"{_md5(b''.join(digests))}-{len(digests)}"


def _check_length(reply: dict[str, Any], came: int) -> None:
    if came != reply["ContentLength"]:
        raise Damaged(f"{came} of {reply['ContentLength']} bytes came")


def _check(reply: dict[str, Any], md5: str) -> None:
    """Raise ``Damaged`` if the reply's ETag is an MD5, and another one.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/API_Object.html (ETag): an MD5 unless
    the object was written in parts, or is encrypted with keys of KMS or of the customer.
    """
    etag = reply.get("ETag", "").strip('"')
    is_plain = reply.get("ServerSideEncryption", "AES256") == "AES256"
    is_md5 = is_plain and "SSECustomerAlgorithm" not in reply and re.fullmatch("[0-9a-f]{32}", etag)
    if is_md5 and etag != md5:
        raise Damaged(f"its MD5 is {md5}, S3 has {etag}")


def _md5(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()
