"""Verify a model version's bundle and make it the champion of an endpoint.

Servers of the endpoint follow within two seconds. Nothing moves unless every byte of the bundle is
what its digest says and its golden rows are reproduced.
"""

import getpass

from prefect import flow
from pydantic import Field

from flows._command import EndpointName, FlowConfig, FlowReport, ModelName, run, run_name
from headrace.settings import load_settings
from tasks import rollout


class DeployConfig(FlowConfig):
    """What to deploy, where to, and why."""

    model: ModelName = Field(description="a registered model")
    version: int | None = Field(None, ge=1, description="its version; the newest if left out")
    endpoint: EndpointName | None = Field(
        None, description="the endpoint to move; named like the model if left out"
    )
    expected_revision: int | None = Field(
        None, ge=0, description="refuse if the endpoint is no longer at this revision"
    )
    reason: str = Field("deployed by hand", min_length=1, description="kept in the history")


class DeployReport(FlowReport):
    """What the endpoint runs now."""

    endpoint: str
    revision: int
    model: str
    version: int
    digest: str
    moved: bool

    def lines(self) -> list[tuple[str, str]]:
        """The release in words."""
        moved = "moved" if self.moved else "was there already"
        return [
            ("endpoint", f"{self.endpoint}, revision {self.revision} ({moved})"),
            ("champion", f"{self.model} version {self.version}"),
            ("bundle", self.digest),
            ("serve it", f"python -m serving --endpoint {self.endpoint}"),
        ]


@flow(name="deploy", flow_run_name=run_name)
def deploy(config: DeployConfig) -> DeployReport:
    """Verify a model version and make it the champion of an endpoint."""
    settings = load_settings()
    endpoint = config.endpoint or config.model
    version = rollout.find_version(settings, config.model, config.version)
    rollout.verify_bundle(settings, version.digest)
    before = rollout.look_up_release(settings, endpoint)
    at = before.revision if before else 0
    now = rollout.promote(
        settings,
        endpoint,
        version=version,
        expected=at if config.expected_revision is None else config.expected_revision,
        by=getpass.getuser(),
        reason=config.reason,
    )
    return DeployReport(
        endpoint=endpoint,
        revision=now.revision,
        model=config.model,
        version=version.version,
        digest=version.digest,
        moved=now.revision != at,
    )


def main(argv: list[str] | None = None) -> int:
    """Run the flow from a terminal or a cron line."""
    return run(deploy, DeployConfig, argv)


if __name__ == "__main__":
    raise SystemExit(main())
