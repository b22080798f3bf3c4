"""The profile of one column of text: counts of the reference's categories, others and missing.

Like the profile of numbers it has a fixed size and adds up: the categories are learned from the
reference once, and everything never seen there, or rare there, counts as "others".
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

LIMIT = 50
"""How many categories are told apart; the rest of a long tail would be noise."""


@dataclass(frozen=True, eq=False)
class CategoryColumn:
    """What is known of a column of text."""

    categories: tuple[str, ...]
    counts: np.ndarray
    """int64, shape (categories + 1,): one count for each category, then the others."""
    missing: int
    """Rows that are null; they are in no count."""

    @property
    def rows(self) -> int:
        """Every row, the missing ones too."""
        return int(self.counts.sum()) + self.missing

    def fits(self, other: object) -> bool:
        """True if ``other`` was counted on the same categories."""
        return isinstance(other, CategoryColumn) and self.categories == other.categories


def learn_categories(values: pa.Array, *, limit: int = LIMIT) -> tuple[str, ...]:
    """Return the most frequent categories of ``values``, ties in the order of the alphabet."""
    counted = pc.value_counts(values.drop_null())
    ranked = sorted(counted.to_pylist(), key=lambda pair: (-pair["counts"], pair["values"]))
    return tuple(pair["values"] for pair in ranked[:limit])


def count_categories(values: pa.Array, categories: tuple[str, ...]) -> CategoryColumn:
    """Return the profile of ``values`` (string, shape (rows,); null is missing)."""
    known = pa.array(categories, pa.string())
    place = pc.index_in(values.drop_null(), value_set=known)
    places = pc.fill_null(place, len(categories)).to_numpy(zero_copy_only=False)
    counts = np.bincount(places, minlength=len(categories) + 1).astype(np.int64, copy=False)
    return CategoryColumn(categories, counts, values.null_count)


def add_categories(a: CategoryColumn, b: CategoryColumn) -> CategoryColumn:
    """Return the profile of the rows of both, which have the same categories."""
    return CategoryColumn(a.categories, a.counts + b.counts, a.missing + b.missing)
