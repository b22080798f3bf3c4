"""The reader and Feast's ``get_online_features`` give the same, for every value type Feast has.

On both stores, of rows that we wrote and of rows that Feast wrote. Where Feast leaves the TTL to
its callers, ours differs on purpose, and so does a whole number beyond 2**53.
"""

import contextlib
import json
import uuid
import warnings
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest

from featurestore.online.reader import ReadStatus, open_online_reader
from featurestore.stores.open_store import open_store
from featurestore.stores.stored import StoredView, stored_view
from featurestore.wire.values import FIELD_NUMBERS
from headrace.plan import NUMBERS, FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings

START = datetime(2013, 1, 1, tzinfo=UTC)
CLOCK = pa.timestamp("us", tz="UTC")
TYPES = sorted(FIELD_NUMBERS)
ENTITIES = 40


def moment(minutes):
    return np.datetime64(START.replace(tzinfo=None), "us") + np.timedelta64(minutes, "m")


class Values:
    """Random values of every type, from a seed."""

    def __init__(self, seed):
        self.random = np.random.default_rng(seed)

    def of(self, dtype):
        if self.random.random() < 0.15:
            return None
        element, _, kind = dtype.rpartition("_")
        if dtype in ("VALUE_LIST", "VALUE_SET"):
            return [[self.whole(60) for _ in range(self.some(1))] for _ in range(self.some())]
        if dtype in ("MAP", "STRUCT"):
            return self.mapping()
        if dtype in ("MAP_LIST", "STRUCT_LIST"):
            return [self.mapping() for _ in range(self.some())]
        if dtype == "SCALAR_MAP":
            return [(self.whole(50), self.text()) for _ in range(self.some(1))]
        if kind in ("LIST", "SET"):
            values = [self.scalar(element) for _ in range(self.some(1))]
            return list(dict.fromkeys(values)) if kind == "SET" else values
        return self.scalar(dtype)

    def scalar(self, dtype):
        if dtype in ("INT32", "INT64"):
            return self.whole(31 if dtype == "INT32" else 50)
        made = {
            "BYTES": lambda: self.random.bytes(self.some(1)),
            "STRING": self.text,
            "DOUBLE": lambda: float(self.random.normal()),
            "FLOAT": lambda: float(np.float32(self.random.normal())),
            "BOOL": lambda: bool(self.random.random() < 0.5),
            "UNIX_TIMESTAMP": self.time,
            "ZONED_TIMESTAMP": self.time,
            "JSON": lambda: json.dumps({self.text(): [self.whole(20), None, self.text()]}),
            "DECIMAL": lambda: str(Decimal(self.whole(50)) / 1000),
        }
        return made.get(dtype, lambda: str(uuid.UUID(bytes=self.random.bytes(16))))()

    def some(self, least=0):
        return int(self.random.integers(least, 4))

    def whole(self, bits):
        return int(self.random.integers(-(1 << bits), 1 << bits))

    def text(self):
        return "".join(self.random.choice(list("aZ\u00e9\u6c34 %")) for _ in range(self.some(1)))

    def time(self):
        return START + timedelta(seconds=self.whole(28))

    def mapping(self):
        return {"a": self.whole(40), "b": self.text(), "c": {"d": [1.5, 2.5]}, "e": None}


ARROW = {
    "BYTES": pa.binary(), "STRING": pa.string(), "INT32": pa.int32(), "INT64": pa.int64(),
    "DOUBLE": pa.float64(), "FLOAT": pa.float32(), "BOOL": pa.bool_(), "UNIX_TIMESTAMP": CLOCK,
    "JSON": pa.string(), "UUID": pa.string(), "TIME_UUID": pa.string(), "DECIMAL": pa.string(),
    "ZONED_TIMESTAMP": pa.timestamp("us", tz="America/New_York"),
    "SCALAR_MAP": pa.map_(pa.int64(), pa.string()),
}  # fmt: skip


