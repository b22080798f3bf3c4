import random
import uuid
from datetime import UTC, datetime

import pyarrow as pa
import pytest

from headrace import bundle, storage
from headrace.errors import BundleRefused
from headrace.plan import FeaturePlan
from headrace.spec import DriftPolicy

PLAN = FeaturePlan(
    project="p",
    feature_service="s",
    definitions_sha256="0" * 64,
    event_timestamp="at",
    views=(),
    request=(),
    inputs_from_request=(),
    transforms=(),
)
MANIFEST = bundle.BundleManifest(
    model="m",
    task="binary",
    runtime="xgboost",
    plan=PLAN,
    drift=DriftPolicy(),
    lineage=bundle.Lineage(
        code_revision="r",
        training_set_sha256="0" * 64,
        training_rows=1,
        trained_from=datetime(2013, 1, 1, tzinfo=UTC),
        trained_until=datetime(2013, 2, 1, tzinfo=UTC),
        tested_until=datetime(2013, 3, 1, tzinfo=UTC),
    ),
    metrics={"roc_auc": 0.8},
    parameters={"rounds": 3},
    files={},
)
FILES = {
    bundle.model_file("xgboost"): b"a model",
    bundle.GOLDEN: bundle.arrow_bytes(pa.table({"x": [1.0], "prediction": [0.5]})),
    bundle.REFERENCE: b"a profile",
    bundle.CARD: b"# a card",
}


@pytest.fixture(params=["folder", "memory"])
def root(request, tmp_path):
    return str(tmp_path) if request.param == "folder" else f"memory://{uuid.uuid4().hex}"


@pytest.fixture
def digest(root):
    return bundle.write_bundle(root, MANIFEST, FILES)


def test_a_bundle_is_read_back_as_it_was_written(root, digest):
    found = bundle.read_bundle(root, digest)
    assert found.files == FILES
    assert found.manifest.lineage == MANIFEST.lineage
    assert found.golden.to_pydict() == {"x": [1.0], "prediction": [0.5]}


def test_the_same_inputs_give_the_same_digest_and_others_another(root, digest):
    assert bundle.write_bundle(root, MANIFEST, FILES) == digest
    other = MANIFEST.model_copy(update={"metrics": {"roc_auc": 0.81}})
    assert bundle.write_bundle(root, other, FILES) != digest


@pytest.mark.parametrize("name", [bundle.MANIFEST, *bundle.file_names("xgboost")])
def test_one_changed_bit_of_any_file_is_refused(root, digest, name):
    uri = f"{root}/{digest}/{name}"
    data = bytearray(storage.read_bytes(uri))
    data[random.Random(name).randrange(len(data))] ^= 1
    storage.write_atomic(uri, bytes(data))
    with pytest.raises(BundleRefused, match=f"{name} was changed.*Restore it"):
        bundle.read_bundle(root, digest)


@pytest.mark.parametrize("name", [bundle.MANIFEST, *bundle.file_names("xgboost")])
def test_a_missing_file_is_refused(tmp_path, name):
    root = str(tmp_path)
    digest = bundle.write_bundle(root, MANIFEST, FILES)
    (tmp_path / digest / name).unlink()
    with pytest.raises(BundleRefused, match=f"{name} is missing"):
        bundle.read_bundle(root, digest)


def test_an_added_file_is_refused(root, digest):
    storage.write_atomic(f"{root}/{digest}/extra.py", b"print()")
    with pytest.raises(BundleRefused, match=r"files were added: extra\.py"):
        bundle.read_bundle(root, digest)


@pytest.mark.parametrize("digest", ["", "latest", "../" + "a" * 61, "A" * 64])
def test_what_is_no_digest_is_refused_before_any_path_is_made(tmp_path, digest):
    with pytest.raises(BundleRefused, match="not 64 hexadecimal digits"):
        bundle.read_bundle(str(tmp_path), digest)
