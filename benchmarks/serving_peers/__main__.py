"""Make the environment of each peer below ``build/serving_peers``; name those that do not install.

An environment that is there already is kept. Takes about ten minutes and 4 GB of disk.
"""

import shutil
import subprocess
import sys
import venv
from pathlib import Path

ENVIRONMENTS = Path("build/serving_peers")
XGBOOST = "xgboost-cpu==3.2.0"
PACKAGES: dict[str, tuple[str, ...]] = {
    "bentoml": ("bentoml==1.4.39", XGBOOST),
    "mlserver": ("mlserver==1.7.1", "mlserver-xgboost==1.7.1"),
    "litserve": ("litserve==0.2.19", XGBOOST),
    "ray": ("ray[serve]==2.60.0", XGBOOST),
    "fastapi": ("fastapi<0.151", "uvicorn", "uvloop", "httptools", "feast[redis]==0.67.0", XGBOOST),
}


def python_of(name: str) -> Path | None:
    """The interpreter of a peer's environment; None where it was not made."""
    python = ENVIRONMENTS / name / "bin/python"
    return python.absolute() if (ENVIRONMENTS / name / "made").exists() else None


def main() -> int:
    """Make what is missing; the number of environments that could not be made."""
    failed = [name for name in PACKAGES if python_of(name) is None and not _make(name)]
    for name in failed:
        print(f"{name} does not install here: see the lines above", file=sys.stderr)
    return len(failed)


def _make(name: str) -> bool:
    folder = ENVIRONMENTS / name
    shutil.rmtree(folder, ignore_errors=True)
    print(f"==> {name}: {' '.join(PACKAGES[name])}", flush=True)
    venv.create(folder, with_pip=True)
    install = [folder / "bin/python", "-m", "pip", "install", "--quiet", *PACKAGES[name]]
    if subprocess.run(install, check=False).returncode:
        return False
    (folder / "made").touch()
    return True


if __name__ == "__main__":
    raise SystemExit(main())
