"""Large files as read-only maps: the kernel brings in the pages that are used, and takes them back.

A model of 10 GB is never held as bytes of ours. Its SHA-256 is computed in one pass over the file,
in a small buffer, and then the same open file is mapped: memory that was touched belongs to the
file, is shared by all processes that map it, and is given up when memory runs short.
"""

import hashlib
import mmap

from headrace import storage

MAPPED_BYTES = 16 * 2**20
"""From which size on a file is mapped. Smaller ones are read: whoever writes into a mapped file, or
cuts it, changes or kills the process that maps it, and a copy of some megabytes is cheap."""

Data = bytes | mmap.mmap
"""What a file holds: a copy, or a read-only map of it."""


def read_data(uri: str) -> tuple[Data, str]:
    """Return what the file at ``uri`` holds, and its SHA-256 in hexadecimal digits.

    A large file that is not on this machine is first copied into one that is (in ``TMPDIR``),
    which has no name any more when this returns and is gone with its map.

    Raises:
        FileNotFoundError: if nothing is there.
        StorageFailed: if it cannot be read.
    """
    if storage.find(uri).bytes < MAPPED_BYTES:
        data = storage.read_bytes(uri)
        return data, storage.sha256(data)
    with storage.local_copy(uri) as path, path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ), digest
