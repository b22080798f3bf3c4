"""What is kept of a part's answer, and how a result is told: as JSON lines or as Arrow.

Every row that was submitted is in the result once, in its order: with its prediction, or with the
reason why it has none. A line says what an item of ``POST /api/v1/infer/batch`` says, with the
number of its row and the version of the model.
"""

import io
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa

from headrace.bundle import OUTPUT
from headrace.errors import HeadraceError
from serving.jobs.job import Job
from serving.plain.response import error_item
from serving.served import ServedModel

JSON_LINES = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"
_ERROR = b'{"error":'
_ROW = re.compile(r"\brow \d+\b")


class _Line(msgspec.Struct):
    row: int
    prediction: float | None = None
    features: dict[str, str] = {}
    error: str | None = None


_decode_line = msgspec.json.Decoder(_Line).decode


def encode_part(
    model: ServedModel,
    first_row: int,
    items: Mapping[int, bytes],
    unread: Mapping[int, HeadraceError],
) -> bytes:
    """Return what is kept of a part's answer: its lines, compressed.

    Args:
        model: that answered.
        first_row: where the part begins in the job.
        items: by place in the part, what the plain API says of a row.
        unread: by place, why a row could not be asked.
    """
    version = model.version.encode()
    lines = []
    for place in range(len(items) + len(unread)):
        row = first_row + place
        item = error_item(unread[place], row) if place in unread else items[place]
        if item.startswith(_ERROR):
            item = _renumbered(item, row)
        lines.append(b'{"row":%d,"version":"%b",%b\n' % (row, version, item[1:]))
    return zlib.compress(b"".join(lines), 1)


def json_lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """One line a row: ``{"row", "version", "prediction", "features"}`` or ``{..., "error"}``."""
    return map(zlib.decompress, parts)


def arrow_stream(job: Job, views: Sequence[str], parts: Iterable[bytes]) -> Iterator[bytes]:
    """An Arrow IPC stream: ``row``, ``prediction``, ``status__<view>`` and ``error``.

    The digest, the revision and the model stand in the schema's metadata.
    """
    schema = pa.schema(
        [
            ("row", pa.int64()),
            (OUTPUT, pa.float32()),
            *((f"status__{view}", pa.string()) for view in views),
            ("error", pa.string()),
        ],
        metadata={"model": job.model, "digest": job.digest or "", "revision": str(job.revision)},
    )
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, schema) as writer:
        for part in map(zlib.decompress, parts):
            lines = [_decode_line(line) for line in part.splitlines()]
            columns: list[list[Any]] = [[line.row for line in lines]]
            columns.append([line.prediction for line in lines])
            columns += [[line.features.get(view) for line in lines] for view in views]
            columns.append([line.error for line in lines])
            arrays = [pa.array(c, field.type) for c, field in zip(columns, schema, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))
            yield _taken(sink)
    yield _taken(sink)


def views_of(first_part: bytes) -> list[str]:
    """The feature views whose reads a result tells of, from the first row that was predicted."""
    lines = map(_decode_line, zlib.decompress(first_part).splitlines())
    return next((list(line.features) for line in lines if line.features), [])


def _renumbered(item: bytes, row: int) -> bytes:
    """An error item with the number that its row has in the job."""
    told = msgspec.json.decode(item)
    told["error"] = _ROW.sub(f"row {row}", told["error"], count=1)
    for problem in told["problems"]:
        problem["row"] = row
        problem["message"] = _ROW.sub(f"row {row}", problem["message"], count=1)
    return msgspec.json.encode(told)


def _taken(sink: io.BytesIO) -> bytes:
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written
