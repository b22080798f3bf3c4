"""Pieces of an OpenAPI 3.1 document: objects, references, operations and their failures."""

from collections.abc import Mapping, Sequence
from typing import Any

JSON = "application/json"
FAILURES = {
    400: "The body is not JSON, or says a key twice; or the head has two meanings.",
    403: "This server does not let callers load and unload models.",
    404: "A model, version or job that is not here.",
    406: "None of the accepted formats is offered.",
    408: "The body did not arrive in time.",
    409: "It cannot be done in the state that the thing is in.",
    413: "Too many bytes or rows.",
    415: "The body is compressed.",
    422: "A field is missing, unknown, of a wrong type or out of bounds.",
    500: "The server's own failure.",
    503: "Features cannot be read, no model is ready, or too much waits already.",
    504: "The caller's time was over before the rows were computed.",
}
INFER = (400, 404, 408, 413, 415, 422, 500, 503, 504)
"""What every inference request may come to."""


def obj(properties: Mapping[str, Any], *, optional: Sequence[str] = (), **more: Any) -> Any:
    """A schema of an object whose properties are all there but the optional ones."""
    required = [name for name in properties if name not in optional]
    schema = {"type": "object", "properties": dict(properties), **more}
    return schema | ({"required": required} if required else {})


def array(items: Any, **more: Any) -> dict[str, Any]:
    """A schema of a list."""
    return {"type": "array", "items": items, **more}


def ref(name: str) -> dict[str, str]:
    """A reference to a schema of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def nullable(schema: Mapping[str, Any]) -> dict[str, Any]:
    """The same, or null."""
    return {**schema, "type": [schema["type"], "null"]}


def content(schema: Any, kind: str = JSON, **more: Any) -> dict[str, Any]:
    """The content of a body."""
    return {kind: {"schema": schema, **more}}


def parameter(name: str, place: str, schema: Mapping[str, Any], description: str) -> dict[str, Any]:
    """A parameter in the path, the query or a header."""
    found = {"name": name, "in": place, "schema": dict(schema), "description": description}
    return found | ({"required": True} if place == "path" else {})


def operation(
    name: str,
    summary: str,
    *,
    tag: str,
    good: Any,
    status: int = 200,
    failures: Sequence[int] = (),
    error: str = "Error",
    body: Any = None,
    body_required: bool = True,
    parameters: Sequence[Any] = (),
    also: Mapping[int, Any] | None = None,
) -> dict[str, Any]:
    """One operation.

    Args:
        name: its operationId.
        summary: what it does, in a few words.
        tag: the part of the server it belongs to.
        good: the content of its good response.
        status: of the good response.
        failures: the other statuses it may answer with, in the words of ``FAILURES``.
        error: the schema of their bodies.
        body: the content of the request body, if it has one.
        body_required: whether there must be one.
        parameters: of path, query and headers.
        also: further statuses, with their content.
    """
    responses = {str(status): {"description": summary, "content": good}}
    for code in failures:
        told = {"description": FAILURES[code], "content": content(ref(error))}
        responses[str(code)] = told
    for code, found in (also or {}).items():
        responses[str(code)] = {"description": FAILURES[code], "content": found}
    found = {"operationId": name, "summary": summary, "tags": [tag], "responses": responses}
    if parameters:
        found["parameters"] = list(parameters)
    if body is not None:
        found["requestBody"] = {"required": body_required, "content": body}
    return found
