"""Cut a dataset into the pieces that shards read: whole row groups, about equally many rows."""

from collections.abc import Iterator

from tasks.batch.inputs.dataset import Dataset, InputFile, Piece


def cut(dataset: Dataset, rows_per_shard: int) -> tuple[Piece, ...]:
    """The pieces of a dataset, in the order of its files and rows.

    A piece has whole row groups of one file, as many as stay within ``rows_per_shard``, and at
    least one. So the same file gives the same pieces whatever lies beside it, and a row group is
    read once. A row group of more rows is one piece: it is read in bounded batches all the same.

    Args:
        dataset: from ``open_dataset`` or ``offline_table``.
        rows_per_shard: how many rows a piece should have at most, 1 or more.
    """
    return tuple(piece for file in dataset.files for piece in _pieces(file, rows_per_shard))


def _pieces(file: InputFile, rows_per_shard: int) -> Iterator[Piece]:
    counted = file.row_groups if file.counted is None else file.counted
    groups: list[int] = []
    begin = position = rows = 0
    for group, (has, counts) in enumerate(zip(file.row_groups, counted, strict=True)):
        # Row groups without a row that counts are not read; a piece does not reach across them.
        is_full = groups and (counts == 0 or rows + counts > rows_per_shard)
        if is_full:
            yield _piece(file, groups, first_row=begin, rows=rows)
            groups, rows = [], 0
        if counts:
            begin = begin if groups else position
            groups.append(group)
            rows += counts
        position += has
    if groups:
        yield _piece(file, groups, first_row=begin, rows=rows)


def _piece(file: InputFile, groups: list[int], *, first_row: int, rows: int) -> Piece:
    return Piece(
        uri=file.uri,
        format=file.format,
        stamp=file.stamp,
        row_groups=tuple(groups),
        first_row=first_row,
        rows=rows,
        reading=file.reading,
    )
