"""Every model of docs/models.md, as it stands there, trained on flights, deployed and asked."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

import models
from headrace import release
from headrace.bundle import read_manifest
from headrace.window import Window
from tasks import sample, serving_check

pytestmark = pytest.mark.slow

PAGE = Path(__file__).parents[2] / "docs" / "models.md"
UNTIL = ("--until", "2013-03-01")
DAY = Window(since="2013-03-01T00:00:00Z", until="2013-03-02T00:00:00Z")


@pytest.fixture
def documented(tmp_path, monkeypatch):
    """The modules that the page prints, importable as ``models.NAME``; their names in order."""
    folder = tmp_path / "models"
    folder.mkdir()
    monkeypatch.setattr(models, "__path__", [*models.__path__, str(folder)])
    snippets = re.findall(
        r'^```python\n("""models/(\w+)\.py""".*?)^```', PAGE.read_text(), re.MULTILINE | re.DOTALL
    )
    for snippet, name in snippets:
        (folder / f"{name}.py").write_text(snippet)
        monkeypatch.delitem(sys.modules, f"models.{name}", raising=False)
    yield [name for _, name in snippets]
    for _, name in snippets:
        sys.modules.pop(f"models.{name}", None)


def test_the_models_of_the_page_train_and_deploy_and_answer_online(world, documented):
    def champion(name):
        return release.require_release(world.settings.storage_uri, name).champion

    kinds = {}
    for name in documented:
        assert world.report("train", "--model", name, *UNTIL)[0] == 0, name
        assert world.run("deploy", "--model", name) == 0
        kinds[name] = read_manifest(world.settings.uri("bundles"), champion(name)).runtime
    assert sorted(set(kinds.values())) == ["ensemble", "graph", "onnx", "xgboost"]
    for name in ("flight_delay_mix", "flight_delay_graph", "flight_delay_plain"):
        plan = read_manifest(world.settings.uri("bundles"), champion(name)).plan
        fields = {field.name for field in plan.request} | set(plan.entity_keys)
        rows = sample.request_rows(world.settings, name, DAY, rows=40)
        asked = [{field: row[field] for field in sorted(fields)} for row in rows]
        answer = serving_check.ask_once(world.settings, name, asked)
        assert answer.digest == champion(name)
        assert len(np.unique(answer.predictions)) > 5
