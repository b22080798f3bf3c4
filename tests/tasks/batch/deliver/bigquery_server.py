"""As much of BigQuery's REST protocol (v2) as a load job takes: jobs.insert and jobs.get.

Uploads come as one multipart request or, from 10 MB, as a resumable session of chunks, as
https://cloud.google.com/bigquery/docs/reference/api-uploads tells. A job id runs once.
"""

import email
import email.policy
import http.server
import io
import json
import re
import threading
from typing import Any, Self

import pyarrow as pa
import pyarrow.parquet as pq


class BigQueryServer:
    """Tables that load jobs append to; what a job does may be told in advance."""

    def __init__(self) -> None:
        self.tables: dict[str, list[pa.Table]] = {}
        self.jobs: dict[str, dict[str, Any]] = {}
        self.uploads: dict[str, dict[str, Any]] = {}
        self.fails_with: list[str] = []
        """Messages with which the next jobs fail."""
        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(self))
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    @property
    def url(self) -> str:
        """Its address, for BIGQUERY_EMULATOR_HOST."""
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def rows(self, table: str) -> pa.Table:
        """What is in ``dataset.table``."""
        return pa.concat_tables(self.tables[table])

    def run(self, resource: dict[str, Any], data: bytes) -> tuple[int, dict[str, Any]]:
        """Run a job, unless its id was used."""
        name = resource["jobReference"]["jobId"]
        if name in self.jobs:
            return 409, _error(409, "duplicate", f"Already Exists: Job {name}")
        # The first answer is that it runs; jobs.get says how it ended.
        self.jobs[name] = resource | {"status": {"state": "DONE"}, "kind": "bigquery#job"}
        if self.fails_with:
            message = self.fails_with.pop(0)
            failure = {"reason": "invalid", "message": message}
            self.jobs[name]["status"] |= {"errorResult": failure, "errors": [failure]}
        else:
            self._load(name, resource["configuration"]["load"], data)
        return 200, resource | {"status": {"state": "RUNNING"}}

    def _load(self, name: str, load: dict[str, Any], data: bytes) -> None:
        assert load["sourceFormat"] == "PARQUET"
        place = load["destinationTable"]
        table = f"{place['datasetId']}.{place['tableId']}"
        rows = pq.read_table(io.BytesIO(data))
        if load["writeDisposition"] == "WRITE_TRUNCATE":
            self.tables[table] = []
        self.tables.setdefault(table, []).append(rows)
        self.jobs[name]["statistics"] = {"load": {"outputRows": str(rows.num_rows)}}


def _handler(server: BigQueryServer) -> type[http.server.BaseHTTPRequestHandler]:
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if "uploadType=multipart" in self.path:
                resource, data = _parts(self.headers["Content-Type"], body)
                self._answer(*server.run(resource, data))
                return
            number = str(len(server.uploads))
            server.uploads[number] = {"resource": json.loads(body), "data": b""}
            self._answer(200, {}, location=f"{server.url}/session/{number}")

        def do_PUT(self) -> None:
            upload = server.uploads[self.path.rsplit("/", 1)[-1]]
            upload["data"] += self.rfile.read(int(self.headers["Content-Length"]))
            _, _, total = self.headers["Content-Range"].partition("/")
            if total == "*" or len(upload["data"]) < int(total):  # the last chunk tells
                self._answer(308, {}, range_=f"bytes=0-{len(upload['data']) - 1}")
            else:
                self._answer(*server.run(upload["resource"], upload["data"]))

        def do_GET(self) -> None:
            name = re.search(r"/jobs/([^?]+)", self.path)[1]
            if name in server.jobs:
                self._answer(200, server.jobs[name])
            else:
                self._answer(404, _error(404, "notFound", f"Not found: Job {name}"))

        def _answer(
            self, status: int, body: dict[str, Any], *, location: str = "", range_: str = ""
        ) -> None:
            data = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
            for name, value in (("Location", location), ("Range", range_)):
                if value:
                    self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    return Handler


def _parts(content_type: str, body: bytes) -> tuple[dict[str, Any], bytes]:
    head = f"Content-Type: {content_type}\r\n\r\n".encode()
    message = email.message_from_bytes(head + body, policy=email.policy.HTTP)
    resource, media = message.iter_parts()
    return json.loads(resource.get_payload(decode=True)), media.get_payload(decode=True)


def _error(code: int, reason: str, message: str) -> dict[str, Any]:
    errors = [{"reason": reason, "message": message}]
    return {"error": {"code": code, "message": message, "errors": errors}}
