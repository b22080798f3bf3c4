import importlib
import inspect
import pkgutil

import pytest

from headrace.errors import ExitCode, HeadraceError, UnknownName, UsageError

ROOMS = ["headrace", "featurestore", "monitoring", "registry", "serving"]


def test_a_guess_is_given_where_a_name_is_close():
    assert "did you mean 'flight_delay'?" in str(
        UnknownName("model", "flihgt_delay", ["flight_delay"])
    )


def test_wrong_usage_and_failed_work_have_their_own_exit_codes():
    assert HeadraceError.exit_code is ExitCode.FAILED
    assert UsageError.exit_code is ExitCode.USAGE


@pytest.mark.parametrize("room", ROOMS)
def test_the_tree_of_errors_names_every_class(room):
    module = importlib.import_module(f"{room}.errors")
    own = [
        name
        for name, found in inspect.getmembers(module, inspect.isclass)
        if found.__module__ == module.__name__ and issubclass(found, Exception)
    ]
    assert own
    assert not [name for name in own if name not in (module.__doc__ or "")]


def test_every_error_of_the_project_has_one_root():
    strangers = set()
    for room in [*ROOMS, "tasks", "flows"]:
        package = importlib.import_module(room)
        for found in pkgutil.walk_packages(package.__path__, f"{room}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for _, kind in inspect.getmembers(module, inspect.isclass):
                ours = kind.__module__ == module.__name__ and issubclass(kind, Exception)
                if ours and not issubclass(kind, HeadraceError):
                    strangers.add(f"{kind.__module__}.{kind.__name__}")
    assert not strangers


def test_an_error_crosses_processes_with_its_sentence_and_its_facts():
    from distributed.protocol.pickle import dumps, loads  # as Dask sends it

    error = UnknownName("model", "flihgt_delay", ["flight_delay"])
    received = loads(dumps(error))
    assert type(received) is UnknownName
    assert str(received) == str(error)
    assert (received.name, received.known) == ("flihgt_delay", ("flight_delay",))
