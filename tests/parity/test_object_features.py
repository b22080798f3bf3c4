"""Features that are no numbers feed transforms, in training and in the server alike."""

from datetime import UTC, datetime

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from featurestore.catalog.catalog import Catalog
from featurestore.join.training_set import join_features
from featurestore.online.reader import OnlineReader
from featurestore.stores.materialize import materialize
from featurestore.vectors import input_matrix, request_columns
from headrace.plan import FeaturePlan, FeatureRead, JoinKey, ViewRead, pin, pinned_transforms
from headrace.settings import Settings
from headrace.transform import find_transform

TRANSFORMS = """
import numpy as np

from headrace.transform import transform


@transform("tails__name", "tails__legs")
def name_length_over_legs(name, legs):
    lengths = np.array([np.nan if n is None else float(len(n)) for n in name])
    counts = np.array([np.nan if v is None else float(len(v)) for v in legs])
    return lengths / counts
"""
STAMP = pa.timestamp("us", tz="UTC")
MIDNIGHT, NOON = datetime(2013, 1, 1, tzinfo=UTC), datetime(2013, 1, 1, 12, tzinfo=UTC)


@pytest.fixture
def plan(tmp_path, monkeypatch):
    package = tmp_path / "written"
    package.mkdir()
    (package / "__init__.py").touch()
    (package / "words.py").write_text(TRANSFORMS)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr("headrace.transform.PACKAGE", "written")
    return FeaturePlan(
        project="tiny",
        feature_service="s",
        definitions_sha256="",
        event_timestamp="at",
        views=(
            ViewRead(
                view="tails",
                table="tails",
                join_keys=(JoinKey(name="tail"),),
                event_timestamp="event",
                created_timestamp=None,
                ttl_seconds=None,
                features=(
                    FeatureRead(name="name", dtype="STRING"),
                    FeatureRead(name="seats", dtype="INT64"),
                    FeatureRead(name="legs", dtype="INT64_LIST"),
                ),
            ),
        ),
        request=(),
        inputs_from_request=(),
        transforms=(pin(find_transform("words.name_length_over_legs")),),
    )


def test_training_and_server_give_the_same_matrix_from_words_and_lists(tmp_path, plan):
    settings = Settings(home=tmp_path / "home")
    table = pa.table(
        {
            "tail": ["N1", "N2", "N3"],
            "event": pa.array([MIDNIGHT] * 3, STAMP),
            "name": ["Wind", "Æolus ☃", None],
            "seats": [4, None, 6],
            "legs": [[1, 2], [3], [4]],
        }
    )
    (tmp_path / "home" / "storage" / "offline").mkdir(parents=True)
    pq.write_table(table, settings.uri("offline", "tails.parquet"), write_page_checksum=True)
    rows = pa.table({"tail": ["N1", "N2", "N3", "N4", None], "at": pa.array([NOON] * 5, STAMP)})

    trained = join_features(rows, plan, settings.uri("offline")).matrix

    catalog = Catalog(project="tiny", definitions_sha256="", views=plan.views, services={})
    materialize(settings, catalog, until=NOON)
    reader = OnlineReader(settings.online_path, plan)
    request = request_columns(plan, rows)
    found = reader.read({"tail": rows["tail"].to_pylist()}, request["at"])
    served = input_matrix(plan, pinned_transforms(plan, "d"), found.columns, request)
    reader.close()

    assert plan.columns == ("tails__seats", "name_length_over_legs")
    nan = np.nan
    np.testing.assert_array_equal(trained, [[4, 2], [nan, 7], [6, nan], [nan, nan], [nan, nan]])
    np.testing.assert_array_equal(served, trained)
