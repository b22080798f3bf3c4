import os

import pytest


@pytest.fixture(autouse=True)
def _no_settings_of_the_person(monkeypatch):
    for variable in list(os.environ):
        if variable.startswith("HEADRACE_"):
            monkeypatch.delenv(variable)
