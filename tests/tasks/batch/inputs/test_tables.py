"""Delta and Iceberg tables: their own list of files, their own schema."""

import warnings

import deltalake
import pyarrow as pa
import pytest
from deltalake import DeltaTable, write_deltalake

from tasks.batch.inputs import InputBroken, InputNotFound, InputRefused, open_dataset


@pytest.fixture
def delta(tmp_path):
    """A Delta table with a partition, an appended column and a file that was deleted."""
    uri = str(tmp_path / "delta")
    first = pa.table({"id": [1, 2, 3], "origin": ["J F/K", "LGA", None]})
    write_deltalake(uri, first, partition_by=["origin"])
    write_deltalake(uri, pa.table({"id": [9], "origin": ["EWR"]}), mode="append")
    more = pa.table({"id": [4, 5], "origin": ["LGA", "LGA"], "delay": [1.5, None]})
    write_deltalake(uri, more, mode="append", schema_mode="merge")
    DeltaTable(uri).delete("id = 9")
    return uri


def test_a_delta_table_is_what_its_log_says(delta, read):
    dataset = open_dataset(delta)
    assert sorted(read(dataset)) == [1, 2, 3, 4, 5]
    rows = zip(*(read(dataset, name) for name in ("id", "origin", "delay")), strict=True)
    assert set(rows) == {
        (1, "J F/K", None),
        (2, "LGA", None),
        (3, None, None),
        (4, "LGA", 1.5),
        (5, "LGA", None),
    }


def test_a_delta_table_with_deletion_vectors_is_refused(delta, monkeypatch):
    protocol = DeltaTable(delta).protocol()._replace(reader_features=["deletionVectors"])
    monkeypatch.setattr(deltalake.DeltaTable, "protocol", lambda _: protocol)
    deleted = pa.record_batch({"filepath": ["x"], "selection_vector": [[False, True]]})
    monkeypatch.setattr(deltalake.DeltaTable, "deletion_vectors", lambda _: [deleted])
    with pytest.raises(InputRefused, match=r"deletion vectors.*PURGE"):
        open_dataset(delta)


def test_a_delta_file_that_is_gone_is_named(delta):
    path = DeltaTable(delta).file_uris()[0]
    from pathlib import Path
    from urllib.parse import unquote

    (Path(path) if Path(path).exists() else Path(unquote(path))).unlink()
    with pytest.raises(InputBroken, match="named by the table, and not there"):
        open_dataset(delta)


def test_a_folder_that_is_no_delta_table_is_told(tmp_path):
    with pytest.raises(InputNotFound, match="no Delta log"):
        open_dataset(str(tmp_path), format="delta")


@pytest.fixture
def iceberg(tmp_path):
    """An Iceberg table whose columns were renamed, added and widened after its first rows."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its catalog, which only this test needs
        from pyiceberg.catalog.memory import InMemoryCatalog
        from pyiceberg.types import LongType, StringType

        catalog = InMemoryCatalog("test", warehouse=str(tmp_path / "warehouse"))
        catalog.create_namespace("ns")
        schema = pa.schema({"id": pa.int32(), "b": pa.string()})
        table = catalog.create_table("ns.t", schema=schema)
        table.append(pa.table({"id": [1, 2], "b": ["one", "two"]}, schema=schema))
        with table.update_schema() as change:
            change.rename_column("b", "c")
        with table.update_schema() as change:
            change.add_column("b", StringType())
            change.update_column("id", LongType())
        table.append(pa.table({"id": [3], "c": ["three"], "b": ["new"]}))
    return table


def test_an_iceberg_table_is_matched_by_field_ids(iceberg, read):
    dataset = open_dataset(iceberg.metadata_location.removeprefix("file://"))
    rows = zip(*(read(dataset, name) for name in ("id", "c", "b")), strict=True)
    assert set(rows) == {(1, "one", None), (2, "two", None), (3, "three", "new")}
    assert dataset.schema.field("id").type == pa.int64()


def test_the_folder_of_an_iceberg_table_gives_its_newest_version(iceberg, read):
    folder = iceberg.location().removeprefix("file://")
    assert sorted(read(open_dataset(folder))) == [1, 2, 3]


def test_an_iceberg_table_with_delete_files_is_refused(iceberg, monkeypatch):
    from pyiceberg.table import DataScan

    plan = DataScan.plan_files

    def with_deletes(scan):
        for task in plan(scan):
            task.delete_files = {"a delete file"}
            yield task

    monkeypatch.setattr(DataScan, "plan_files", with_deletes)
    with pytest.raises(InputRefused, match=r"deleted by a delete file.*Compact"):
        open_dataset(iceberg.metadata_location.removeprefix("file://"))


def test_metadata_that_is_missing_is_told(tmp_path):
    with pytest.raises(InputNotFound, match="no such metadata file"):
        open_dataset(str(tmp_path / "v1.metadata.json"))
