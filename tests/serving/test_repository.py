import gc
import threading
import time
import weakref
from pathlib import Path

import numpy as np
import pytest

from headrace.bundle import model_file
from headrace.errors import BundleRefused, NameRefused, StorageFailed, UnknownName
from serving.errors import ModelNotReady, ModelNotServed, ModelTooLarge, http_status
from serving.repository import ModelRepository
from serving.wanted import Wanted

MATRIX = np.array([[71.5, 12, 178, 2475, 8]], np.float32)


def answer(repository, name=None):
    return float(repository.served(name).predictor.predict(MATRIX)[0])


def until(holds, seconds=5.0):
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.005)
    return holds()


def broken(store, seed=9):
    digest = store.release(store.bundle(seed=seed))
    Path(store.root, "bundles", digest, model_file("xgboost")).unlink()
    return digest


@pytest.fixture
def two(store, loader):
    """A repository of the endpoints ``delays`` and ``arrivals``."""
    store.release(store.bundle(seed=1), "delays")
    store.release(store.bundle(seed=2), "arrivals")
    repository = ModelRepository(["delays", "arrivals"], loader, poll_seconds=0.02)
    yield repository
    repository.close()


def test_an_endpoint_that_was_never_released_is_named(loader):
    with pytest.raises(UnknownName, match="no released endpoint is named 'flight_delay'"):
        ModelRepository(["flight_delay"], loader)


def test_a_name_that_climbs_out_of_the_folder_is_refused(loader):
    with pytest.raises(NameRefused):
        ModelRepository(["../secrets"], loader)


def test_a_changed_bundle_does_not_start(store, loader):
    digest = store.release(store.bundle())
    Path(store.root, "bundles", digest, model_file("xgboost")).write_bytes(b"{changed}")
    with pytest.raises(BundleRefused, match=r"model\.ubj was changed"):
        ModelRepository(["flight_delay"], loader)


def test_a_refused_release_at_the_start_leaves_the_one_before_answering(store, loader, booster):
    store.release(store.bundle(seed=3))
    broken(store)
    broken(store, seed=10)
    repository = ModelRepository(["flight_delay"], loader)
    assert answer(repository) == booster(3).inplace_predict(MATRIX)[0]
    assert repository.endpoints["flight_delay"].refused
    store.release(store.bundle(seed=4))
    repository.look()
    assert answer(repository) == booster(4).inplace_predict(MATRIX)[0]


def test_one_refused_endpoint_does_not_keep_the_others_from_answering(store, loader):
    store.release(store.bundle(seed=1), "delays")
    broken(store)
    repository = ModelRepository(["flight_delay", "delays"], loader)
    assert repository.served("delays").release.endpoint == "delays"
    with pytest.raises(ModelNotReady, match=r"model.ubj is missing") as refused:
        repository.served("flight_delay")
    assert http_status(refused.value) == 503


def test_each_endpoint_answers_with_its_own_model(two, booster):
    assert answer(two, "delays") == booster(1).inplace_predict(MATRIX)[0]
    assert answer(two, "arrivals") == booster(2).inplace_predict(MATRIX)[0]


def test_a_request_without_a_name_is_for_the_first_endpoint(two):
    assert two.served() is two.served("delays")


def test_a_version_is_served_only_while_it_answers(two):
    version = two.served("delays").version
    assert two.served("delays", version) is two.served("delays")
    with pytest.raises(ModelNotServed, match=f"version 'aaaa' .* runs '{version}'"):
        two.served("delays", "aaaa")


def test_an_unknown_model_is_named_with_those_that_are_served(two):
    with pytest.raises(ModelNotServed, match=r"'nosuch' is not served here.*'delays, arrivals'"):
        two.served("nosuch")


def test_a_moved_release_answers_with_the_new_model(repository, store, booster):
    store.release(store.bundle(seed=9))
    assert repository.look()
    assert repository.served().release.revision == 2
    assert answer(repository) == booster(9).inplace_predict(MATRIX)[0]


def test_nothing_new_changes_nothing(repository):
    before = repository.served()
    assert not repository.look()
    assert repository.served() is before


