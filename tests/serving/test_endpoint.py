import time
from pathlib import Path

import numpy as np
import pytest

from headrace.bundle import model_file
from headrace.errors import BundleRefused, NameRefused, StorageFailed, UnknownName
from serving.dataplane import infer_features
from serving.endpoint import Endpoint

MATRIX = np.array([[71.5, 12, 178, 2475, 8]], np.float32)


def answer(endpoint):
    return float(infer_features(endpoint.current, MATRIX).predictions[0])


def test_an_endpoint_that_was_never_released_is_named(store, open_reader):
    with pytest.raises(UnknownName, match="no released endpoint is named 'flight_delay'"):
        Endpoint(store.root, "flight_delay", open_reader)


def test_a_name_that_climbs_out_of_the_folder_is_refused(store, open_reader):
    with pytest.raises(NameRefused):
        Endpoint(store.root, "../secrets", open_reader)


def test_a_changed_bundle_does_not_start(store, open_reader):
    digest = store.release(store.bundle())
    Path(store.root, "bundles", digest, model_file("xgboost")).write_bytes(b"{changed}")
    with pytest.raises(BundleRefused, match=r"model\.ubj was changed"):
        Endpoint(store.root, "flight_delay", open_reader)


def test_a_moved_release_answers_with_the_new_model(endpoint, store, booster):
    store.release(store.bundle(seed=9))
    assert endpoint.look()
    assert endpoint.current.release.revision == 2
    assert answer(endpoint) == booster(9).inplace_predict(MATRIX)[0]


def test_nothing_new_changes_nothing(endpoint):
    before = endpoint.current
    assert not endpoint.look()
    assert endpoint.current is before


def test_several_moves_at_once_end_at_the_newest(endpoint, store):
    for seed in (4, 5, 6):
        store.release(store.bundle(seed=seed))
    endpoint.look()
    assert endpoint.current.predictor.digest == store.digests[-1]


def test_a_refused_bundle_leaves_the_old_model_answering_and_says_why(endpoint, store):
    before = answer(endpoint)
    digest = store.release(store.bundle(seed=9))
    Path(store.root, "bundles", digest, model_file("xgboost")).unlink()
    assert not endpoint.look()
    assert answer(endpoint) == before
    assert "model.ubj is missing" in endpoint.refused


def test_a_refused_bundle_is_not_loaded_again_every_second(endpoint, store, monkeypatch):
    digest = store.release(store.bundle(seed=9))
    Path(store.root, "bundles", digest, model_file("xgboost")).unlink()
    endpoint.look()
    loads = []
    monkeypatch.setattr("serving.endpoint.load_predictor", lambda *a, **k: loads.append(a))
    endpoint.look()
    assert loads == []
    assert endpoint.refused


def test_a_good_release_after_a_refused_one_answers(endpoint, store):
    digest = store.release(store.bundle(seed=9))
    Path(store.root, "bundles", digest, model_file("xgboost")).unlink()
    endpoint.look()
    store.release(store.bundle(seed=10))
    assert endpoint.look()
    assert (endpoint.current.release.revision, endpoint.refused) == (3, None)


def test_a_release_that_cannot_be_read_is_asked_for_again(endpoint, store, monkeypatch):
    def unreachable(*_):
        raise StorageFailed("look for", "releases", "connection refused")

    store.release(store.bundle(seed=9))
    with monkeypatch.context() as broken:
        broken.setattr("serving.endpoint.newer_release", unreachable)
        assert not endpoint.look()
        assert "connection refused" in endpoint.unreachable
    assert endpoint.look()
    assert endpoint.unreachable is None


def test_a_release_document_that_is_no_json_does_not_end_the_watch(endpoint, store):
    path = Path(store.root, "releases", "flight_delay", "00000002.json")
    path.write_text("{")
    assert not endpoint.look()
    assert endpoint.unreachable
    path.unlink()
    endpoint.look()
    assert endpoint.unreachable is None


def test_the_watcher_follows_by_itself_and_ends_when_closed(endpoint, store):
    endpoint.start_watching()
    store.release(store.bundle(seed=9))
    deadline = time.monotonic() + 5
    while endpoint.current.release.revision != 2 and time.monotonic() < deadline:
        time.sleep(0.01)
    endpoint.close()
    assert endpoint.current.release.revision == 2
    store.release(store.bundle(seed=10))
    time.sleep(0.1)
    assert endpoint.current.release.revision == 2


def test_the_old_model_lives_until_its_last_request_lets_go(endpoint, store):
    under_way = endpoint.current
    reader, runtime = under_way.reader, under_way.predictor.runtime
    store.release(store.bundle(seed=9))
    endpoint.look()
    assert infer_features(under_way, MATRIX).predictions.shape == (1,)
    assert not reader.closed
    del under_way
    assert reader.closed
    assert runtime.predict(MATRIX).shape == (1,)
