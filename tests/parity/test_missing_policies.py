"""Missing and expired values by policy: the join, the online read and a plain oracle agree."""

from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.catalog.planning import plan_for
from featurestore.join.pit import point_in_time_join
from featurestore.join.training_set import join_features, reasons_of
from featurestore.missing import refusals
from featurestore.online.reader import open_online_reader
from featurestore.stores.materialize import materialize
from featurestore.stores.stored import StoredView, stored_view
from featurestore.vectors import input_matrix
from headrace import storage
from headrace.errors import SpecRefused
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead
from headrace.settings import Settings
from headrace.spec import Gate, LabelSource, ModelSpec

TIMESTAMP = pa.timestamp("us", tz="UTC")
NOW = datetime(2013, 1, 2, tzinfo=UTC)
TTL = timedelta(hours=1)
ENTITIES = 200
VIEW = ViewRead(
    view="hourly",
    table="hourly",
    join_keys=(JoinKey(name="origin"),),
    event_timestamp="event_timestamp",
    created_timestamp="created_timestamp",
    ttl_seconds=TTL.total_seconds(),
    features=(FeatureRead(name="x", dtype="DOUBLE"), FeatureRead(name="y", dtype="DOUBLE")),
)
CATALOG = Catalog(
    project="tiny",
    definitions_sha256="0" * 64,
    views=(VIEW,),
    services={"s": ({"view": "hourly", "features": ("x", "y")},)},
)
POLICIES = [
    {},
    {"hourly": "last_known"},
    {"hourly": 7.5},
    {"hourly.y": -1},
    {"hourly": "error"},
    {"hourly.y": "error"},
    {"hourly": "last_known", "hourly.y": 3.0},
    {"hourly": 2.0, "hourly.y": "error"},
]


