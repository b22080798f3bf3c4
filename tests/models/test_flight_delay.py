from datetime import UTC, datetime

import numpy as np
import pytest

from featurestore.catalog.catalog import load_catalog
from featurestore.catalog.planning import plan_for
from featurestore.flights.sources import write_tables
from featurestore.join.training_set import join_features
from featurestore.offline.tables import read_table
from headrace.settings import Settings
from headrace.spec import load_spec
from monitoring.performance import score
from registry.gates import check_gates
from serving.runtimes.xgboost import XGBoostRuntime
from tasks.fitters import xgboost


@pytest.fixture(scope="module")
def settings(tmp_path_factory) -> Settings:
    found = Settings(home=tmp_path_factory.mktemp("home"))
    write_tables(found.uri("offline"), until=datetime(2013, 2, 20, tzinfo=UTC))
    return found


@pytest.fixture(scope="module")
def plan(settings):
    return plan_for(load_catalog(settings), load_spec("flight_delay"))


def test_every_feature_of_the_service_is_a_column_of_its_table(settings, plan):
    for read in plan.views:
        names = [feature.name for feature in read.features]
        keys = [read.event_timestamp, read.created_timestamp, *read.key_names]
        table = read_table(settings.uri("offline"), read.table)
        assert sorted(table.column_names) == sorted(names + keys)
        kinds = {"DOUBLE": "double", "INT64": "int64"}
        declared = [kinds[feature.dtype] for feature in read.features]
        assert [str(table[name].type) for name in names] == declared


def test_four_weeks_of_training_keep_every_gate_on_the_weeks_after(settings, plan):
    spec = load_spec("flight_delay")
    rows = read_table(settings.uri("offline"), spec.label.table)
    matrix = join_features(rows, plan, settings.uri("offline")).matrix
    label, cut = rows[spec.label.column].to_numpy(), np.datetime64("2013-01-29", "us")
    train = rows[spec.label.created_timestamp].to_numpy() < cut
    test = rows[spec.label.event_timestamp].to_numpy() >= cut
    model = XGBoostRuntime(
        xgboost.fit(spec.trainer, spec.task, matrix[train], label[train]), threads=2
    )
    origins = rows["origin"].to_numpy(zero_copy_only=False)[test]
    card = score("binary", label[test], model.predict(matrix[test]), slices={"origin": origins})
    results = check_gates(spec.gates, card)
    assert [result.sentence for result in results if not result.passed] == []
    assert {result.slice for result in results} == {None, "EWR", "JFK", "LGA"}


def test_a_model_that_knows_only_the_share_of_late_flights_keeps_no_gate_on_ranking():
    spec, labels = load_spec("flight_delay"), np.arange(3000) % 4 == 0
    origins = np.repeat(["EWR", "JFK", "LGA"], 1000).astype(object)
    constant = np.full(3000, 0.25, np.float32)
    card = score("binary", labels.astype(np.int8), constant, slices={"origin": origins})
    ranking = [r for r in check_gates(spec.gates, card) if r.gate.metric == "roc_auc"]
    assert len(ranking) == 4
    assert not any(result.passed for result in ranking)
