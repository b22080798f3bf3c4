import importlib
import subprocess
import sys

import pytest

from benchmarks.__main__ import benchmarks


def test_every_benchmark_is_listed_with_its_purpose():
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks"], capture_output=True, text=True, check=True
    )
    for name in benchmarks():
        assert f"python -m benchmarks.{name}" in done.stdout
    assert "cold_start" in done.stdout


@pytest.mark.parametrize("name", benchmarks())
def test_a_benchmark_can_be_imported_and_explains_quick(name, capsys):
    with pytest.raises(SystemExit) as stopped:
        importlib.import_module(f"benchmarks.{name}").main(["--help"])
    assert stopped.value.code == 0
    assert "--quick" in capsys.readouterr().out
