"""What callers see while Redis hangs: a refusal in time, or an answer that says it is degraded."""

import re
import time
from contextlib import closing
from datetime import UTC, datetime
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from featurestore.online.reader import ReaderOptions, open_online_reader
from featurestore.stores import resp
from featurestore.stores.open_store import open_store
from featurestore.stores.stored import StoredView, stored_view
from headrace.missing import MissingRule
from headrace.settings import Settings
from serving.errors import FeatureRequired, http_status
from serving.features import read_features

WRITTEN = datetime(2013, 8, 1, 11, 30, tzinfo=UTC)
ROWS = {
    "weather": {"origin": ["JFK"], "temperature": [71.5], "wind_speed": [12.0]},
    "planes": {"tailnum": ["N123AA"], "seats": [178.0]},
}


@pytest.fixture
def places(redis_url, tmp_path, plan):
    """Settings with a Redis that holds the plan's views."""
    places = Settings(home=tmp_path, online_store=redis_url)
    stamps = dict.fromkeys(
        ("event_timestamp", "created_timestamp"), pa.array([WRITTEN], pa.timestamp("us", tz="UTC"))
    )
    with closing(open_store(places, plan.project)) as online:
        for view in plan.views:
            stored = StoredView(view=stored_view(view), until_us=0)
            online.put_view(stored)
            online.write(stored, pa.table({**ROWS[view.view], **stamps}))
    return places


@pytest.fixture
def open_reader(places, request):
    """The real reader, where other tests have a dictionary."""
    options = ReaderOptions(deadline_seconds=0.05, retry_seconds=0.1, **request.param)
    return lambda plan: open_online_reader(places, plan, options)


@pytest.fixture
def hang(places):
    """Make Redis answer nobody for a while."""
    connection = resp.Connection(places.online_uri, timeout_seconds=5)
    yield lambda ms: connection.ask(resp.command(b"CLIENT", b"PAUSE", b"%d" % ms), replies=1)
    connection.close()


def asked(client, instance):
    begun = time.monotonic()
    response = client.post("/api/v1/infer", json={"instances": [instance()]})
    return response, time.monotonic() - begun


@pytest.mark.parametrize("open_reader", [{"degrade": True}], indirect=True)
def test_a_degraded_answer_says_so_and_is_counted(client, instance, hang):
    whole, _ = asked(client, instance)
    assert whole.json()["degraded"] is False
    assert whole.json()["predictions"][0]["features"] == {"weather": "present", "planes": "present"}
    hang(600)
    for _ in range(5):
        response, seconds = asked(client, instance)
        assert (response.status_code, response.json()["degraded"]) == (200, True)
        features = response.json()["predictions"][0]["features"]
        assert features == {"weather": "unavailable", "planes": "unavailable"}
        assert seconds < 0.3
    assert client.get("/health").json()["online_store"]["status"] == "failing"
    text = client.get("/metrics").text
    assert 'inference_degraded_total{model="flight_delay",edge="plain"} 5.0' in text
    assert (
        'view="planes",status="unavailable"' in text or 'status="unavailable",view="planes"' in text
    )
    time.sleep(1.1)  # health asks the store once a second
    response, _ = asked(client, instance)
    assert response.json()["predictions"] == whole.json()["predictions"]
    assert client.get("/health").json()["online_store"] == {"status": "ok", "reason": None}


@pytest.mark.parametrize("open_reader", [{}], indirect=True)
def test_a_server_that_refuses_does_so_in_time(client, instance, hang):
    hang(400)
    for _ in range(3):
        response, seconds = asked(client, instance)
        assert response.status_code == 503
        assert re.search("cannot (ask|reach) the online store redis:", response.json()["error"])
        assert seconds < 0.3
    time.sleep(0.6)
    assert asked(client, instance)[0].status_code == 200


@pytest.mark.parametrize("open_reader", [{"cache_seconds": 60}], indirect=True)
def test_the_cache_counts_its_hits(client, instance, hang):
    for _ in range(3):
        asked(client, instance)
    hang(300)
    assert asked(client, instance)[0].json()["degraded"] is False
    text = client.get("/metrics").text
    assert 'feature_cache_hits_total{model="flight_delay"} 6.0' in text
    # Asked twice: a new connection learns the views anew, and rows read before do not count.
    assert 'feature_cache_misses_total{model="flight_delay"} 4.0' in text


def test_a_row_without_a_feature_that_its_model_must_have_is_refused_by_name(places, plan):
    rule = MissingRule(view="weather")
    required = plan.model_copy(update={"missing": (rule,)})
    with closing(open_online_reader(places, required)) as reader:
        model = SimpleNamespace(predictor=SimpleNamespace(plan=required), reader=reader)
        at = np.full(2, np.datetime64("2013-08-01T12:00", "us"))
        both = {"origin": ["JFK", "EWR"], "tailnum": ["N123AA", None]}
        with pytest.raises(FeatureRequired) as refused:
            read_features(model, both, at)
        assert "weather has no value (never_seen) for origin 'EWR'" in str(refused.value)
        assert (refused.value.of_rows, http_status(refused.value)) == (True, 422)
        one = {"origin": ["JFK"], "tailnum": [None]}
        assert read_features(model, one, at[:1]).columns["weather__temperature"].tolist() == [71.5]
