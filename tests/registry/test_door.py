import subprocess
import sys
import time

from registry.models import ModelRegistry


def test_a_database_whose_making_was_killed_is_made_anew(tmp_path):
    path = tmp_path / "registry.db"
    making = subprocess.Popen(
        [sys.executable, "-c", f"from registry.door import connect; connect('sqlite:///{path}')"]
    )
    unfinished = tmp_path / "registry.db.unfinished"
    while not (unfinished.exists() and unfinished.stat().st_size) and making.poll() is None:
        time.sleep(0.001)
    making.kill()
    making.wait()
    assert not path.exists()
    assert ModelRegistry(f"sqlite:///{path}").version_by_alias("any", "champion") is None
