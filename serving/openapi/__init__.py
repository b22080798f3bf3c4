"""The OpenAPI document of a running server, built from the schema of the model it serves.

One module for each part of the server; ``describe`` holds the words that they share.
"""

from serving.openapi.document import document
from serving.openapi.rows import example_instance, example_tensors

__all__ = ["document", "example_instance", "example_tensors"]
