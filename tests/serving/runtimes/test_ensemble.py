import json

import numpy as np
import pytest

from headrace.errors import BundleRefused
from headrace.plan import FeatureRead
from serving.errors import RuntimeFailed
from serving.predictor import load_predictor
from serving.runtimes.ensemble import EnsembleDocument, combine, log_odds


def document(members, **changes):
    shares = [{"digest": digest, "weight": weight} for digest, weight in members.items()]
    return json.dumps({"members": shares, **changes}).encode()


def load(store, digest):
    return load_predictor(f"{store.root}/bundles", digest)


def test_a_weighted_mean_is_what_it_says(opened, bundled, store, matrix):
    one, two = bundled("xgboost"), bundled("onnx")
    given = opened("ensemble", document({one: 0.25, two: 0.75})).predict(matrix(50))
    apart = [load(store, digest).predict(matrix(50)) for digest in (one, two)]
    np.testing.assert_allclose(given, 0.25 * apart[0] + 0.75 * apart[1], rtol=1e-6)


def test_log_odds_are_added_on_their_own_scale():
    two = EnsembleDocument.model_validate(
        {
            "scale": "log_odds",
            "intercept": 0.5,
            "members": [{"digest": d * 64, "weight": w} for d, w in (("0", 2.0), ("1", -1.0))],
        }
    )
    chances = [np.array(p, np.float32) for p in ([0.2, 0.0, 1.0], [0.6, 0.0, 0.0])]
    logits = 0.5 + 2 * log_odds(chances[0]) - log_odds(chances[1])
    np.testing.assert_allclose(combine(two, chances), 1 / (1 + np.exp(-logits)), rtol=1e-6)
    assert np.isfinite(combine(two, chances)).all()


def test_members_see_their_own_columns_in_their_own_order(opened, bundled, store, plan, matrix):
    planes = plan.views[1]
    unknown = tuple(FeatureRead(name=name, dtype="DOUBLE") for name in ("x", "wind_speed"))
    turned = plan.model_copy(update={"views": (planes, plan.views[0])})
    digest = bundled("onnx", plan=turned)
    given = opened("ensemble", document({digest: 1.0})).predict(matrix(30))
    wanted = load(store, digest).predict(matrix(30)[:, [2, 0, 1, 3, 4]])
    assert given.tobytes() == wanted.tobytes()
    weather = plan.views[0].model_copy(update={"features": unknown})
    other = plan.model_copy(update={"views": (weather, planes)})
    with pytest.raises(RuntimeFailed, match="takes weather__x, which the ensemble does not read"):
        opened("ensemble", document({bundled("onnx", plan=other): 1.0}))


def test_a_member_that_is_not_there_or_changed_refuses_the_ensemble(bundled, store, tmp_path):
    from pathlib import Path

    member = bundled("xgboost")
    digest = bundled("ensemble", model=document({member: 1.0}), predictions=np.zeros(20))
    Path(store.root, "bundles", member, "model.ubj").write_bytes(b"{}")
    with pytest.raises(BundleRefused, match=rf"{member[:12]} is refused: model\.ubj was changed"):
        load(store, digest)
    missing = bundled("ensemble", model=document({"0" * 64: 1.0}), predictions=np.zeros(20))
    with pytest.raises(BundleRefused, match=r"000000000000 is refused: bundle\.json is missing"):
        load(store, missing)


def test_ensembles_of_ensembles_load_and_too_many_are_refused(bundled, store, matrix):
    digest = bundled("xgboost")
    wanted = load(store, digest).predict(matrix(20))
    for _ in range(4):
        digest = bundled("ensemble", model=document({digest: 1.0}), predictions=wanted)
    assert load(store, digest).predict(matrix(20)).tobytes() == wanted.tobytes()
    deeper = bundled("ensemble", model=document({digest: 1.0}), predictions=wanted)
    with pytest.raises(BundleRefused, match="it lies in 5 ensembles; 4 is the most"):
        load(store, deeper)


def test_a_bundle_inside_itself_is_refused(store, bundled, monkeypatch):
    # A digest cannot name what holds it; a storage that lies about bytes could still say so.
    from headrace import bundle
    from serving import predictor

    member = bundled("xgboost")
    digest = bundled("ensemble", model=document({member: 1.0}), predictions=np.zeros(20))
    whole = bundle.read_bundle(f"{store.root}/bundles", digest)
    loop = whole.files | {"ensemble.json": document({digest: 1.0})}
    monkeypatch.setattr(
        predictor, "read_bundle", lambda *_: bundle.Bundle(digest, whole.manifest, loop)
    )
    with pytest.raises(BundleRefused, match="it is a member of itself"):
        load(store, digest)


@pytest.mark.parametrize(
    "damaged",
    [
        b'{"members": []}',
        b'{"members": [{"digest": "../x", "weight": 1}]}',
        document({"0" * 64: 1.0}, format="headrace-ensemble-9"),
        document({"0" * 64: 1.0}, extra=1),
        b'{"members": [{"digest": "%s", "weight": NaN}]}' % (b"0" * 64),
    ],
)
def test_another_format_is_refused(opened, damaged):
    with pytest.raises(RuntimeFailed, match="the ensemble could not load the model"):
        opened("ensemble", damaged)
