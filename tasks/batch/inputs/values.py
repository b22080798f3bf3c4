"""Texts to typed values: one type a column, and a value that does not fit spoils its row alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.types as pt

from featurestore.columns import TIMESTAMP

_NULLS = pa.array(["", "NA", "N/A", "NaN", "nan", "null", "NULL", "None"])
"""What a missing number, time or truth is written as; of a text column only the empty text."""
_CANDIDATES = (pa.bool_(), pa.int64(), pa.float64(), TIMESTAMP, pa.timestamp("us"))
"""Types that a column of texts may have, the narrowest first."""
_FITS = 0.9  # the share of a sample's values that must fit a type for it to be the column's
_OF_JSON = {bool: ("bool",), int: ("int64", "double"), float: ("double",), str: ("string",)}


@dataclass(frozen=True)
class Column:
    """A column's values, and which of them could not be understood."""

    values: pa.Array
    """Typed; null where nothing was written or it was not understood."""
    is_bad: np.ndarray
    """bool (rows,)"""


def from_texts(texts: Sequence[str | None], type_: pa.DataType) -> Column:
    """Texts of a CSV column as values of one type.

    >>> from_texts(["1", "NA", "one"], pa.int64()).values.to_pylist()
    [1, None, None]
    """
    array = pa.array(texts, pa.string())
    if pt.is_string(type_):
        empty = pc.equal(array, "")
        return Column(pc.if_else(empty, pa.scalar(None, pa.string()), array), _none_of(array))
    trimmed = pc.utf8_trim_whitespace(array)
    present = pc.if_else(pc.is_in(trimmed, _NULLS), pa.scalar(None, pa.string()), trimmed)
    if pt.is_boolean(type_):
        return _from_words(present)
    try:
        return Column(present.cast(type_), _none_of(array))
    except pa.ArrowInvalid:
        return _one_by_one(present, type_)


def from_json(values: Sequence[Any], type_: pa.DataType) -> Column:
    """Values of a JSON column as values of one type: a text is no number, a number no text.

    >>> from_json([1, 2.5, "3"], pa.float64()).values.to_pylist()
    [1.0, 2.5, None]
    """
    kind = "string" if pt.is_timestamp(type_) else str(type_)
    is_bad = np.array(
        [v is not None and kind not in _OF_JSON.get(type(v), ()) for v in values], dtype=bool
    )
    kept = [None if bad else value for value, bad in zip(values, is_bad, strict=True)]
    if pt.is_timestamp(type_):
        column = from_texts(kept, type_)
        return Column(column.values, column.is_bad | is_bad)
    try:
        return Column(pa.array(kept, type_), is_bad)
    except (pa.ArrowInvalid, OverflowError):  # a whole number beyond 64 bits, or a lone surrogate
        for row, value in enumerate(kept):
            try:
                pa.array([value], type_)
            except (pa.ArrowInvalid, OverflowError, UnicodeEncodeError):
                kept[row], is_bad[row] = None, True
        return Column(pa.array(kept, type_), is_bad)


def type_of_texts(texts: Sequence[str | None]) -> pa.DataType:
    """The type that the most of a sample's texts fit, nine in ten at least; else text."""
    present = sum(1 for t in texts if t is not None and t.strip() not in _NULLS.to_pylist())
    best, fits = pa.string(), max(1, int(np.ceil(_FITS * present))) - 1
    for candidate in _CANDIDATES:
        fit = present - int(from_texts(texts, candidate).is_bad.sum())
        if present and fit > fits:
            best, fits = candidate, fit
    return best


def type_of_json(values: Sequence[Any]) -> pa.DataType:
    """The type that the most of a sample's JSON values fit; text for what is nested or empty."""
    present = [value for value in values if value is not None]
    if not present:
        return pa.string()
    if sum(isinstance(value, str) for value in present) >= _FITS * len(present):
        found = type_of_texts([v if isinstance(v, str) else None for v in values])
        return found if pt.is_timestamp(found) else pa.string()
    fits = dict.fromkeys((pa.bool_(), pa.int64(), pa.float64()), 0)
    for type_ in fits:
        fits[type_] = sum(str(type_) in _OF_JSON.get(type(v), ()) for v in present)
    best = max(fits, key=lambda type_: fits[type_])
    return best if fits[best] >= _FITS * len(present) else pa.string()


def _from_words(texts: pa.Array) -> Column:
    lower = pc.utf8_lower(texts)
    is_word = pc.is_in(lower, pa.array(["true", "false"]))
    values = pc.if_else(is_word, pc.equal(lower, "true"), pa.scalar(None, pa.bool_()))
    bad = pc.and_(pc.is_valid(texts), pc.invert(is_word))
    return Column(values, bad.to_numpy(zero_copy_only=False))


def _one_by_one(texts: pa.Array, type_: pa.DataType) -> Column:
    encoded = texts.dictionary_encode()
    good = []
    for text in encoded.dictionary:
        try:
            good.append(text.cast(type_).as_py())
        except pa.ArrowInvalid:
            good.append(None)
    values = pa.array(good, type_).take(encoded.indices)
    bad = pc.and_(pc.is_valid(texts), pc.is_null(values))
    return Column(values, bad.to_numpy(zero_copy_only=False))


def _none_of(array: pa.Array) -> np.ndarray:
    return np.zeros(len(array), dtype=bool)
