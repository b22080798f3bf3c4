"""uvicorn with an application that answers a constant: ``constant_uvicorn.py PORT``."""

import sys
from typing import Any

import uvicorn

_BODY = b'{"id":"0","prediction":0.5}'
_HEADERS = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(_BODY))]


async def app(_scope: Any, _receive: Any, send: Any) -> None:
    """Answer, whatever was asked."""
    await send({"type": "http.response.start", "status": 200, "headers": _HEADERS})
    await send({"type": "http.response.body", "body": _BODY})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=int(sys.argv[1]),
        log_level="warning",
        access_log=False,
        lifespan="off",
    )
