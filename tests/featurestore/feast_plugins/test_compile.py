import json
import sqlite3
import subprocess
import sys

import pytest

from featurestore.catalog.catalog import ServiceView, definitions_sha256, load_catalog
from featurestore.errors import DefinitionsRefused
from featurestore.feast_plugins.compile import compile_definitions, feast_store
from headrace.plan import FeatureRead, JoinKey


def test_views_and_services_are_compiled_as_they_are_defined(tiny_repository, at_home):
    catalog = compile_definitions(at_home, repository=tiny_repository())
    hourly, gates = sorted(catalog.views, key=lambda view: view.view, reverse=True)
    assert (hourly.table, hourly.ttl_seconds) == ("hourly", 3600)
    assert hourly.join_keys == (JoinKey(name="origin"),)
    assert gates.join_keys == (JoinKey(name="origin"), JoinKey(name="gate", dtype="INT64"))
    assert gates.ttl_seconds is None
    assert FeatureRead(name="open", dtype="BOOL") in gates.features
    assert catalog.services["both"] == (
        ServiceView(view="hourly", features=("x",)),
        ServiceView(view="gates", features=("wait", "passengers")),
    )


def test_feast_sees_the_same_definitions_and_where_the_tables_lie(tiny_repository, at_home):
    from feast import FeatureStore, RepoConfig

    compile_definitions(at_home, repository=tiny_repository())
    store = FeatureStore(
        config=RepoConfig(
            project="tiny",
            provider="local",
            registry=str(at_home.home / "feature_registry.db"),
            offline_store="featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
            entity_key_serialization_version=3,
        )
    )
    assert {view.name for view in store.list_feature_views()} == {"hourly", "gates"}
    source = store.get_feature_view("hourly").batch_source
    assert source.path == at_home.uri("offline", "hourly.parquet")
    with sqlite3.connect(at_home.online_path) as db:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    assert {"tiny_hourly", "tiny_gates"} <= names


def test_the_catalog_is_compiled_once_and_then_read_without_feast(tiny_repository, at_home):
    package = tiny_repository()
    compiled = load_catalog(at_home, repository=package)
    code = (
        "import sys; from pathlib import Path; from headrace.settings import Settings;"
        "from featurestore.catalog.catalog import load_catalog;"
        f"c = load_catalog(Settings(home=Path({str(at_home.home)!r})), repository={package!r});"
        "assert 'feast' not in sys.modules; print(c.model_dump_json())"
    )
    folder = str(at_home.home.parent)
    done = subprocess.run(
        [sys.executable, "-c", code], env={"PYTHONPATH": folder}, capture_output=True, check=True
    )
    assert json.loads(done.stdout) == json.loads(compiled.model_dump_json())


def test_changed_definitions_are_compiled_anew_in_the_same_process(
    tiny_repository, at_home, tmp_path
):
    package = tiny_repository()
    first = load_catalog(at_home, repository=package)
    path = tmp_path / package / "definitions" / "views.py"
    path.write_text(path.read_text().replace("minutes=60", "minutes=120"))
    second = load_catalog(at_home, repository=package)
    assert second.definitions_sha256 == definitions_sha256(package) != first.definitions_sha256
    assert [v.ttl_seconds for v in second.views if v.view == "hourly"] == [7200]


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        (
            "featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
            "dask",
            "dask store, which loses rows",
        ),
        (
            "featurestore.feast_plugins.offline_store.HeadraceOfflineStore",
            "file",
            "dask store, which loses rows",
        ),
        ("offline_store:", "other:", "offline_store left out means"),
        ("version: 3", "version: 2", "entity_key_serialization_version must be 3"),
        ("project: tiny", "name: tiny", "must name a project"),
        ("project: tiny", "project: [", "it is not YAML"),
        ("provider: local", "provider: nowhere.Else", "feature_store.yaml"),
    ],
)
def test_a_configuration_that_cannot_be_used_is_refused(
    tiny_repository, at_home, tmp_path, old, new, sentence
):
    package = tiny_repository()
    path = tmp_path / package / "feature_store.yaml"
    path.write_text(path.read_text().replace(old, new))
    with pytest.raises(DefinitionsRefused, match=sentence):
        compile_definitions(at_home, repository=package)


