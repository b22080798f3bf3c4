"""An old model keeps reading what it was trained on, while newer versions come beside it."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pytest

from featurestore.catalog.catalog import load_catalog, service_reads
from featurestore.catalog.changes import losses
from featurestore.online.reader import OnlineReader
from featurestore.stores.materialize import materialize
from headrace.plan import FeaturePlan

UNTIL = datetime(2013, 1, 1, 1, tzinfo=UTC)
LATER = """
hourly_v2 = FeatureView(
    name="hourly_v2",
    entities=[origin],
    ttl=timedelta(minutes=30),
    schema=[Field(name="x", dtype=Int64), Field(name="y", dtype=Float64)],
    source=hourly.batch_source,
)
both_v2 = FeatureService(name="both_v2", features=[hourly_v2, gates])
"""


def plan_for_service(catalog, service):
    return FeaturePlan(
        project=catalog.project,
        feature_service=service,
        definitions_sha256=catalog.definitions_sha256,
        event_timestamp="at",
        views=service_reads(catalog, service),
        request=(),
        inputs_from_request=(),
        transforms=(),
    )


@pytest.fixture
def repository(tiny_repository, at_home, put_table, values, tmp_path):
    """A repository with rows in both tables; edits it and loads its catalog."""
    package = tiny_repository()
    hourly = values(("EWR", 0, 0, 1.0), ("JFK", 10, 10, 2.0), ("EWR", 20, 20, 3.0))
    wait = pa.array([0.5, 1.5, None], pa.float32())
    gates = hourly.drop_columns("x")
    columns = {
        "gate": [1, 2, 1],
        "passengers": [7, 8, 9],
        "open": [True, False, None],
        "wait": wait,
    }
    for name, column in columns.items():
        gates = gates.append_column(name, pa.array(column))
    put_table(
        at_home.uri("offline"), "hourly", hourly.append_column("y", pa.array([4.0, 5.0, 6.0]))
    )
    put_table(at_home.uri("offline"), "gates", gates)
    path = tmp_path / package / "definitions" / "views.py"

    def load(*edits, more=""):
        text = path.read_text()
        for old, new in edits:
            assert old in text
            text = text.replace(old, new)
        path.write_text(text + more)
        return load_catalog(at_home, repository=package)

    return load


def answers(reader):
    keys = {"origin": ["EWR", "JFK", None], "gate": [1, 2, 1]}
    found = reader.read(keys, np.array(["2013-01-01T00:25"] * 3, "datetime64[us]"))
    return {name: column.tolist() for name, column in found.columns.items()}


@pytest.fixture(params=["sqlite", "redis"])
def at_home(request, at_home):
    if request.param == "sqlite":
        return at_home
    url = request.getfixturevalue("redis_url")
    return at_home.model_copy(update={"online_store": url})


def test_an_old_model_reads_v1_as_before_while_v2_is_materialized_beside_it(repository, at_home):
    first = repository()
    materialize(at_home, first, until=UNTIL)
    plan = plan_for_service(first, "both")
    running = OnlineReader(at_home.online_uri, plan)
    before = answers(running)
    assert before["hourly__x"][:2] == [3.0, 2.0]

    second = repository(
        (
            'schema=[Field(name="x", dtype=Float64)]',
            'schema=[Field(name="x", dtype=Float64), Field(name="y", dtype=Float64)]',
        ),
        more=LATER,
    )
    assert not [lost for view in plan.views for lost in losses(view, _named(second, view.view))]
    materialize(at_home, second, until=UNTIL)

    started_later = OnlineReader(at_home.online_uri, plan)
    newer = OnlineReader(at_home.online_uri, plan_for_service(second, "both_v2"))
    np.testing.assert_equal(answers(running), before)
    np.testing.assert_equal(answers(started_later), before)
    assert answers(newer)["hourly_v2__y"][:2] == [6.0, 5.0]
    assert plan_for_service(second, "both").reads_sha256 != plan.reads_sha256
    for reader in (running, started_later, newer):
        reader.close()


def test_a_change_of_another_view_leaves_the_hash_of_what_a_model_reads(repository):
    plan = plan_for_service(repository(), "both")
    again = plan_for_service(repository(more=LATER), "both")
    assert again.definitions_sha256 != plan.definitions_sha256
    assert again.reads_sha256 == plan.reads_sha256


def _named(catalog, name):
    return next(view for view in catalog.views if view.view == name)