def test_several_moves_at_once_end_at_the_newest(repository, store):
    for seed in (4, 5, 6):
        store.release(store.bundle(seed=seed))
    repository.look()
    assert repository.served().predictor.digest == store.digests[-1]


def test_a_refused_bundle_leaves_the_old_model_answering_and_says_why(repository, store):
    before = answer(repository)
    broken(store)
    assert not repository.look()
    assert answer(repository) == before
    (state,) = repository.index()
    assert state.state == "READY"
    assert "model.ubj is missing" in state.reason


def test_a_refused_bundle_is_not_loaded_again_every_second(repository, store, monkeypatch):
    broken(store)
    repository.look()
    loads = []
    monkeypatch.setattr("serving.loading.load_predictor", lambda *a, **k: loads.append(a))
    repository.look()
    assert loads == []
    assert repository.endpoints["flight_delay"].refused


def test_a_good_release_after_a_refused_one_answers(repository, store):
    broken(store)
    repository.look()
    store.release(store.bundle(seed=10))
    assert repository.look()
    assert repository.served().release.revision == 3
    assert not repository.endpoints["flight_delay"].refused


def test_a_release_that_cannot_be_read_is_asked_for_again(repository, store, monkeypatch):
    def unreachable(*_):
        raise StorageFailed("look for", "releases", "connection refused")

    store.release(store.bundle(seed=9))
    with monkeypatch.context() as away:
        away.setattr("serving.endpoint.newer_release", unreachable)
        assert not repository.look()
        assert "connection refused" in repository.endpoints["flight_delay"].unreachable
    assert repository.look()
    assert repository.endpoints["flight_delay"].unreachable is None


def test_a_release_document_that_is_no_json_does_not_end_the_watch(repository, store):
    path = Path(store.root, "releases", "flight_delay", "00000002.json")
    path.write_text("{")
    assert not repository.look()
    assert repository.endpoints["flight_delay"].unreachable
    path.unlink()
    repository.look()
    assert repository.endpoints["flight_delay"].unreachable is None


def test_a_watched_repository_follows_by_itself_and_ends_when_closed(repository, store):
    repository.start_watching()
    store.release(store.bundle(seed=9))
    assert until(lambda: repository.served().release.revision == 2)
    repository.close()
    store.release(store.bundle(seed=10))
    time.sleep(0.1)
    assert repository.served().release.revision == 2


def test_the_old_model_lives_until_its_last_request_lets_go(repository, store):
    under_way = repository.served()
    reader, runtime = under_way.reader, weakref.ref(under_way.predictor.runtime)
    store.release(store.bundle(seed=9))
    repository.look()
    assert under_way.predictor.predict(MATRIX).shape == (1,)
    assert not reader.closed
    del under_way
    assert until(lambda: reader.closed and runtime() is None)


def test_an_endpoint_is_loaded_and_unloaded_while_the_server_runs(repository, store, booster):
    store.release(store.bundle(seed=5), "arrivals")
    assert [s.state for s in repository.index()] == ["READY", "UNAVAILABLE"]
    repository.load("arrivals")
    assert answer(repository, "arrivals") == booster(5).inplace_predict(MATRIX)[0]
    repository.unload("arrivals")
    with pytest.raises(ModelNotServed):
        repository.served("arrivals")
    assert repository.index()[1].reason.startswith("unloaded")


def test_a_loaded_endpoint_follows_its_release(repository, store):
    repository.start_watching()
    store.release(store.bundle(seed=5), "arrivals")
    repository.load("arrivals")
    store.release(store.bundle(seed=6), "arrivals")
    assert until(lambda: repository.served("arrivals").release.revision == 2)


def test_an_endpoint_that_cannot_be_loaded_is_an_error_and_changes_nothing(repository):
    with pytest.raises(UnknownName):
        repository.load("arrivals")
    assert list(repository.endpoints) == ["flight_delay"]


def test_loading_what_is_served_tries_a_refused_release_again(repository, store):
    digest = store.release(store.bundle(seed=9))
    path = Path(store.root, "bundles", digest, model_file("xgboost"))
    content = path.read_bytes()
    path.write_bytes(b"{}")
    with pytest.raises(ModelNotReady, match="was changed"):
        repository.load("flight_delay")
    path.write_bytes(content)
    repository.load("flight_delay")
    assert repository.served().release.revision == 2