@pytest.mark.parametrize(
    ("edit", "sentence"),
    [
        (("ValueType.INT64", "ValueType.BYTES"), "type BYTES is no key"),
        (("offline/{table}", "/data/{table}"), "path='offline/<table>.parquet'"),
        (("offline/{table}", "offline/2013/{table}"), "path='offline/<table>.parquet'"),
        (("offline/{table}", "/offline/{table}"), "its path must start with offline/"),
        (("dtype=Float32", "dtype=feast.types.PdfBytes"), "type PDF_BYTES is not kept"),
        (('Field(name="open"', 'Field(name="event_timestamp"'), "time column of its source"),
        (("entities=[origin],", ""), "hourly: it has no entity"),
        (("ttl=timedelta(0),", 'ttl=timedelta(0), version="v2",'), "second view, such as gates_v2"),
        (("features=[hourly,", 'features=[hourly.with_name("h"),'), "hourly is renamed"),
    ],
)
def test_a_definition_that_cannot_be_used_is_refused_by_name(
    tiny_repository, at_home, edit, sentence
):
    package = tiny_repository(edit=edit)
    with pytest.raises(DefinitionsRefused, match=sentence):
        compile_definitions(at_home, repository=package)


def test_two_definitions_of_one_name_are_refused(tiny_repository, at_home):
    more = 'twin = Entity(name="gate", join_keys=["gate"], value_type=ValueType.INT64)\n'
    with pytest.raises(DefinitionsRefused, match="two Entity objects"):
        compile_definitions(at_home, repository=tiny_repository(more=more))


def test_a_transformation_in_feast_is_refused(tiny_repository, at_home):
    more = (
        "from feast import BatchFeatureView\n"
        'late = BatchFeatureView(name="late", entities=[origin], source=source("late"))\n'
    )
    with pytest.raises(DefinitionsRefused, match="BatchFeatureView; write a FeatureView"):
        compile_definitions(at_home, repository=tiny_repository(more=more))


def test_a_package_that_is_not_there_is_refused():
    with pytest.raises(DefinitionsRefused, match="there is no such package"):
        definitions_sha256("nowhere_at_all")


_MORE = """
import pandas as pd
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Array, String

named = FeatureView(
    name="named",
    description="What people say of a gate.",
    owner="ground",
    tags={"pii": "no"},
    entities=[gate],
    schema=[
        Field(name="sign", dtype=String, description="words"),
        Field(name="v", dtype=Array(Int64)),
    ],
    source=PushSource(
        name="signs",
        batch_source=FileSource(path="offline/named.parquet", timestamp_field="at"),
    ),
)
named_v2 = FeatureView(
    name="named_v2",
    entities=[gate],
    schema=[Field(name="v", dtype=Array(Int64))],
    source=named.stream_source,
)


@on_demand_feature_view(sources=[hourly], schema=[Field(name="double", dtype=Float64)])
def doubled(inputs: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"double": inputs["x"] * 2})


spoken = FeatureService(name="spoken", features=[named, hourly, doubled], owner="ground")
"""


def test_a_push_source_other_types_and_words_about_them_are_compiled(tiny_repository, at_home):
    catalog = compile_definitions(at_home, repository=tiny_repository(more=_MORE))
    named = next(view for view in catalog.views if view.view == "named")
    assert (named.table, named.event_timestamp, named.created_timestamp) == ("named", "at", None)
    assert (named.known_timestamp, named.timestamps) == ("at", ("at",))
    assert [feature.dtype for feature in named.features] == ["STRING", "INT64_LIST"]
    assert named.number_columns == ()
    assert catalog.push_sources == {"signs": ("named", "named_v2")}
    assert catalog.on_demand == {"spoken": ("doubled",)}
    said = catalog.described.views["named"]
    assert (said.description, said.owner) == ("What people say of a gate.", "ground")
    assert (said.tags, said.features["sign"].description) == ({"pii": "no"}, "words")
    assert catalog.described.entities["airport"].join_key == "origin"


def test_definitions_that_are_taken_back_are_applied_to_feast_again(
    tiny_repository, at_home, tmp_path
):
    package = tiny_repository()
    path = tmp_path / package / "definitions" / "views.py"
    older = path.read_text()
    first = load_catalog(at_home, repository=package)
    path.write_text(older.replace("minutes=60", "minutes=120"))
    load_catalog(at_home, repository=package)
    path.write_text(older)
    assert load_catalog(at_home, repository=package) == first
    store = feast_store(at_home, repository=package)
    assert store.get_feature_view("hourly").ttl.total_seconds() == 3600


def test_an_online_store_of_the_file_lies_in_the_home(tiny_repository, at_home):
    named = at_home.model_copy(update={"online_store": "feast"})
    package = tiny_repository()
    load_catalog(named, repository=package)
    config = feast_store(named, repository=package).config
    assert config.online_store.type == "sqlite"
    with sqlite3.connect(at_home.home / config.online_store.path) as db:
        names = {row[0] for row in db.execute("SELECT name FROM sqlite_master")}
    assert {"tiny_hourly", "tiny_gates"} <= names
