"""Features that are no numbers as the Python objects that transforms take.

A transform must meet the same objects in training as in the server. The server has them from
Feast's messages in the online store, so in training they go the same way: through the message.
"""

from typing import Any

import numpy as np
import pyarrow as pa

from featurestore.wire.value_encoding import encode_objects
from featurestore.wire.values import decode_object
from headrace.plan import FeatureRead


def python_objects(column: pa.Array, feature: FeatureRead) -> np.ndarray:
    """A joined column as the online reader gives it: dtype object, shape (rows,), null is None.

    Args:
        column: of any Arrow type that holds the feature's values.
        feature: its name and Feast's type.

    Raises:
        SchemaMismatch: for a value that is not of the type.

    >>> python_objects(pa.array(["a", None]), FeatureRead(name="sky", dtype="STRING"))
    array(['a', None], dtype=object)
    """
    found = np.full(len(column), None, dtype=object)
    if feature.dtype == "STRING" and pa.types.is_string(column.type):
        found[:] = column.to_pylist()  # text is the same either way
        return found
    values: list[Any] = [
        decode_object(message, feature.dtype, feature.name)
        for message in encode_objects(pa.chunked_array([column]), feature.dtype, feature.name)
    ]
    for row, value in enumerate(values):  # one by one: NumPy would take lists for rows of a matrix
        found[row] = value
    return found
