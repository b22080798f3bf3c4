"""The resource that the Dask operator gets, held against the operator's own schema. No cluster."""

import importlib.util
from pathlib import Path

import jsonschema
import pytest
import yaml

from headrace.errors import SettingRefused
from headrace.settings import Settings
from tasks.clusters.config import Kubernetes
from tasks.clusters.dask_settings import DASK_SETTINGS
from tasks.clusters.kubernetes import cluster_resource, dask_variables

SETTINGS = Settings(storage="s3://lake/headrace", online_store="redis://:secret@redis:6379/0")
FULL = Kubernetes(
    name="lab",
    image="registry/headrace:1.4",
    workers=3,
    threads=2,
    cpus=1.5,
    memory="4GiB",
    gpus=1,
    service_account="scorer",
    image_pull_secrets=("pull",),
    node_selector={"pool": "spot"},
    tolerations=({"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"},),
    environment={"AWS_REGION": "eu-west-1"},
    secrets=("s3-credentials",),
    drain_seconds=60,
)


@pytest.fixture
def resource():
    return cluster_resource(FULL, SETTINGS, name="headrace-1")


@pytest.fixture(scope="module")
def schema():
    """What the operator's resource definition says a ``DaskCluster`` is."""
    package = Path(importlib.util.find_spec("dask_kubernetes").origin).parent
    chart = package / "operator" / "deployment" / "helm" / "dask-kubernetes-operator"
    path = chart / "crds" / "daskcluster.yaml"
    (version,) = yaml.safe_load(path.read_text())["spec"]["versions"]
    return closed(version["schema"]["openAPIV3Schema"])


def closed(node):
    """The schema with every object closed, as the API server prunes what it does not know."""
    if isinstance(node, list):
        return [closed(item) for item in node]
    if not isinstance(node, dict):
        return node
    found = {key: closed(value) for key, value in node.items()}
    if "properties" in node and not node.get("x-kubernetes-preserve-unknown-fields"):
        found.setdefault("additionalProperties", False)
    return found


def complaints(resource, schema):
    """What the schema finds wrong; the schema itself, half a megabyte, is not checked again."""
    found = jsonschema.Draft202012Validator(schema).iter_errors(resource)
    return [error.message for error in found]


@pytest.mark.parametrize("config", [FULL, Kubernetes(name="small", image="headrace:1")])
def test_the_resource_is_one_that_the_operator_takes(schema, config):
    made = cluster_resource(config, SETTINGS, name="headrace-1")
    assert (made["apiVersion"], made["kind"]) == ("kubernetes.dask.org/v1", "DaskCluster")
    assert complaints(made["spec"], schema["properties"]["spec"]) == []


def test_a_field_that_the_operator_does_not_know_is_found_out(schema, resource):
    resource["spec"]["worker"]["spec"]["containers"][0]["images"] = "x"
    (complaint,) = complaints(resource["spec"], schema["properties"]["spec"])
    assert "'images' was unexpected" in complaint


def test_a_worker_asks_for_what_the_configuration_says(resource):
    pod = resource["spec"]["worker"]["spec"]
    (worker,) = pod["containers"]
    asked = {"cpu": "1.5", "memory": str(4 * 2**30 + 512 * 2**20), "nvidia.com/gpu": "1"}
    assert worker["resources"] == {"requests": asked, "limits": asked}
    words = " ".join(worker["args"])
    assert f"--nthreads 2 --memory-limit {4 * 2**30}" in words
    assert "--preload tasks.clusters.draining --preload-nanny tasks.clusters.draining" in words
    assert worker["envFrom"] == [{"secretRef": {"name": "s3-credentials"}}]
    assert (pod["serviceAccountName"], pod["nodeSelector"]) == ("scorer", {"pool": "spot"})
    assert pod["terminationGracePeriodSeconds"] > FULL.drain_seconds
    assert resource["spec"]["worker"]["replicas"] == 3


def test_pods_get_our_settings_and_no_password(resource):
    for part in ("worker", "scheduler"):
        (container,) = resource["spec"][part]["spec"]["containers"]
        variables = {item["name"]: item["value"] for item in container["env"]}
        assert variables["HEADRACE_STORAGE"] == "s3://lake/headrace"
        assert variables["AWS_REGION"] == "eu-west-1"
        assert variables["DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES"] == "10"
        assert variables["DASK_HEADRACE__DRAIN_SECONDS"] == "60"
    assert "secret@" not in str(resource)


def test_dask_reads_the_variables_as_we_set_them():
    import dask

    variables = dask_variables(DASK_SETTINGS)
    assert variables.pop("DASK_LOGGING__DISTRIBUTED") == "warning"
    read = dask.config.collect_env(variables)
    ours = {name: value for name, value in DASK_SETTINGS.items() if "pre-spawn" not in name}
    assert {name: dask.config.get(name, config=read) for name in ours} == ours


def test_a_storage_that_pods_cannot_see_is_refused(tmp_path):
    with pytest.raises(SettingRefused, match=r"HEADRACE_STORAGE.*pods .* s3://bucket/headrace"):
        cluster_resource(FULL, Settings(home=tmp_path), name="headrace-1")
