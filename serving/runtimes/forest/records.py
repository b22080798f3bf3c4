"""The records that tell the compiled kernel about a forest: plain C structures.

Python fills them once a model (``conditions``, ``layout``), the kernel reads them. Fields that name
a place in another array count that array's own elements, unless they say bytes.
"""

import numpy as np

ROWS = 256
"""Rows that go through the forest together: a bit of each lies in the 32 bytes of a register."""
BYTES = ROWS // 8
PART_HEIGHT = 6
"""Levels of a tree that are evaluated at once."""
PLANES = 16
"""Bits of a leaf's number in a tree of several parts."""
GROUP = 32
"""Rows whose leaves are looked up together, a byte of each."""

FEATURE = np.dtype(
    [
        ("column", np.int64),
        ("categorical", np.int64),
        ("count", np.int64),  # thresholds, or categories from 0
        ("thresholds", np.int64),  # the first of its thresholds
        ("starts", np.int64),  # the first of its buckets
        ("left", np.int64),  # its first condition in which missing goes left; 0: none
        ("right", np.int64),  # its first condition in which missing goes right; 0: none
        ("sets", np.int64),  # the first of its category sets
        ("set_count", np.int64),
        ("low", np.float32),  # bucket of x: (x - low) * scale, from 0 to last
        ("scale", np.float32),
        ("last", np.float32),
        ("steps", np.int32),  # of the search among a bucket's thresholds
    ],
    align=True,
)
"""A column that the forest looks at."""

SET = np.dtype(
    [
        ("condition", np.int64),
        ("missing_right", np.int64),
        ("members", np.int64),  # the first of its members
        ("count", np.int64),
    ],
    align=True,
)
"""A split by category: the categories that go right."""

TREE = np.dtype(
    [
        ("height", np.int64),  # 1 to PART_HEIGHT, or 0 for a tree of several parts
        ("output", np.int64),
        ("slots", np.int64),  # of a tree of one part
        ("leaves", np.int64),  # bytes into leaf_bytes, or floats into leaf_values
        ("parts", np.int64),  # the first of its parts
        ("part_count", np.int64),
    ],
    align=True,
)
"""A tree."""

PART = np.dtype(
    [
        ("height", np.int64),
        ("slots", np.int64),
        ("base", np.int64),  # its first leaf, counted from the tree's; a multiple of 2 ** height
        ("mask", np.int64),  # which rows reach it
        ("exits", np.int64),
        ("exit_count", np.int64),
    ],
    align=True,
)
"""A subtree of at most PART_HEIGHT levels of a taller tree."""

EXIT = np.dtype([("code", np.int64), ("mask", np.int64)], align=True)
"""A way out of a part into another: the turns taken (a bit each) and the mask of that part."""

_ADDRESSES = (
    "columns output features sets members thresholds starts slots trees leaf_bytes leaf_values "
    "parts exits base exponential seen conditions values buckets turns index sums masks planes"
)
_NUMBERS = "rows row_stride feature_count tree_count outputs transform"

JOB = np.dtype([(name, np.int64) for name in f"{_ADDRESSES} {_NUMBERS}".split()], align=True)
"""A call: addresses of the forest, the scratch memory, the columns and the output; and sizes."""
