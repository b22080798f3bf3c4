import numpy as np
import pytest

from headrace.errors import SpecRefused
from headrace.spec import TorchTrainer

NETWORKS = """
import torch

def small(columns, width=16):
    layers = [torch.nn.Linear(columns, width), torch.nn.BatchNorm1d(width), torch.nn.ReLU()]
    return torch.nn.Sequential(*layers, torch.nn.Dropout(0.1), torch.nn.Linear(width, 1))

def wide(columns):
    return torch.nn.Linear(columns, 2)

def number(columns):
    return columns

class Undecided(torch.nn.Module):
    def __init__(self, columns):
        super().__init__()
        self.layer = torch.nn.Linear(columns, 1)

    def forward(self, rows):
        return self.layer(rows) if rows.sum() > 0 else self.layer(-rows)
"""


@pytest.mark.parametrize("task", ["binary", "regression"])
def test_a_network_learns_and_becomes_a_bundle_that_needs_no_torch(
    workshop, spec, model_file, task
):
    trainer = TorchTrainer(
        module=f"{model_file(NETWORKS)}:small", epochs=4, batch_rows=256, learning_rate=0.02
    )
    digest, card = workshop.bundle(spec(trainer, task=task))
    predictor = workshop.load(digest)
    assert card.metrics["roc_auc"] > 0.85 if task == "binary" else card.metrics["rmse"] < 9
    assert predictor.bundle.manifest.runtime == "onnx"
    assert predictor.bundle.manifest.parameters["epochs"] == 4
    assert np.isfinite(predictor.predict(np.full((1, 4), np.nan, np.float32))).all()
    if task == "binary":
        assert workshop.bundle(spec(trainer))[0] == digest


def test_a_network_can_be_kept_as_its_exported_graph(workshop, spec, model_file):
    module = f"{model_file(NETWORKS)}:small"
    trainer = TorchTrainer(module=module, epochs=2, batch_rows=256, learning_rate=0.02)
    digest, card = workshop.bundle(spec(trainer.model_copy(update={"keep": "torch"})))
    predictor = workshop.load(digest)
    assert predictor.bundle.manifest.runtime == "torch"
    assert card.metrics["roc_auc"] > 0.8
    as_onnx = workshop.load(workshop.bundle(spec(trainer))[0])
    rows = predictor.background
    np.testing.assert_allclose(predictor.predict(rows), as_onnx.predict(rows), atol=1e-5)


@pytest.mark.parametrize(
    ("module", "changes", "says"),
    [
        ("nowhere:small", {}, "trainer.module 'nowhere:small' is not there"),
        ("own_model:number", {}, "gives a int, not a torch.nn.Module"),
        ("own_model:wide", {}, "gives 128 values for 64 rows; give one a row"),
        ("own_model:small", {"parameters": {"depth": 3}}, "does not take .*'depth': 3"),
        ("own_model:small", {"learning_rate": 1e30}, "try a smaller trainer.learning_rate"),
        ("own_model:Undecided", {}, "does not export: Converting a tensor to a Python"),
        ("own_model:Undecided", {"keep": "torch"}, "does not export: Could not guard on data-dep"),
    ],
)
def test_what_cannot_be_trained_is_refused_and_named(
    workshop, spec, model_file, module, changes, says
):
    model_file(NETWORKS)
    trainer = TorchTrainer(module=module, epochs=1, batch_rows=64, **changes)
    with pytest.raises(SpecRefused, match=says):
        workshop.bundle(spec(trainer))
