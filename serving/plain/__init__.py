"""The plain API: JSON of rows in, JSON of predictions out.

::

    codec         POST /api/v1/infer, for both HTTP lanes
    ├── usual     the usual body, read by type in one step
    ├── request   every body, from JSON to rows; names what is wrong
    ├── told      what is wrong, row by row
    ├── asked     those rows, and the queries they become
    └── response  answers and errors as bytes
    routes        POST /api/v1/infer/batch and /api/v1/infer/stream, GET /api/v1/model/info
    ├── part      rows of which a bad one costs only itself
    ├── stream    those rows as events, a part at a time
    └── info      what a model is
"""

from serving.plain.codec import PlainCodec

__all__ = ["PlainCodec"]
