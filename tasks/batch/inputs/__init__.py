"""What a batch prediction reads: any dataset, cut into pieces, read batch by batch.

errors       what can be wrong with an input, each naming the file and the remedy
dataset      ``Dataset``, ``InputFile``, ``Piece``: a dataset as found, a file of it, a share of it
opening      ``open_dataset``: what is at a path or URL, and whether it fits together
listing      the files of a path, a folder or a glob, and the values in their folders' names
agreement    one schema for all files of a dataset
parquet      one Parquet file: its footer, and rows in bounded memory
parquet_files many Parquet files as one dataset
pages        how large the pages of a Parquet file become in memory
text         one CSV or JSON lines file: its rows, and where they lie
text_files   many text files as one dataset: types inferred once
values       texts to typed values, and what becomes of one that does not fit
delta        the files of a Delta table, from its log
iceberg      the files of an Iceberg table, from its metadata
offline      a window of a table of the offline store
cutting      ``cut``: pieces of about as many rows as a shard should have
reading      ``read_batches``: the rows of a piece, and the proof that its file stood still
"""

from tasks.batch.inputs.cutting import cut
from tasks.batch.inputs.dataset import Dataset, InputFile, Piece, Quarantined
from tasks.batch.inputs.errors import (
    InputBroken,
    InputChanged,
    InputEmpty,
    InputNotFound,
    InputRefused,
    InputTooLarge,
)
from tasks.batch.inputs.offline import offline_table
from tasks.batch.inputs.opening import open_dataset
from tasks.batch.inputs.reading import UNREADABLE, read_batches

__all__ = [
    "UNREADABLE",
    "Dataset",
    "InputBroken",
    "InputChanged",
    "InputEmpty",
    "InputFile",
    "InputNotFound",
    "InputRefused",
    "InputTooLarge",
    "Piece",
    "Quarantined",
    "cut",
    "offline_table",
    "open_dataset",
    "read_batches",
]
