import sqlite3
import threading
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from headrace.errors import NameRefused, UnknownName
from registry.errors import RegistryRefused, RegistryUnreachable
from registry.models import ModelRegistry


def test_a_version_keeps_what_it_was_registered_with(registry, register):
    register("kept", "aa11", auc=0.75)
    (found,) = ModelRegistry(registry._uri).versions("kept")
    assert (found.name, found.version, found.digest) == ("kept", 1, "aa11")
    assert found.bundle_uri == "/storage/bundles/aa11"
    assert found.metrics == {"roc_auc": 0.75}
    assert found.tags == {"code_revision": "abc123", "feature_service": "flight_delay"}
    assert abs(found.created - datetime.now(UTC)) < timedelta(minutes=1)


def test_the_run_of_a_version_has_its_parameters_and_has_finished(registry, register):
    run = registry._client.get_run(register("run", "aa").run_id)
    assert run.data.params == {"rounds": "300", "eta": "0.1", "tree_method": "hist"}
    assert run.data.tags["code_revision"] == "abc123"
    assert run.info.status == "FINISHED"


def test_a_digest_registered_twice_is_one_version(registry, register):
    assert register("twice", "aa") == register("twice", "aa")
    assert len(registry.versions("twice")) == 1


def test_a_digest_registered_by_several_at_once_is_one_version(registry, register):
    registry.decisions("once")  # the client is open before the race starts
    found = []
    threads = [
        threading.Thread(target=lambda: found.append(register("once", "aa"))) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({version.version for version in found}) == 1
    assert len(found) == 4
    assert len(registry.versions("once")) == 1


def test_versions_count_up_and_keep_their_own_metrics(registry, register):
    for digest, auc in (("aa", 0.7), ("bb", 0.8), ("cc", 0.9)):
        register("many", digest, auc=auc)
    found = registry.versions("many")
    assert [(one.version, one.metrics["roc_auc"]) for one in found] == [
        (1, 0.7),
        (2, 0.8),
        (3, 0.9),
    ]
    assert registry.version_by_digest("many", "bb") == found[1]


def test_an_alias_moves_from_version_to_version(registry, register):
    register("moved", "aa")
    register("moved", "bb")
    registry.set_alias("moved", "champion", 1)
    assert registry.version_by_alias("moved", "champion").digest == "aa"
    registry.set_alias("moved", "champion", 2)
    registry.set_alias("moved", "champion", 2)
    assert registry.version_by_alias("moved", "champion").digest == "bb"
    assert [one.aliases for one in registry.versions("moved")] == [(), ("champion",)]


def test_what_is_not_there_is_none(registry, register):
    register("some", "aa")
    assert registry.version_by_alias("some", "champion") is None
    assert registry.version_by_digest("some", "bb") is None
    assert registry.version_by_alias("never", "champion") is None
    assert registry.decisions("never") == ()


def test_changing_what_is_not_there_names_what_is(registry, register):
    register("known", "aa")
    with pytest.raises(UnknownName, match="did you mean 'known'"):
        registry.versions("knwn")
    with pytest.raises(UnknownName, match=r"no version of known is named '7'. Known: 1"):
        registry.set_alias("known", "champion", 7)
    with pytest.raises(UnknownName):
        registry.record_decision("known", 7, decision="promote", reason="", facts={})


def test_decisions_are_kept_in_order_with_their_facts(registry, register):
    register("judged", "aa")
    register("judged", "bb")
    registry.record_decision("judged", 2, decision="keep", reason="no gain", facts={"gain": -0.1})
    registry.record_decision("judged", 1, decision="promote", reason="better", facts={"gain": 0.2})
    first, second = registry.decisions("judged")
    assert (first.version, first.reason, first.facts) == (2, "no gain", {"gain": -0.1})
    assert (second.version, second.decision) == (1, "promote")
    assert first.decided_at < second.decided_at
    assert registry.versions("judged")[0].tags.keys() == {"code_revision", "feature_service"}


def test_a_decision_recorded_twice_is_one(registry, register):
    register("repeated", "aa")
    facts = {"gain": 0.2}
    one, again = (
        registry.record_decision("repeated", 1, decision="promote", reason="better", facts=facts)
        for _ in range(2)
    )
    assert registry.decisions("repeated") == (one,) == (again,)


def test_names_that_could_break_a_query_are_refused(registry):
    with pytest.raises(NameRefused):
        registry.version_by_digest("model", "a' or name like '%")
    with pytest.raises(NameRefused):
        registry.versions("a' or name like '%")


def test_what_mlflow_will_not_take_is_refused_in_our_words(registry, register):
    register("alias", "aa")
    with pytest.raises(RegistryRefused, match="latest"):
        registry.set_alias("alias", "latest", 1)


def test_a_registry_file_that_is_no_database_is_unreachable_at_once(tmp_path):
    (tmp_path / "registry.db").write_bytes(b"this is not a database, and long enough to tell" * 9)
    begun = time.perf_counter()
    with pytest.raises(RegistryUnreachable, match="file is not a database"):
        ModelRegistry(f"sqlite:///{tmp_path / 'registry.db'}").versions("any")
    assert time.perf_counter() - begun < 5


def test_a_folder_that_cannot_be_made_is_unreachable(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(RegistryUnreachable, match="does not answer"):
        ModelRegistry(f"sqlite:///{tmp_path}/file/registry.db").versions("any")


@pytest.mark.parametrize(
    "uri",
    [
        "postgresql://me:secret@127.0.0.1:9/db",
        # MLflow's HTTP client imports all of Feast, where it is installed, before it asks.
        pytest.param("http://127.0.0.1:9", marks=pytest.mark.soak),
    ],
)
def test_a_server_that_is_down_is_unreachable_and_its_password_is_not_told(uri, monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryUnreachable) as caught:
        ModelRegistry(uri).versions("any")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1" in str(caught.value)


def test_a_database_that_loses_its_tables_is_unreachable(tmp_path, register):
    registry = ModelRegistry(f"sqlite:///{tmp_path}/registry.db")
    assert registry.decisions("any") == ()
    with sqlite3.connect(tmp_path / "registry.db") as database:
        database.execute("DROP TABLE model_versions")
    database.close()
    with pytest.raises(RegistryUnreachable):
        registry.versions("any")


def test_no_file_of_a_model_is_stored_as_pickle(registry, register):
    register("files", "aa")
    folder = Path(registry._uri.removeprefix("sqlite:///")).parent
    assert not [path for path in folder.rglob("*") if path.suffix in (".pkl", ".pickle", ".joblib")]


def test_the_registry_prints_nothing(registry, register, capfd):
    register("silent", "aa")
    registry.set_alias("silent", "champion", 1)
    assert capfd.readouterr() == ("", "")
