"""What is kept of a part's answer, and how a result is told: as JSON lines or as Arrow.

Every row that was submitted is in the result once, in its order: with its prediction, or with the
reason why it has none.
"""

import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
import pyarrow as pa

from headrace.bundle import OUTPUT
from headrace.errors import HeadraceError
from serving.errors import FieldsRefused
from serving.jobs.job import Job
from serving.query import Answer
from serving.served import STATUS_NAMES

JSON_LINES = "application/x-ndjson"
ARROW = "application/vnd.apache.arrow.stream"


class Refused(msgspec.Struct, frozen=True, omit_defaults=True):
    """Why a row has no prediction."""

    error: str
    fields: list[str] = []
    """The fields that are wrong, where that is known."""


class PartAnswer(msgspec.Struct, frozen=True):
    """The answer of some rows that follow each other, as columns."""

    first_row: int
    version: str
    """The short digest of the bundle that answered."""
    predictions: bytes
    """float32, little-endian; NaN for a row without one."""
    statuses: dict[str, bytes]
    """By view, a code of ``ReadStatus`` a row; nothing where the row was refused."""
    refused: dict[int, Refused]
    """By row of the job."""

    @property
    def rows(self) -> int:
        """How many rows it answers."""
        return len(self.predictions) // 4


_encode = msgspec.msgpack.Encoder().encode
decode_part = msgspec.msgpack.Decoder(PartAnswer).decode


def encode_part(
    first_row: int,
    asked: Sequence[int],
    answer: Answer | None,
    unread: Mapping[int, HeadraceError],
    *,
    version: str,
) -> tuple[bytes, int]:
    """Return what is kept of a part's answer, and how many of its rows were refused.

    Args:
        first_row: where the part begins in the job.
        asked: the rows of the part that were asked, by their places in it.
        answer: theirs; None where there were none.
        unread: by place, why rows of the part could not be asked.
        version: of the model.
    """
    rows, places = len(asked) + len(unread), np.array(asked, np.int64)
    predictions, statuses = np.full(rows, np.nan, "<f4"), {}
    refused = {first_row + n: refusal(error, first_row + n) for n, error in unread.items()}
    if answer is not None:
        predictions[places] = answer.predictions
        for view, codes in answer.statuses.items():
            spread = np.zeros(rows, np.uint8)
            spread[places] = codes
            statuses[view] = spread.tobytes()
        for number, error in answer.problems.items():
            row = first_row + asked[number]
            refused[row] = refusal(error, row)
    kept = PartAnswer(first_row, version, predictions.tobytes(), statuses, refused)
    return _encode(kept), len(refused)


def refusal(error: HeadraceError, row: int) -> Refused:
    """What is told of a row that was refused, with its number in the job."""
    if not isinstance(error, FieldsRefused):
        return Refused(str(error))
    told = [
        problem.message.replace(f"row {problem.row}", f"row {row}", 1) for problem in error.problems
    ]
    return Refused("; ".join(told), [p.field for p in error.problems if p.field])


def json_lines(parts: Iterable[bytes]) -> Iterator[bytes]:
    """One line a row: ``{"row", "version", "prediction", "features"}`` or ``{"row", "error"}``."""
    encode = msgspec.json.Encoder().encode_lines
    for part in map(decode_part, parts):
        yield encode(list(_rows(part)))


def arrow_stream(job: Job, parts: Iterable[bytes]) -> Iterator[bytes]:
    """An Arrow IPC stream: ``row``, ``prediction``, ``status__<view>`` and ``error``.

    The digest, the revision and the model stand in the schema's metadata.
    """
    sink, writer = io.BytesIO(), None
    for part in map(decode_part, parts):
        batch = _batch(job, part)
        if writer is None:
            writer = pa.ipc.new_stream(sink, batch.schema)
        writer.write_batch(batch)
        yield _taken(sink)
    if writer is not None:
        writer.close()
        yield _taken(sink)


def _rows(part: PartAnswer) -> Iterator[dict[str, Any]]:
    words = [[STATUS_NAMES[code] for code in codes] for codes in part.statuses.values()]
    views = list(part.statuses)
    for place, prediction in enumerate(np.frombuffer(part.predictions, "<f4").tolist()):
        row = part.first_row + place
        if why := part.refused.get(row):
            yield {"row": row, "error": why.error, "fields": why.fields}
        else:
            features = {view: column[place] for view, column in zip(views, words, strict=True)}
            yield {
                "row": row, "version": part.version, OUTPUT: prediction, "features": features,
            }  # fmt: skip


def _batch(job: Job, part: PartAnswer) -> pa.RecordBatch:
    rows = range(part.first_row, part.first_row + part.rows)
    is_refused = np.array([row in part.refused for row in rows])
    errors = [part.refused[row].error if row in part.refused else None for row in rows]
    predictions = np.frombuffer(part.predictions, "<f4")
    columns = {
        "row": pa.array(np.arange(rows.start, rows.stop)),
        OUTPUT: pa.array(predictions, mask=is_refused),
    }
    for view, codes in part.statuses.items():
        words = [None if no else STATUS_NAMES[c] for c, no in zip(codes, is_refused, strict=True)]
        columns[f"status__{view}"] = pa.array(words, pa.string())
    columns["error"] = pa.array(errors, pa.string())
    told = {"model": job.model, "digest": job.digest or "", "revision": str(job.revision)}
    return pa.record_batch(columns).replace_schema_metadata(told)


def _taken(sink: io.BytesIO) -> bytes:
    written = sink.getvalue()
    sink.seek(0)
    sink.truncate()
    return written
