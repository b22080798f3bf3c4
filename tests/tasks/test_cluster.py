import os
import signal

import pytest

from headrace.settings import Settings
from tasks.cluster import DASK_SETTINGS, ClusterUnreachable, cluster


def workers_of(client):
    return set(client.scheduler_info(n_workers=-1)["workers"])


@pytest.mark.slow
def test_a_local_cluster_has_the_workers_asked_for_and_survives_the_death_of_one(tmp_path):
    with cluster(Settings(home=tmp_path, workers=2)) as client:
        assert len(workers_of(client)) == 2
        pid = client.submit(os.getpid, pure=False).result()
        os.kill(pid, signal.SIGKILL)
        assert client.submit(sum, [1, 2], pure=False).result(timeout=60) == 3


@pytest.mark.slow
def test_our_settings_reach_dask_and_its_workers(tmp_path):
    import dask

    def setting(name):
        return dask.config.get(name)

    with cluster(Settings(home=tmp_path, workers=1)):
        assert {name: setting(name) for name in DASK_SETTINGS} == DASK_SETTINGS
        assert setting("distributed.deploy.lost-worker-timeout") == "1h"
        assert setting("distributed.scheduler.worker-ttl") == "30s"


@pytest.mark.slow
def test_a_cluster_of_ones_own_is_used_by_its_address_and_left_running(tmp_path):
    with cluster(Settings(home=tmp_path, workers=1)) as own:
        address = own.scheduler.address
        with cluster(Settings(home=tmp_path, cluster=address)) as client:
            assert client.submit(sum, [1, 2], pure=False).result(timeout=30) == 3
        assert own.submit(sum, [2, 3], pure=False).result(timeout=30) == 5


def test_a_scheduler_that_does_not_answer_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(DASK_SETTINGS, "distributed.comm.timeouts.connect", "300ms")
    with (
        pytest.raises(ClusterUnreachable, match=r"tcp://127\.0\.0\.1:1"),
        cluster(Settings(home=tmp_path, cluster="tcp://127.0.0.1:1")),
    ):
        pass
