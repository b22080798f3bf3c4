"""What workers are started with."""

import importlib.util
import multiprocessing.spawn
import sys

from tasks.clusters.launch import _main_unnamed


def test_a_worker_does_not_import_the_command_that_starts_it(monkeypatch):
    spec = importlib.util.find_spec("flows.batch_predict")
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)

    def prepared():
        return set(multiprocessing.spawn.get_preparation_data("a worker"))

    assert "init_main_from_name" in prepared()
    with _main_unnamed():
        assert not prepared() & {"init_main_from_name", "init_main_from_path"}
    assert "init_main_from_name" in prepared()
