import asyncio

import msgspec
import pytest

from headrace.errors import SettingRefused
from serving.dataplane import DataPlane
from serving.loading import ModelLoader
from serving.repository import ModelRepository
from serving.results.opening import open_results
from serving.settings import ServerSettings
from tests.serving.plane_models import query


@pytest.fixture
def requests(tmp_path, instance):
    """A file of requests: raw and keyed ones, one of another endpoint, one that does not fit."""
    bodies = [
        {"instances": [instance(), instance(origin="LGA")]},
        {"features": [[71.5, 12, 178, 2475, 8]]},
        {"model": "another", "instances": [instance()]},
        {"instances": [instance(distance_miles=-5)]},
    ]
    path = tmp_path / "requests.jsonl"
    path.write_bytes(b"\n".join(msgspec.json.encode(body) for body in bodies) + b"\n")
    return path


def test_what_a_file_lists_is_answered_before_it_is_asked(
    store, open_reader, requests, instance, caplog
):
    settings = ServerSettings(result_cache_mb=1, result_cache_warm=str(requests))
    results, warming = open_results(settings)
    store.release(store.bundle())
    loader = ModelLoader(store.root, open_reader, warm_results=warming)
    model = ModelRepository(["flight_delay"], loader).served()
    assert len(results.cache) == 3
    assert "line 4: row 0: distance_miles = -5 is too small" in caplog.text

    async def ask():
        plane = DataPlane(settings, results)
        try:
            await plane.infer(query(model, 1, features=[71.5, 12.0, 178.0, 2475.0, 8.0]))
            await plane.infer(query(model, 1, instances=[instance()]))
        finally:
            plane.close()

    asyncio.run(ask())
    assert (results.cache.counted.hits, results.cache.counted.misses) == (2, 0)


def test_a_file_that_is_not_there_is_named(store, open_reader, tmp_path):
    settings = ServerSettings(result_cache_mb=1, result_cache_warm=str(tmp_path / "nosuch"))
    _, warming = open_results(settings)
    store.release(store.bundle())
    loader = ModelLoader(store.root, open_reader, warm_results=warming)
    with pytest.raises(SettingRefused, match=r"RESULT_CACHE_WARM .*nosuch.* No such file"):
        ModelRepository(["flight_delay"], loader)


def test_results_are_off_unless_memory_is_given_to_them():
    assert open_results(ServerSettings()) == (None, None)
    results, warming = open_results(ServerSettings(result_cache_mb=1))
    assert not results.is_shared
    assert warming is None
