import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from featurestore.freshness import ReadStatus
from serving.dataplane import DataPlane
from serving.metrics import Metrics
from serving.recorder import Recorder
from serving.settings import ServerSettings
from tests.serving.plane_models import ask, keyed_query, raw_query, served


def samples(metrics):
    """Every sample by name and sorted label values, as Prometheus' own parser reads the text."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in families
        for sample in family.samples
    }


@pytest.fixture
def counted(plan, open_reader):
    """The samples after queries that a factory makes for a model were answered in one turn."""

    def count(*makes, **options):
        metrics = Metrics()
        model = served(plan, open_reader(plan))
        plane = DataPlane(ServerSettings(**options), recorder=Recorder(metrics))
        ask(plane, *(make(model) for make in makes))
        plane.close()
        return samples(metrics)

    return count


def test_answers_are_counted_by_edge_rows_and_time(counted):
    found = counted(
        lambda model: raw_query(model, [100, 200]),
        lambda model: raw_query(model, [300]),
        lambda model: keyed_query(model, [400] * 3),
    )
    labels = "flight_delay", "v2"
    assert found["inference_requests_total", "200", *labels] == 3
    assert found["inference_rows_total", *labels] == 6
    assert found["inference_request_duration_seconds_count", *labels] == 3
    assert found["inference_request_duration_seconds_bucket", "+Inf", *labels] == 3
    assert 0 < found["inference_request_duration_seconds_sum", *labels] < 60


def test_batches_calls_and_reads_are_counted(counted):
    found = counted(
        lambda model: raw_query(model, [100] * 5), lambda model: keyed_query(model, [400] * 3)
    )
    assert found["inference_batch_rows_sum", "flight_delay"] == 8
    assert found["inference_model_duration_seconds_count", "flight_delay"] in (1, 2)
    assert found["feature_read_duration_seconds_count", "flight_delay"] == 1
    assert found["inference_queue_duration_seconds_count", "flight_delay"] == 2
    assert found["feature_reads_total", "flight_delay", "present", "weather"] == 3


def test_what_gets_no_answer_is_counted_by_why(counted):
    def dropped(model):
        query = raw_query(model, [1])
        query.deadline = -1.0
        return query

    found = counted(dropped, *[lambda model: raw_query(model, [2])] * 4, max_waiting=2)
    assert found["inference_late_total", "flight_delay"] == 1
    assert found["inference_shed_total", "flight_delay", "requests"] == 3
    assert found["inference_requests_total", "200", "flight_delay", "v2"] == 1


def test_degraded_answers_are_counted_once_each(plan):
    metrics, counts = Metrics(), np.array([0, ReadStatus.UNAVAILABLE], np.uint8)
    metrics.model("flight_delay").count_reads({"weather": counts})
    found = samples(metrics)
    assert found["feature_reads_total", "flight_delay", "present", "weather"] == 1
    assert found["feature_reads_total", "flight_delay", "unavailable", "weather"] == 1


def test_errors_are_counted_by_edge_and_status():
    metrics = Metrics()
    metrics.refused("plain", 422)
    metrics.refused("plain", 422)
    assert samples(metrics)["inference_requests_total", "", "422", "plain"] == 2


def test_facts_of_processes_become_the_least_and_the_greatest(tmp_path):
    first, second = Metrics(tmp_path), Metrics(tmp_path)
    for metrics, revision, refused in ((first, 3, 0), (second, 4, 1)):
        metrics.gauge("release_revision", "Revision.", "lowest", model="m").put(revision)
        metrics.gauge("release_refused", "Refused.", "highest", model="m").put(refused)
        metrics.gauge("waiting", "Waiting.").put(2)
    found = samples(first)
    assert found == samples(second)
    first.close()
    second.close()
    assert (found["release_revision", "m"], found["release_refused", "m"]) == (3, 1)
    assert found["waiting",] == 4


def test_sources_are_asked_before_each_scrape():
    metrics, asked = Metrics(), []

    def source(given):
        asked.append(1)
        given.counter("things_total", "Things.").reach(10 * len(asked))

    metrics.follow(source)
    assert samples(metrics)["things_total",] == 10
    assert samples(metrics)["things_total",] == 20


def test_labels_are_escaped():
    metrics = Metrics()
    metrics.counter("things_total", "Things.", name='a "b" \\ c\nd').add(1)
    assert samples(metrics)["things_total", 'a "b" \\ c\nd'] == 1
