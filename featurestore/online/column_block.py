"""Named columns over one block of values, for people by name and for the server in one copy."""

from collections.abc import Iterator, Mapping

import numpy as np


class ColumnBlock(Mapping[str, np.ndarray]):
    """Reads as a mapping from column name to column; ``block`` has all of them side by side."""

    __slots__ = ("_objects", "_positions", "block")

    def __init__(
        self,
        positions: Mapping[str, int],
        block: np.ndarray,
        objects: Mapping[str, np.ndarray] | None = None,
    ) -> None:
        """Name the columns of a block.

        Args:
            positions: where each column stands in the block.
            block: shape (rows, columns), C-contiguous.
            objects: further columns, of Python objects, shape (rows,).
        """
        self._positions, self.block, self._objects = positions, block, objects or {}

    def __getitem__(self, name: str) -> np.ndarray:
        """The column, shape (rows,); a view of the block."""
        position = self._positions.get(name)
        column: np.ndarray = self._objects[name] if position is None else self.block[:, position]
        return column

    def with_block(self, block: np.ndarray) -> "ColumnBlock":
        """The same columns over another block."""
        return ColumnBlock(self._positions, block, self._objects)

    @property
    def block_names(self) -> tuple[str, ...]:
        """The names of the block's columns, in their order."""
        return tuple(self._positions)

    def __iter__(self) -> Iterator[str]:
        """The names: those in the block first, in its order."""
        yield from self._positions
        yield from self._objects

    def __len__(self) -> int:
        """How many columns there are."""
        return len(self._positions) + len(self._objects)