def arrow(values, dtype):
    element, _, kind = dtype.rpartition("_")
    known = ARROW.get(dtype)
    if known is None and kind in ("LIST", "SET") and element in ARROW:
        known = pa.list_(ARROW[element])
    return pa.array(values, known)


def of_feast(value, dtype):
    """A value as Feast's own converter takes it."""
    if value is None:
        return None
    if dtype == "SCALAR_MAP":
        return dict(value)
    if dtype.endswith("_SET") and dtype != "VALUE_SET":
        return set(value)
    if dtype == "ZONED_TIMESTAMP":
        from zoneinfo import ZoneInfo

        return value.astimezone(ZoneInfo("America/New_York"))
    return value


def shown(value):
    """The value as something that is equal for equal values, in whatever order they came."""
    if isinstance(value, dict):
        return sorted((repr(k), shown(v)) for k, v in value.items())
    if isinstance(value, set):
        return sorted(map(repr, value))
    return [shown(v) for v in value] if isinstance(value, list) else repr(value)


VIEW = ViewRead(
    view="all_types",
    table="all_types",
    join_keys=(JoinKey(name="origin"), JoinKey(name="gate", dtype="INT64")),
    event_timestamp="event_timestamp",
    created_timestamp="created_timestamp",
    ttl_seconds=None,
    features=tuple(FeatureRead(name=f"f_{t.lower()}", dtype=t) for t in TYPES),
)
KEYS = {"origin": [f"A{n % 7}" for n in range(ENTITIES)], "gate": list(range(ENTITIES))}


def plan_of(view):
    return FeaturePlan(
        project="tiny", feature_service="s", definitions_sha256="", event_timestamp="at",
        views=(view,), request=(), inputs_from_request=(), transforms=(),
    )  # fmt: skip


@pytest.fixture(params=["sqlite", "redis"])
def place(request, tmp_path):
    settings = Settings(home=tmp_path / "home")
    (tmp_path / "home").mkdir()
    if request.param == "redis":
        return settings.model_copy(update={"online_store": request.getfixturevalue("redis_url")})
    return settings


