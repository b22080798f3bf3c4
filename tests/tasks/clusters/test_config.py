"""Clusters by name: what a file may say, and what is told of one that is wrong."""

import re
from pathlib import Path

import pytest

from headrace.errors import SettingRefused
from headrace.settings import Settings, load_settings
from tasks.clusters import cluster
from tasks.clusters.config import Address, Cuda, Kubernetes, Local, read_config
from tasks.clusters.errors import ClusterKindMissing, ClusterTooSmall
from tasks.clusters.needs import Has, Needs, check, promised

PAGE = Path(__file__).parents[3] / "docs" / "clusters.md"
KUBERNETES = 'kind = "kubernetes"\nimage = "registry/headrace:1"\n'


@pytest.fixture
def written(tmp_path):
    """Writes the file of a cluster named 'lab'; returns the folder of settings."""

    def write(text):
        (tmp_path / "clusters").mkdir(exist_ok=True)
        (tmp_path / "clusters" / "lab.toml").write_text(text)
        return tmp_path

    return write


def test_local_and_an_address_need_no_file():
    local = read_config(Settings(workers=3, worker_memory="512MiB"))
    assert local == Local(name="local", workers=3, memory="512MiB")
    address = read_config(Settings(cluster="tcp://dask:8786"))
    assert address == Address(name="tcp://dask:8786", address="tcp://dask:8786")


def test_any_other_name_is_a_file(written):
    folder = written('kind = "cuda"\ngpus = [0, 2]\nmemory = "32GiB"\n')
    assert read_config(Settings(cluster="lab"), folder) == Cuda(
        name="lab", gpus=(0, 2), memory="32GiB"
    )
    folder = written(KUBERNETES + "adapt = {minimum = 1, maximum = 9}\n")
    config = read_config(Settings(cluster="lab"), folder)
    assert isinstance(config, Kubernetes)
    assert config.adapt is not None
    assert config.adapt.maximum == 9


def test_a_name_without_a_file_is_refused_at_the_start(written, monkeypatch):
    folder = written(KUBERNETES)
    monkeypatch.setenv("HEADRACE_CLUSTER", "labs")
    with pytest.raises(SettingRefused, match=r"HEADRACE_CLUSTER = 'labs'.*labs\.toml.*'lab'"):
        load_settings(folder)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", r"kind = '\(left out\)' is refused: write kind = one of 'local', 'address', 'cuda'"),
        ('kind = "slurm"', "kind = 'slurm' is refused: write kind = one of"),
        ('kind = "local"\nworkers = 0', r"workers = 0 is refused: .* 1 \(worker processes\)"),
        ('kind = "local"\nworker = 1', "worker = 1 .* kind 'local' has no such field; it has kind"),
        ('kind = "kubernetes"', r"image = '\(left out\)' is refused: field required"),
        (KUBERNETES + 'memory = "lots"', "memory = 'lots' is refused: write a number and a unit"),
        (KUBERNETES + "adapt = {minimum = 4, maximum = 3}", "minimum 4 is above maximum 3"),
        ('kind = "address"\naddress = "lab"', "address = 'lab' .*such as tcp://scheduler:8786"),
        ("kind = local", r"lab\.toml = '\(file\)' is refused: it is not TOML"),
    ],
)
def test_a_wrong_field_is_named_with_its_file_its_value_and_what_is_right(written, text, says):
    folder = written(text)
    with pytest.raises(SettingRefused, match=says) as told:
        read_config(Settings(cluster="lab"), folder)
    assert "lab.toml" in str(told.value)


def test_a_kind_whose_library_is_missing_says_what_to_install(tmp_path):
    config = Cuda(name="gpu", gpus=(0,))
    with (
        pytest.raises(
            ClusterKindMissing, match=r"'gpu' .* needs the package dask-cuda.*pip install"
        ),
        cluster(Settings(home=tmp_path), config=config),
    ):
        pass


def test_what_is_short_is_all_told_at_once():
    has = Has(workers=2, memory=2**30, gpus=0)
    check("lab", Needs(workers=2, memory=2**30), has)
    with pytest.raises(ClusterTooSmall) as told:
        check("lab", Needs(workers=3, memory=2**31, gpu=True), has)
    assert len(told.value.short) == 3
    check("lab", Needs(memory=2**40), Has(workers=1, memory=None, gpus=0))


def test_what_a_cluster_will_have_is_known_from_its_file(written):
    folder = written(KUBERNETES + 'gpus = 1\nmemory = "4GiB"\nadapt = {maximum = 8}\n')
    config = read_config(Settings(cluster="lab"), folder)
    assert promised(config) == Has(workers=8, memory=4 * 2**30, gpus=8)
    assert promised(Address(name="a", address="tcp://a:1")) is None


def blocks(language):
    return re.findall(
        rf"^```{language}\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL
    )


def test_the_files_of_the_page_are_clusters(tmp_path):
    (tmp_path / "clusters").mkdir()
    kinds = []
    for block in blocks("toml"):
        name = re.match(r"# settings/clusters/(\w+)\.toml", block).group(1)
        (tmp_path / "clusters" / f"{name}.toml").write_text(block)
        kinds.append(read_config(Settings(cluster=name), tmp_path).kind)
    assert kinds == ["address", "cuda", "kubernetes"]


def test_the_snippet_of_the_page_runs_as_it_is_printed():
    (snippet,) = blocks("python")
    names = {}
    exec(compile(snippet, str(PAGE), "exec"), names)
    assert names["squares"] == {f"square-{n}": n * n for n in range(10)}
