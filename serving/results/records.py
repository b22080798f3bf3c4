"""What results are kept under, and as what bytes.

A key is the bundle's digest and the canonical input: equal keys mean equal answers, and a release
that moves on finds nothing of the release before. A record holds all that an answer says: the
prediction, what the model saw, and what became of each view's read.
"""

import struct
from collections.abc import Sequence

import msgspec
import numpy as np

from featurestore.freshness import ReadStatus
from headrace.plan import FeaturePlan
from serving.query import Computed
from serving.schema import Rows
from serving.served import ServedModel

_DIGEST_BYTES = 16
"""As many of a digest's bytes make two bundles of one server differ."""
_RAW, _KEYED = b"r", b"k"
_KEPT = np.array([ReadStatus.PRESENT, ReadStatus.NEVER_SEEN, ReadStatus.EXPIRED, ReadStatus.FUTURE])
"""Reads whose store answered. What it could not be asked for is asked for again."""


def raw_keys(model: ServedModel, matrix: np.ndarray) -> list[bytes]:
    """The key of each row of raw features: its float32 bytes, every NaN the same one.

    Args:
        model: whose answers are kept.
        matrix: float32, shape (rows, columns).
    """
    missing = np.isnan(matrix)
    if missing.any():
        matrix = np.where(missing, np.float32(np.nan), matrix)
    data, width = np.ascontiguousarray(matrix, np.float32).tobytes(), 4 * matrix.shape[1]
    prefix = _prefix(model, _RAW)
    return [prefix + data[begin : begin + width] for begin in range(0, len(data), width)]


def keyed_keys(model: ServedModel, rows: Rows) -> list[bytes]:
    """The key of each row of entity keys: they, the request fields and the moment.

    MessagePack tells types and lengths, so different rows never give the same bytes.
    """
    columns = [*rows.keys.values(), *map(_values, rows.request.values()), _values(rows.at)]
    prefix, encode = _prefix(model, _KEYED), msgspec.msgpack.encode
    return [prefix + encode(row) for row in zip(*columns, strict=True)]


class Layout:
    """The bytes of a record, for the answers of one plan."""

    def __init__(self, plan: FeaturePlan) -> None:
        self._views = tuple(view.view for view in plan.views)
        self._ttl = {v.view: v.ttl_seconds for v in plan.views if v.ttl_seconds is not None}
        self._raw = self._dtype(len(plan.columns), 0)
        self._keyed = self._dtype(len(plan.columns), len(self._views))

    def records(self, computed: Computed) -> list[bytes]:
        """One record for each row that was computed."""
        is_keyed = bool(computed.statuses)
        table = np.empty(len(computed.predictions), self._keyed if is_keyed else self._raw)
        table["prediction"], table["matrix"] = computed.predictions, computed.matrix
        if is_keyed:
            for place, view in enumerate(self._views):
                table["statuses"][:, place] = computed.statuses[view]
                times = computed.event_times[view].astype("datetime64[us]")
                table["event_times"][:, place] = times.view(np.int64)
        data, width = table.tobytes(), table.itemsize
        return [data[begin : begin + width] for begin in range(0, len(data), width)]

    def computed(self, records: Sequence[bytes], *, is_keyed: bool) -> Computed:
        """What was computed, from its records."""
        dtype = self._keyed if is_keyed else self._raw
        table = np.frombuffer(b"".join(records), dtype)
        matrix, predictions = table["matrix"].copy(), table["prediction"].copy()
        if not is_keyed:
            return Computed(matrix, predictions, {}, {})
        places = tuple(enumerate(self._views))
        statuses = {view: table["statuses"][:, place].copy() for place, view in places}
        times = table["event_times"].copy().view("datetime64[us]")
        return Computed(
            matrix, predictions, statuses, {view: times[:, place] for place, view in places}
        )

    def fits(self, record: bytes, *, is_keyed: bool) -> bool:
        """Whether a record that came from elsewhere is one of these, by its length."""
        return len(record) == (self._keyed if is_keyed else self._raw).itemsize

    def seconds_left(self, computed: Computed, at: np.ndarray | None, most: float) -> np.ndarray:
        """How long the result of each row may be used: float64, shape (rows,); 0: not at all.

        Until the first of the features that were used would expire, counted from the row's own
        moment, as freshness always is; ``most`` seconds at most.

        Args:
            computed: the results.
            at: the rows' moments, datetime64[us]; None for raw features.
            most: the setting, in seconds.
        """
        left = np.full(len(computed.predictions), most)
        left[~np.isfinite(computed.predictions)] = 0.0
        for view, codes in computed.statuses.items():
            left[~np.isin(codes, _KEPT)] = 0.0
            ttl = self._ttl.get(view)
            if ttl is None or at is None:
                continue
            age = (at - computed.event_times[view]) / np.timedelta64(1, "s")
            is_used = codes == ReadStatus.PRESENT
            left[is_used] = np.minimum(left[is_used], np.maximum(ttl - age[is_used], 0.0))
        return left

    @staticmethod
    def _dtype(columns: int, views: int) -> np.dtype:
        fields: list[tuple[str, str, tuple[int, ...]]] = [
            ("prediction", "<f4", ()),
            ("matrix", "<f4", (columns,)),
        ]
        if views:
            fields += [("statuses", "u1", (views,)), ("event_times", "<i8", (views,))]
        return np.dtype(fields)


def _prefix(model: ServedModel, kind: bytes) -> bytes:
    return bytes.fromhex(model.predictor.digest[: 2 * _DIGEST_BYTES]) + kind


def _values(column: np.ndarray) -> list[object]:
    """A column as MessagePack takes it; a time by its bytes, which no number can be taken for."""
    if column.dtype.kind == "M":
        return [struct.pack("<q", t) for t in column.astype("datetime64[us]").view(np.int64)]
    return list(column.tolist())
