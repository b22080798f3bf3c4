"""How a spot machine says that it will be taken away.

AWS says it two minutes ahead at an address of the machine's own, Google 30 seconds ahead; elsewhere
an agent may write a file (the Kubernetes way is SIGTERM, which needs nothing of this).
https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/spot-instance-termination-notices.html
https://cloud.google.com/compute/docs/instances/create-use-spot#detect-preemption
"""

import urllib.error
import urllib.request
from pathlib import Path

_AWS = "http://169.254.169.254"
_GCP = "http://metadata.google.internal"
_SECONDS = 2.0


def is_given(notice: str) -> bool:
    """True if the machine will be taken away; False if not, or if nobody can say.

    Args:
        notice: ``aws``, ``gcp``, a URL that answers 200 once it is so, or a file that appears. An
            address after ``aws`` or ``gcp`` (``aws http://127.0.0.1:8080``) is asked instead of
            the machine's own.
    """
    kind, _, address = notice.partition(" ")
    if kind == "aws":
        return _aws(address or _AWS)
    if kind == "gcp":
        path = "/computeMetadata/v1/instance/preempted"
        asked = urllib.request.Request((address or _GCP) + path)  # noqa: S310
        asked.add_header("Metadata-Flavor", "Google")
        return _answer(asked) == "TRUE"
    if "://" in notice:
        return _answer(urllib.request.Request(notice)) is not None  # noqa: S310
    return Path(notice).exists()


def _aws(address: str) -> bool:
    # A token first: machines that ask for the second version of the service refuse without one.
    token = _answer(
        urllib.request.Request(  # noqa: S310
            f"{address}/latest/api/token",
            method="PUT",
            headers={"X-aws-ec2-metadata-token-ttl-seconds": "60"},
        )
    )
    if token is None:
        return False
    asked = urllib.request.Request(f"{address}/latest/meta-data/spot/instance-action")  # noqa: S310
    asked.add_header("X-aws-ec2-metadata-token", token)
    return _answer(asked) is not None


def _answer(asked: urllib.request.Request) -> str | None:
    try:
        with urllib.request.urlopen(asked, timeout=_SECONDS) as reply:  # noqa: S310
            return str(reply.read(4096), "utf-8", "replace").strip()
    except (urllib.error.URLError, TimeoutError, ConnectionError):
        return None  # 404 is how both say "not now"