def test_unloading_waits_for_requests_under_way(repository, store):
    under_way = [repository.served()]
    begun = time.perf_counter()
    threading.Timer(0.1, under_way.clear).start()
    repository.unload("flight_delay")
    assert time.perf_counter() - begun >= 0.09
    with pytest.raises(ModelNotServed):
        repository.unload("flight_delay")


@pytest.fixture
def budget(store, loader, monkeypatch):
    """A repository with room for two models of 1,000 bytes each, ``a`` named at its start."""
    monkeypatch.setattr("serving.loading.size_bytes", lambda *_: 1_000)
    for seed, name in enumerate("abcd"):
        store.release(store.bundle(seed=seed), name)
    repository = ModelRepository(["a"], loader, poll_seconds=0.02, memory_bytes=2_500)
    repository.start_watching()
    yield repository
    repository.close()


def loaded(repository):
    return {name for name, endpoint in repository.endpoints.items() if endpoint.current}


def test_the_least_recently_used_model_leaves_and_those_named_at_the_start_last(budget):
    budget.load("b")
    budget.load("c")
    assert loaded(budget) == {"a", "c"}


def test_a_model_that_left_comes_back_when_it_is_asked_for(budget):
    budget.load("b")
    budget.load("c")
    with pytest.raises(ModelNotReady, match="Send the request again in 1 s") as error:
        budget.served("b")
    assert error.value.retry_after_seconds == 1
    assert until(lambda: loaded(budget) == {"a", "b"})
    assert budget.served("b").release.endpoint == "b"


def test_a_model_that_left_stays_away_until_it_is_asked_for(budget, store):
    budget.endpoints["a"].evict()
    store.release(store.bundle(seed=9), "a")
    assert not budget.look()
    time.sleep(0.1)
    assert loaded(budget) == set()


def test_use_decides_who_leaves(store, loader, monkeypatch):
    monkeypatch.setattr("serving.loading.size_bytes", lambda *_: 1_000)
    for seed, name in enumerate("abcd"):
        store.release(store.bundle(seed=seed), name)
    repository = ModelRepository(["a", "b", "c"], loader, memory_bytes=3_500)
    for name in "bca":
        repository.served(name)
    repository.load("d")
    assert loaded(repository) == {"a", "c", "d"}


def test_a_model_larger_than_the_budget_is_refused_and_nobody_leaves_for_it(budget, monkeypatch):
    monkeypatch.setattr("serving.loading.size_bytes", lambda *_: 3_000)
    with pytest.raises(ModelTooLarge, match="raise HEADRACE_SERVER_MODEL_MEMORY_MB"):
        budget.load("b")
    assert loaded(budget) == {"a"}


def test_a_model_that_left_is_freed(budget):
    model = weakref.ref(budget.served("a").predictor.runtime)
    for endpoint in budget.endpoints.values():
        endpoint.evict()
    gc.collect()
    assert until(lambda: model() is None)


@pytest.fixture
def workers(store, loader, tmp_path):
    """The repositories of two workers of one server."""
    store.release(store.bundle(seed=1), "delays")
    store.release(store.bundle(seed=2), "arrivals")
    path = tmp_path / "models.json"
    both = [
        ModelRepository(["delays"], loader, poll_seconds=0.02, wanted=Wanted(path))
        for _ in range(2)
    ]
    for repository in both:
        repository.start_watching()
    yield both
    for repository in both:
        repository.close()


def test_loading_and_unloading_reach_every_worker(workers):
    first, second = workers
    first.load("arrivals")
    assert until(lambda: "arrivals" in loaded(second))
    second.unload("arrivals")
    assert until(lambda: "arrivals" not in loaded(first))


def test_a_worker_that_starts_again_serves_what_the_others_do(workers, loader, tmp_path):
    first, _ = workers
    first.load("arrivals")
    first.unload("delays")
    again = ModelRepository(["delays"], loader, wanted=Wanted(tmp_path / "models.json"))
    assert loaded(again) == {"arrivals"}
