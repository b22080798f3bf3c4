"""The kernel's machine code: found in the cache of this machine, or compiled there once.

The cache is ``$XDG_CACHE_HOME/headrace``, by default ``~/.cache/headrace``. A file is named after
all that it was made from (the sources, the compiler's versions, the processor), so nothing stale is
ever loaded, and holds its own SHA-256, so nothing broken is. It is code that this process will run:
a folder that others may write into is not used.
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import importlib.util
import logging
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_log = logging.getLogger(__name__)
_COMPILE_SECONDS = 300
_HASH_BYTES = 32
_loading = threading.Lock()

Kernel = Callable[[int], None]
"""Runs the job at an address; others run Python meanwhile."""


class KernelMissing(Exception):
    """The kernel cannot be had on this machine; XGBoost's predictor answers in its place."""


def load_kernel() -> Kernel:
    """Return the kernel, compiled for this machine before if need be (some ten seconds, once).

    Raises:
        KernelMissing: if Numba is not installed, the processor has no AVX2, or compiling failed.
    """
    with _loading:
        return _kernel()


@functools.cache
def _kernel() -> Kernel:
    if importlib.util.find_spec("numba") is None:
        raise KernelMissing("numba is not installed; pip install numba")
    from llvmlite import binding as llvm

    from serving.runtimes.forest.build import SYMBOL, target_machine

    if not llvm.get_host_cpu_features().get("avx2"):
        raise KernelMissing(f"the processor ({llvm.get_host_cpu_name()}) has no AVX2")
    code = _code(llvm.get_host_cpu_name() + llvm.get_host_cpu_features().flatten())
    engine = llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine())
    engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    # Numba's convention: where the result goes, where an error goes, the arguments; 0 is done.
    run = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_int64)(
        engine.get_function_address(SYMBOL)
    )
    result, error = ctypes.c_void_p(), ctypes.c_void_p()
    result_at, error_at = ctypes.addressof(result), ctypes.addressof(error)

    def kernel(job: int, _alive: object = (engine, result, error)) -> None:
        status = run(result_at, error_at, job)
        assert status == 0, f"the kernel never fails, but said {status}"

    return kernel


def _code(processor: str) -> bytes:
    name = f"forest-{_key(processor)}.o"
    try:
        folder = _cache_folder()
    except OSError as error:
        _log.warning("the forest kernel is compiled for this process alone: %s", error)
        with tempfile.TemporaryDirectory(prefix="headrace-") as own:
            return _compiled(Path(own, name))
    with _locked(folder / f"{name}.lock"):
        return _read(folder / name) or _compiled(folder / name)


def _key(processor: str) -> str:
    key = hashlib.sha256(processor.encode())
    for file in sorted(Path(__file__).parent.rglob("*.py")):
        key.update(file.read_bytes())
    for package in ("numba", "llvmlite", "numpy"):
        try:
            key.update(version(package).encode())
        except PackageNotFoundError as error:
            raise KernelMissing(f"{package} is there, but not as an installed package") from error
    return key.hexdigest()[:16]


def _cache_folder() -> Path:
    """Return the folder, made if need be.

    Raises:
        OSError: if it cannot be written, or others may write into it.
    """
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    folder = Path(root, "headrace")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    found = folder.stat()
    if found.st_uid != os.getuid() or found.st_mode & 0o022:
        raise PermissionError(f"{folder} can be written by others; chmod go-w it")
    if not os.access(folder, os.W_OK):
        raise PermissionError(f"{folder} cannot be written")
    return folder


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Let one process compile while others wait for what it makes."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _read(path: Path) -> bytes | None:
    try:
        whole = path.read_bytes()
    except FileNotFoundError:
        return None
    digest, code = whole[:_HASH_BYTES], whole[_HASH_BYTES:]
    return code if hashlib.sha256(code).digest() == digest else None


def _compiled(path: Path) -> bytes:
    command = [sys.executable, "-m", "serving.runtimes.forest.build", str(path)]
    _log.info("compiling the forest kernel, once for this machine: %s", path)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["nothing said"]
        raise KernelMissing(f"compiling it failed: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise KernelMissing(f"compiling it took over {_COMPILE_SECONDS} s") from error
    code = _read(path)
    if code is None:
        raise KernelMissing(f"the compiler left no whole file at {path}")
    return code