def spec_of(missing):
    return ModelSpec(
        name="tiny",
        description="A model of two numbers of an airport.",
        owner="a@b.example",
        feature_service="s",
        label=LabelSource(
            table="labels",
            entity_keys=("origin",),
            event_timestamp="at",
            created_timestamp="known",
            column="late",
        ),
        scoring_table="rows",
        gates=(Gate(metric="roc_auc", at_least=0.5),),
        missing=missing,
    )


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Values of many ages, some null, some entities without any; and the stores that hold them."""
    settings = Settings(home=tmp_path_factory.mktemp("policies"))
    random = np.random.default_rng(3)
    rows = []
    for n in range(ENTITIES):
        for _ in range(random.integers(0, 4)):
            age = timedelta(minutes=int(random.choice([5, 30, 59, 60, 61, 90, 600])))
            pair = [None if random.random() < 0.3 else float(random.integers(100)) for _ in "xy"]
            rows.append((f"A{n}", NOW - age, NOW - age + timedelta(minutes=3), *pair))
    rows.sort(key=lambda row: row[1])
    names = ("origin", "event_timestamp", "created_timestamp", "x", "y")
    types = (pa.string(), TIMESTAMP, TIMESTAMP, pa.float64(), pa.float64())
    columns = [pa.array(c, t) for c, t in zip(zip(*rows, strict=True), types, strict=True)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns, names=names), sink, write_page_checksum=True)
    uri = f"{settings.uri('offline')}/hourly.parquet"
    storage.write_atomic(uri, sink.getvalue().to_pybytes())
    materialize(settings, CATALOG, until=NOW)
    return settings, rows


def oracle(rows, missing, entity):
    """What the model sees of an entity at NOW, and whether the row is answered; by plain words."""
    values = [row for row in rows if row[0] == entity]
    x = y = None
    has_value = False
    if values:
        newest = max(enumerate(values), key=lambda pair: (pair[1][1], pair[1][2], pair[0]))[1]
        if NOW - newest[1] <= TTL or missing.get("hourly") == "last_known":
            x, y, has_value = newest[3], newest[4], True
    found = {"x": x, "y": y}
    answered = has_value or missing.get("hourly") != "error"
    answered &= found["y"] is not None or missing.get("hourly.y") != "error"
    seen = []
    for name, value in found.items():
        for said in (missing.get(f"hourly.{name}"), missing.get("hourly")):
            if value is None and isinstance(said, int | float):
                value = said
        seen.append(np.nan if value is None else value)
    return seen, answered


def rows_of(found, count):
    refused = np.zeros(count, bool)
    for each in found:
        refused |= each.rows
    return refused


@pytest.mark.parametrize("missing", POLICIES, ids=str)
def test_join_online_read_and_oracle_agree(world, missing):
    settings, rows = world
    plan = plan_for(CATALOG, spec_of(missing))
    entities = [f"A{n}" for n in range(ENTITIES + 5)]
    asked = pa.table({"origin": entities, "at": pa.array([NOW] * len(entities), TIMESTAMP)})
    joined = join_features(asked, plan, settings.uri("offline"))
    reader = open_online_reader(settings, plan)
    at = np.full(len(entities), np.datetime64(NOW.replace(tzinfo=None), "us"))
    online = reader.read({"origin": entities}, at)
    reader.close()
    matrix = input_matrix(plan, [], online.columns, {})
    np.testing.assert_array_equal(matrix, joined.matrix)
    np.testing.assert_array_equal(online.status["hourly"], joined.views[0].reasons)
    np.testing.assert_array_equal(online.event_times["hourly"], joined.views[0].event_times)
    refused = rows_of(refusals(plan, online.status, online.columns), len(entities))
    np.testing.assert_array_equal(refused, rows_of(joined.refused, len(entities)))
    seen, answered = zip(*(oracle(rows, missing, entity) for entity in entities), strict=True)
    np.testing.assert_array_equal(matrix, np.array(seen, np.float32))
    np.testing.assert_array_equal(~refused, answered)
    assert refused.any() == ("error" in missing.values())


def test_values_used_past_their_ttl_are_labelled_and_counted(world):
    settings, _ = world
    counts = {}
    for name, missing in (("plain", {}), ("used", {"hourly": "last_known"})):
        plan = plan_for(CATALOG, spec_of(missing))
        asked = pa.table(
            {
                "origin": [f"A{n}" for n in range(ENTITIES)],
                "at": pa.array([NOW] * ENTITIES, TIMESTAMP),
            }
        )
        joined = join_features(asked, plan, settings.uri("offline"))
        counts[name] = joined.reasons["hourly"]
        assert joined.certificate(asked).views[0].reasons == joined.reasons["hourly"]
    assert counts["used"]["LAST_KNOWN"] == counts["plain"]["EXPIRED"] > 20
    assert "LAST_KNOWN" not in counts["plain"]


def test_a_refusal_says_what_is_missing_and_why(world):
    settings, _ = world
    plan = plan_for(CATALOG, spec_of({"hourly": "error", "hourly.y": "error"}))
    entities = [f"A{n}" for n in range(ENTITIES + 1)]
    asked = pa.table({"origin": entities, "at": pa.array([NOW] * len(entities), TIMESTAMP)})
    joined = join_features(asked, plan, settings.uri("offline"))
    assert {each.reason for each in joined.refused} == {
        "hourly has no value (never_seen)",
        "hourly has no value (expired)",
        "hourly.y has no value (never_seen)",
        "hourly.y has no value (expired)",
        "hourly.y has no value (null in the store)",
    }
    assert set(reasons_of(plan, joined.views)) == {"hourly"}


def test_a_plan_without_policies_reads_and_hashes_as_before_there_were_any():
    plan = plan_for(CATALOG, spec_of({}))
    dumped = plan.model_dump(mode="json")
    assert "missing" not in dumped
    assert "last_known" not in dumped["views"][0]
    assert FeaturePlan.model_validate(dumped) == plan
    # As the first version without policies gave them, for the same view.
    assert plan.reads_sha256[:16] == "b7844e1772f571e4"
    assert StoredView(view=stored_view(VIEW)).tag.hex() == "977230d7eca390ed"
    used = plan_for(CATALOG, spec_of({"hourly": "last_known", "hourly.x": 1.0}))
    assert used.reads_sha256 != plan.reads_sha256
    assert FeaturePlan.model_validate_json(used.model_dump_json()) == used


@pytest.mark.parametrize(
    ("missing", "sentence"),
    [
        ({"daily": "error"}, "missing names view daily, which it does not read; it reads hourly"),
        ({"hourly.z": 1.0}, "hourly.z, which is no number that it reads; of hourly these are x, y"),
        ({"hourly.x": "last_known"}, "last_known of hourly.x; that is said of a view: hourly"),
        ({"hourly": float("nan")}, "nan of hourly; write a finite number"),
    ],
)
def test_a_policy_that_fits_nothing_is_refused_when_the_plan_is_made(missing, sentence):
    with pytest.raises(SpecRefused, match=sentence):
        plan_for(CATALOG, spec_of(missing))


def test_a_policy_of_another_word_is_refused_with_the_spec():
    with pytest.raises(SpecRefused, match="missing"):
        spec_of({"hourly": "ignore"})


def test_a_table_in_memory_is_joined_by_the_same_rule(world):
    settings, _ = world
    values = pq.read_table(f"{settings.uri('offline')}/hourly.parquet")
    asked = pa.table({"origin": ["A1", "A2", "A3"], "at": pa.array([NOW] * 3, TIMESTAMP)})
    always = VIEW.model_copy(update={"last_known": True})
    used = point_in_time_join(asked, values, always, timestamp="at")
    any_age = VIEW.model_copy(update={"ttl_seconds": None})
    without_ttl = point_in_time_join(asked, values, any_age, timestamp="at")
    for name in VIEW.columns:
        np.testing.assert_array_equal(used.columns[name], without_ttl.columns[name])
