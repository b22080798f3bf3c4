import pytest

from featurestore.errors import DefinitionsRefused
from featurestore.feast_plugins.configuration import (
    connection_string,
    feast_configuration,
    online_configuration,
)
from headrace.errors import SettingRefused
from headrace.settings import Settings

YAML = """
project: tiny
offline_store: {type: featurestore.feast_plugins.offline_store.HeadraceOfflineStore}
online_store: {type: postgres, host: db}
"""


def settings(tmp_path, online_store):
    return Settings(home=tmp_path).model_copy(update={"online_store": online_store})


def test_the_online_store_of_the_settings_takes_the_place_of_the_files(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(YAML)
    local = settings(tmp_path, "")
    found = feast_configuration(local, tmp_path)
    assert found["online_store"] == online_configuration(local)
    assert found["online_store"]["path"] == str(tmp_path / "online.db")
    assert found["registry"] == str(tmp_path / "feature_registry.db")


def test_feast_keeps_the_online_store_that_the_file_names(tmp_path):
    (tmp_path / "feature_store.yaml").write_text(YAML)
    found = feast_configuration(settings(tmp_path, "feast"), tmp_path)
    assert found["online_store"] == {"type": "postgres", "host": "db"}
    (tmp_path / "feature_store.yaml").write_text(
        YAML.replace("online_store: {type: p", "other: {t: p")
    )
    with pytest.raises(DefinitionsRefused, match="must name an online_store"):
        feast_configuration(settings(tmp_path, "feast"), tmp_path)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://cache", ("cache", {"db": 0})),
        ("redis://:1e3@cache:7000/2", ("cache", {"db": 2, "password": "1e3"})),
        (
            "rediss://ann:a%2Cb%22%3Dc@cache/1",
            ("cache", {"db": 1, "username": "ann", "password": 'a,b"=c', "ssl": True}),
        ),
    ],
)
def test_feast_reads_a_redis_url_as_it_was_meant(url, expected):
    from feast.infra.online_stores.redis import RedisOnlineStore

    (node,), words = RedisOnlineStore._parse_connection_string(connection_string(url))
    assert (node["host"], words) == expected


def test_an_address_that_feast_cannot_write_is_refused():
    with pytest.raises(SettingRefused, match="write a host name") as refused:
        connection_string("redis://:secret@[::1]:6379/0")
    assert "secret" not in str(refused.value)
