"""A real S3 protocol server of the suite's own, and the same behind a proxy that does harm."""

import os
import uuid
from collections.abc import Iterator

import pytest

from tests.faults.proxy import FaultProxy

_CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing-too",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",  # nobody is asked for credentials over the network
}


@pytest.fixture(scope="session")
def s3_server() -> Iterator[str]:
    """The address of moto's S3 server."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def s3(s3_server: str, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket; ``AWS_*`` variables say where it is."""
    bucket = f"s3-{uuid.uuid4().hex[:12]}"
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in (_CREDENTIALS | {"AWS_ENDPOINT_URL_S3": s3_server}).items():
        monkeypatch.setenv(name, value)
    _make_bucket(s3_server, bucket)
    return f"s3://{bucket}"


@pytest.fixture
def fault_proxy(s3_server: str, request: pytest.FixtureRequest) -> Iterator[FaultProxy]:
    """A proxy before the S3 server; the seed is shown when a test fails."""
    seed = int(os.environ.get("FAULTS_SEED", getattr(request, "param", 1)))
    print(f"FAULTS_SEED={seed}")
    with FaultProxy(s3_server, seed=seed) as proxy:
        yield proxy


@pytest.fixture
def faulty_s3(s3: str, fault_proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of an empty bucket behind ``fault_proxy``, which does nothing until told."""
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", fault_proxy.url)
    return s3


def _make_bucket(endpoint: str, bucket: str) -> None:
    import boto3

    client = boto3.client(
        "s3",
        endpoint_url=endpoint,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing-too",
    )
    client.create_bucket(Bucket=bucket)
    client.close()