@pytest.fixture
def feast_store(place, tmp_path):
    """Feast over the same online store, with a view of every type."""
    import feast
    import pyarrow.parquet as pq
    from feast.types import Array, Float64, Set, Struct, from_value_type

    special = {
        "STRUCT": Struct({"a": Float64}),
        "STRUCT_LIST": Array(Struct({"a": Float64})),
        "VALUE_LIST": Array(Array(Float64)),
        "VALUE_SET": Set(Array(Float64)),
    }
    entities = [
        feast.Entity(name="airport", join_keys=["origin"], value_type=feast.ValueType.STRING),
        feast.Entity(name="gate", join_keys=["gate"], value_type=feast.ValueType.INT64),
    ]
    fields = [
        feast.Field(
            name=f.name, dtype=special.get(f.dtype) or from_value_type(feast.ValueType[f.dtype])
        )
        for f in VIEW.features
    ]
    path = tmp_path / "all_types.parquet"
    pq.write_table(pa.table({"event_timestamp": pa.array([], CLOCK)}), path)
    source = feast.FileSource(path=str(path), timestamp_field="event_timestamp")
    view = feast.FeatureView(
        name="all_types", entities=entities, ttl=timedelta(seconds=1), schema=fields, source=source
    )
    online = {"type": "sqlite", "path": str(place.online_path)}
    if "://" in place.online_uri:
        address = place.online_uri.removeprefix("redis://").removesuffix("/0")
        online = {"type": "redis", "connection_string": address}
    config = feast.RepoConfig(
        project="tiny",
        provider="local",
        registry=str(tmp_path / "registry.db"),
        online_store=online,
        entity_key_serialization_version=3,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        store = feast.FeatureStore(config=config)
        store.apply([*entities, view])
    return store


def write(place, table=None):
    with contextlib.closing(open_store(place, "tiny")) as store:
        stored = StoredView(view=stored_view(VIEW), until_us=0)
        store.put_view(stored)
        if table is not None:
            assert store.write(stored, table) == ENTITIES


def table_of(columns, minutes=0):
    times = pa.array([START + timedelta(minutes=minutes)] * ENTITIES, CLOCK)
    arrays = {f"f_{t.lower()}": arrow(values, t) for t, values in columns.items()}
    return pa.table({**KEYS, "event_timestamp": times, "created_timestamp": times, **arrays})


def feast_writes(store, columns, minutes):
    """Through Feast's own converter and its provider: what its materialisation does."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value
    from feast.type_map import python_values_to_proto_values
    from feast.value_type import ValueType

    protos = {}
    for dtype, values in columns.items():
        given = [of_feast(value, dtype) for value in values]
        protos[f"f_{dtype.lower()}"] = python_values_to_proto_values(given, ValueType[dtype])
    at = START + timedelta(minutes=minutes)
    rows = []
    for n, (origin, gate) in enumerate(zip(*KEYS.values(), strict=True)):
        values = [Value(int64_val=gate), Value(string_val=origin)]
        key = EntityKey(join_keys=["gate", "origin"], entity_values=values)
        rows.append((key, {name: column[n] for name, column in protos.items()}, at, at))
    provider, view = store._get_provider(), store.get_feature_view("all_types")
    provider.online_write_batch(store.config, view, rows, None)


def feast_reads(store):
    rows = [{"origin": o, "gate": g} for o, g in zip(*KEYS.values(), strict=True)]
    found = store.get_online_features([f"all_types:{f.name}" for f in VIEW.features], rows)
    return found.to_dict()


def we_read(place, view=VIEW, minutes=10):
    reader = open_online_reader(place, plan_of(view))
    with contextlib.closing(reader):
        return reader.read(KEYS, np.full(ENTITIES, moment(minutes)))


def assert_same(ours, feasts):
    for feature in VIEW.features:
        column, wanted = ours.columns[f"all_types__{feature.name}"], feasts[feature.name]
        if feature.dtype in NUMBERS:
            numbers = [np.nan if value is None else float(value) for value in wanted]
            np.testing.assert_array_equal(column, numbers, feature.name)
        else:
            assert [shown(v) for v in column] == [shown(v) for v in wanted], feature.name


def test_ours_equals_feasts_read_of_every_type_whoever_wrote(place, feast_store):
    for seed, minutes in ((1, 0), (2, 3)):
        values = Values(seed)
        columns = {t: [values.of(t) for _ in range(ENTITIES)] for t in TYPES}
        if minutes == 0:
            write(place, table_of(columns, minutes))
        else:
            feast_writes(feast_store, columns, minutes)
        ours = we_read(place)
        assert ours.status["all_types"].tolist() == [ReadStatus.PRESENT] * ENTITIES
        assert set(ours.event_times["all_types"]) == {moment(minutes)}
        assert_same(ours, feast_reads(feast_store))


def test_feast_gives_a_value_older_than_its_ttl_and_we_do_not(place, feast_store):
    columns = {t: [Values(3).of(t) for _ in range(ENTITIES)] for t in TYPES}
    columns["DOUBLE"] = [1.5] * ENTITIES
    write(place, table_of(columns))
    assert feast_reads(feast_store)["f_double"] == [1.5] * ENTITIES  # its TTL is one second
    ours = we_read(place, VIEW.model_copy(update={"ttl_seconds": 1.0}), minutes=60)
    assert ours.status["all_types"].tolist() == [ReadStatus.EXPIRED] * ENTITIES
    assert np.isnan(ours.columns["all_types__f_double"]).all()


def test_a_whole_number_beyond_2_to_the_53_is_rounded_to_a_float(place, feast_store):
    columns = {t: [Values(4).of(t) for _ in range(ENTITIES)] for t in TYPES}
    columns["INT64"] = [2**53 + 1] * ENTITIES
    write(place, table_of(columns))
    assert feast_reads(feast_store)["f_int64"] == [2**53 + 1] * ENTITIES
    assert we_read(place).columns["all_types__f_int64"].tolist() == [2.0**53] * ENTITIES
