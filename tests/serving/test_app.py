import re
import shutil
import subprocess
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.bundle import model_file
from headrace.errors import StorageFailed
from monitoring.inference_log import read_log

URL = "/api/v1/infer"
V2 = "/v2/models/flight_delay/infer"


def metric(client, name, **labels):
    families = text_string_to_metric_families(client.get("/metrics").text)
    return next(
        (
            sample.value
            for family in families
            for sample in family.samples
            if sample.name == name and labels.items() <= sample.labels.items()
        ),
        None,
    )


def logged(store, log):
    log.close()
    now = datetime.now(UTC)
    return read_log(
        store.root,
        "flight_delay",
        since=now - timedelta(hours=1),
        until=now + timedelta(hours=1),
    )


def test_health_names_model_release_store_and_log(client, store):
    body = client.get("/health").json()
    assert body["status"] == "ok"
    assert body["model"]["digest"] == body["release"]["champion"] == store.digests[0]
    assert (body["release"]["revision"], body["release"]["moved_by"]) == (1, "test")
    assert body["online_store"] == {"status": "ok", "reason": None}
    assert body["inference_log"] == {"written_rows": 0, "waiting_rows": 0, "dropped_rows": 0}


def test_health_tells_of_a_refused_release(client, store, endpoint):
    digest = store.release(store.bundle(seed=9))
    Path(store.root, "bundles", digest, model_file("xgboost")).unlink()
    endpoint.look()
    body = client.get("/health").json()
    assert (body["status"], body["release"]["revision"]) == ("degraded", 1)
    assert "model.ubj is missing" in body["release"]["refused"]
    assert metric(client, "release_refused") == 1


def test_a_failing_online_store_is_503_for_keys_and_nothing_for_raw_features(
    client, instance, endpoint
):
    endpoint.current.reader.fails = StorageFailed("read", "online.db", "disk I/O error")
    response = client.post(URL, json={"instances": [instance()]})
    assert response.status_code == 503
    assert "disk I/O error" in response.json()["error"]
    assert client.get("/health").json()["online_store"]["status"] == "failing"
    tensor = {"name": "features", "shape": [1, 5], "datatype": "FP32", "data": [1, 2, 3, 4, 5]}
    assert client.post(V2, json={"inputs": [tensor]}).status_code == 200


def test_requests_rows_reads_and_durations_are_counted(client, instance):
    client.post(URL, json={"instances": [instance(), instance(origin=None)]})
    client.post(URL, json={"instances": []})
    labels = {"model": "flight_delay", "edge": "plain"}
    assert metric(client, "inference_requests_total", status="200", **labels) == 1
    assert metric(client, "inference_requests_total", status="422", edge="plain") == 1
    assert metric(client, "inference_rows_total", **labels) == 2
    assert metric(client, "inference_request_duration_seconds_count", **labels) == 1
    assert metric(client, "feature_reads_total", view="weather", status="never_seen") == 1
    assert metric(client, "feature_reads_total", view="planes", status="present") == 2


def test_release_and_log_are_in_the_metrics(client):
    assert metric(client, "release_revision") == 1
    assert metric(client, "inference_log_dropped_rows_total") == 0
    assert metric(client, "release_unreachable") == 0


def test_what_was_answered_is_in_the_log(client, instance, store, log):
    rows = [instance(), instance(origin=None)]
    response = client.post(URL, json={"instances": rows}, headers={"X-Request-Id": "r1"})
    first, second = logged(store, log).to_pylist()
    answered = [row["prediction"] for row in response.json()["predictions"]]
    assert [first["prediction"], second["prediction"]] == answered
    assert (first["request_id"], first["edge"], first["revision"]) == ("r1", "plain", 1)
    assert (first["origin"], second["origin"]) == ("JFK", None)
    assert first["scheduled_departure"] == datetime(2013, 8, 1, 12, tzinfo=UTC)
    assert first["event_time__weather"] == datetime(2013, 8, 1, 11, 59, tzinfo=UTC)
    assert (first["status__weather"], second["status__weather"]) == ("present", "never_seen")
    assert (first["weather__wind_speed"], first["scheduled_hour"]) == (12.0, 8.0)
    assert 0 < first["latency_seconds"] < 5


def test_a_v2_request_is_logged_under_the_id_of_its_body(client, store, log):
    tensor = {"name": "features", "shape": [1, 5], "datatype": "FP32", "data": [1, 2, 3, 4, 5]}
    client.post(V2, json={"inputs": [tensor], "id": "call 7"})
    (row,) = logged(store, log).to_pylist()
    assert (row["request_id"], row["edge"], row["tailnum"]) == ("call 7", "v2", None)
    assert row["planes__seats"] == 3.0


def test_a_refused_request_is_not_in_the_log(client, instance, store, log):
    client.post(URL, json={"instances": [instance(origin=1)]})
    assert logged(store, log).num_rows == 0


def test_a_full_log_drops_and_the_metrics_say_so(client, instance, log):
    log._capacity_rows = 1
    response = client.post(URL, json={"instances": [instance(), instance()]})
    assert response.status_code == 200
    assert metric(client, "inference_log_dropped_rows_total", reason="rows") == 2


def test_the_page_shows_fields_paths_and_a_call_and_loads_nothing(client):
    page = client.get("/docs").text
    for said in (
        "distance_miles",
        "number from 0 to 10000",
        "/v2/health/live",
        "curl -s http",
        "planes__seats",
    ):
        assert said in page
    assert not re.search(r"<script|<link|<img|src=|url\(|@import", page)


def test_a_hostile_host_header_cannot_write_into_the_page(client):
    page = client.get("/docs", headers={"Host": "<script>alert(1)</script>"}).text
    assert "<script" not in page


def test_the_page_renders_in_a_browser_without_a_network(client, tmp_path):
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if not browser:
        pytest.skip("neither chromium nor chromium-browser is installed")
    page, picture = tmp_path / "docs.html", tmp_path / "docs.png"
    page.write_text(client.get("/docs").text)
    quiet = (
        "--disable-gpu --no-first-run --disable-background-networking --disable-component-update"
    )
    command = [browser, "--headless", "--no-sandbox", *quiet.split(), "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'profile'}", "--window-size=1100,1750"]
    command += [f"--screenshot={picture}", page.as_uri()]
    subprocess.run(command, check=True, capture_output=True, timeout=60)
    assert picture.stat().st_size > 20_000
