"""The same datasets on S3, also while it fails."""

import os
import warnings

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from headrace import healing, storage
from headrace.errors import StorageFailed
from tasks.batch.inputs import InputChanged, InputNotFound, cut, open_dataset, read_batches, source
from tests.faults.proxy import Fault


@pytest.fixture
def hasty(monkeypatch):
    quick = healing.Patience(attempts=30, first_wait_seconds=0.001, longest_wait_seconds=0.01)
    monkeypatch.setattr(healing, "DEFAULT", quick)


def put(uri, first, rows, **options):
    sink = pa.BufferOutputStream()
    table = pa.table({"id": range(first, first + rows), "text": [f"row {i}" for i in range(rows)]})
    pq.write_table(table, sink, row_group_size=100, **options)
    storage.write_atomic(uri, sink.getvalue().to_pybytes())


def test_a_folder_a_glob_and_a_partition(s3, read):
    put(f"{s3}/in/month=1/a.parquet", 0, 250)
    put(f"{s3}/in/month=2/b.parquet", 250, 130)
    assert read(open_dataset(f"{s3}/in")) == list(range(380))
    assert read(open_dataset(f"{s3}/in/*/b.parquet")) == list(range(250, 380))
    assert set(read(open_dataset(f"{s3}/in"), "month")) == {1, 2}
    with pytest.raises(InputNotFound):
        open_dataset(f"{s3}/in/*.csv")
    with pytest.raises(StorageFailed, match="no bucket"):
        open_dataset("s3://nobody-made-this-bucket/in")


def test_every_row_arrives_through_every_fault(faulty_s3, fault_proxy, read, hasty):
    for number in range(4):
        put(f"{faulty_s3}/in/{number}.parquet", number * 300, 300)
    modes = ("503", "reset", "reply_lost", "cut_body", "flip_down")
    with fault_proxy.failing(*(Fault(mode, share=0.1) for mode in modes)):
        assert read(open_dataset(f"{faulty_s3}/in")) == list(range(1200))
    assert sum(fault_proxy.done.values()) >= 3


def test_a_file_is_brought_here_once_for_all_its_pieces(faulty_s3, fault_proxy, read):
    put(f"{faulty_s3}/in/x.parquet", 0, 1000)
    dataset = open_dataset(f"{faulty_s3}/in")
    fault_proxy.requests.clear()
    assert read(dataset, rows_per_shard=100) == list(range(1000))
    assert sum(method == "GET" for method, _ in fault_proxy.requests) == 1


def test_of_a_large_file_only_ranges_are_asked_for(s3, read, monkeypatch):
    put(f"{s3}/in/x.parquet", 0, 1000)
    monkeypatch.setattr(source, "COPIED_BYTES", 100)
    dataset = open_dataset(f"{s3}/in")
    assert read(dataset, "text") == [f"row {i}" for i in range(1000)]


def test_a_large_file_that_is_replaced_while_it_is_read_is_told(s3, monkeypatch):
    put(f"{s3}/x.parquet", 0, 1000)
    monkeypatch.setattr(source, "COPIED_BYTES", 100)
    (piece,) = cut(open_dataset(f"{s3}/x.parquet"), 10_000)
    batches = read_batches(piece, ["id", "text"], batch_rows=100)
    next(batches)
    put(f"{s3}/x.parquet", 5, 1000)
    with pytest.raises(InputChanged):
        list(batches)


def test_text_files_are_read_from_s3(s3, read):
    storage.write_atomic(f"{s3}/x.csv", b"id,x\n1,2\n3,4\n")
    assert read(open_dataset(f"{s3}/x.csv")) == [1, 3]


def test_a_delta_table_on_s3(s3, read):
    from deltalake import write_deltalake

    options = storage.object_store_options(s3)
    write_deltalake(f"{s3}/table", pa.table({"id": [1, 2, 3]}), storage_options=options)
    assert read(open_dataset(f"{s3}/table")) == [1, 2, 3]
    assert os.environ["AWS_ENDPOINT_URL_S3"].startswith("http://127.0.0.1")


def test_an_iceberg_table_on_s3(s3, read):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of its catalog, which only this test needs
        from pyiceberg.catalog.memory import InMemoryCatalog

        catalog = InMemoryCatalog("test", warehouse=s3, **storage.iceberg_options(s3))
        catalog.create_namespace("ns")
        table = catalog.create_table("ns.t", schema=pa.schema({"id": pa.int64()}))
        table.append(pa.table({"id": [1, 2, 3]}))
    assert read(open_dataset(table.metadata_location)) == [1, 2, 3]
    assert read(open_dataset(table.location())) == [1, 2, 3]
