"""A server as uvicorn comes: what R13 and R23 are measured against."""

import socket
from typing import Any

import uvicorn


async def app(scope: Any, receive: Any, send: Any) -> None:
    """Answer everything with two bytes."""
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send(
        {"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]}
    )
    await send({"type": "http.response.body", "body": b"ok"})


if __name__ == "__main__":
    with socket.create_server(("127.0.0.1", 0)) as listening:
        print(f"ready at 127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(app, lifespan="off", access_log=False, log_level="critical")
        uvicorn.Server(config).run([listening])
