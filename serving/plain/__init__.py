"""The plain API: JSON of rows in, JSON of predictions out.

::

    codec       POST /api/v1/infer, for both HTTP lanes
    ├── usual   the usual body, read by type in one step
    ├── request every body, from JSON to rows; names what is wrong
    ├── asked   those rows, and the queries they become
    └── response  answers and errors as bytes
"""

from serving.plain.codec import PlainCodec
from serving.plain.former import EDGE, infer, render, render_error

__all__ = ["EDGE", "PlainCodec", "infer", "render", "render_error"]
