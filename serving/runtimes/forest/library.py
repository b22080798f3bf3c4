"""The kernel's machine code: found in the cache of this machine, or compiled there once.

The cache is ``$XDG_CACHE_HOME/headrace``, by default ``~/.cache/headrace``. A file is named after
all that it was made from (the sources, the compiler's versions, the processor), so nothing stale is
ever loaded, and holds its own SHA-256, so nothing broken is. It is code that this process will run:
a folder that others may write into is not used. All processes of a machine share the same pages of
it, and none of them needs the compiler.
"""

import contextlib
import ctypes
import fcntl
import functools
import hashlib
import logging
import mmap
import os
import platform
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from serving.errors import ServingError
from serving.runtimes.forest.build import HEADER

_log = logging.getLogger(__name__)
_COMPILE_SECONDS = 300
_MADE_FROM = ("build.py", "linking.py", "model.py", "records.py")  # and all of compiled/
_loading = threading.Lock()

may_compile = True
"""Whether this process compiles the kernel where it is not in the cache. One that tries a model
and ends at once sets this to False."""

Kernel = Callable[[int], None]
"""Runs the job at an address; others run Python meanwhile."""


class KernelMissing(ServingError):
    """The kernel cannot be had on this machine; XGBoost's predictor answers in its place."""


def load_kernel() -> Kernel:
    """Return the kernel, compiled for this machine before if need be (some ten seconds, once).

    Raises:
        KernelMissing: if Numba is not installed, the processor has no AVX2, or compiling failed.
    """
    with _loading:
        return _kernel()


@functools.cache
def exponential() -> int:
    """The address of the C library's ``expf``, which XGBoost's transforms call too."""
    address = ctypes.cast(ctypes.CDLL("libm.so.6").expf, ctypes.c_void_p).value
    assert address is not None
    return address


@functools.cache
def _kernel() -> Kernel:
    code, entry = _code(_processor())
    # Numba's convention: where the result goes, where an error goes, the arguments; 0 is done.
    run = ctypes.CFUNCTYPE(ctypes.c_int, *[ctypes.c_void_p] * 2, ctypes.c_int64)(
        code.ctypes.data + entry
    )
    result, error = ctypes.c_void_p(), ctypes.c_void_p()
    result_at, error_at = ctypes.addressof(result), ctypes.addressof(error)

    def kernel(job: int, _alive: object = (code, result, error)) -> None:
        status = run(result_at, error_at, job)
        assert status == 0, f"the kernel never fails, but said {status}"

    return kernel


def _processor() -> str:
    """What the kernel is compiled for.

    Raises:
        KernelMissing: if it is no Linux on x86-64 with AVX2.
    """
    if sys.platform != "linux" or platform.machine() != "x86_64":
        raise KernelMissing(f"it is for Linux on x86-64, not {sys.platform} {platform.machine()}")
    told = Path("/proc/cpuinfo").read_text().split("\n\n", 1)[0].splitlines()
    facts = dict(line.replace("\t", "").split(": ", 1) for line in told if ": " in line)
    flags = facts.get("flags", "").split()
    if "avx2" not in flags:
        raise KernelMissing(f"the processor ({facts.get('model name')}) has no AVX2")
    names = ("vendor_id", "cpu family", "model", "stepping")
    return " ".join([*(facts.get(name, "") for name in names), *sorted(flags)])


def _code(processor: str) -> tuple[np.ndarray, int]:
    """Return the machine code as mapped memory that may run, and where in it the kernel begins."""
    name = f"forest-{_key(processor)}"
    try:
        folder = _cache_folder()
    except OSError as error:
        _log.warning("the forest kernel is compiled for this process alone: %s", error)
        with tempfile.TemporaryDirectory(prefix="headrace-") as own:
            return _compiled(Path(own, name))
    with _locked(folder / f"{name}.lock"):
        return _mapped(folder / name) or _compiled(folder / name)


def _key(processor: str) -> str:
    key = hashlib.sha256(processor.encode())
    here = Path(__file__).parent
    for file in [*(here / name for name in _MADE_FROM), *sorted(here.glob("compiled/*.py"))]:
        key.update(file.read_bytes())
    for package in ("numba", "llvmlite", "numpy"):
        try:
            key.update(version(package).encode())
        except PackageNotFoundError as error:
            raise KernelMissing(f"{package} is not installed; pip install {package}") from error
    return key.hexdigest()[:16]


def _cache_folder() -> Path:
    """Return the folder, made if need be.

    Raises:
        OSError: if it cannot be written, or others may write into it.
    """
    try:
        root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    except RuntimeError as error:  # a user that the system does not know
        raise FileNotFoundError(f"neither XDG_CACHE_HOME nor HOME is set: {error}") from error
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


def _mapped(path: Path) -> tuple[np.ndarray, int] | None:
    """Map a file into memory; None if it is not there or not whole."""
    try:
        with path.open("rb") as file:
            pages = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ | mmap.PROT_EXEC)
    except (FileNotFoundError, ValueError):  # of an empty file
        return None
    except PermissionError as error:
        raise KernelMissing(f"{path} may not run: {error}; is its file system noexec?") from error
    if len(pages) < HEADER.size:
        return None
    digest, entry = HEADER.unpack_from(pages)
    code = np.frombuffer(pages, np.uint8)[HEADER.size :]
    whole = hashlib.sha256(code.tobytes()).digest() == digest
    return (code, entry) if whole else None


def _compiled(path: Path) -> tuple[np.ndarray, int]:
    if not may_compile:
        raise KernelMissing("it is not in the cache, and this process may not compile it")
    command = [sys.executable, "-m", "serving.runtimes.forest.build", str(path)]
    _log.info("compiling the forest kernel, once for this machine: %s", path)
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=_COMPILE_SECONDS)
    except subprocess.CalledProcessError as error:
        said = error.stderr.decode(errors="replace").strip().splitlines() or ["nothing said"]
        raise KernelMissing(f"compiling it failed: {said[-1]}") from error
    except subprocess.TimeoutExpired as error:
        raise KernelMissing(f"compiling it took over {_COMPILE_SECONDS} s") from error
    mapped = _mapped(path)
    if mapped is None:
        raise KernelMissing(f"the compiler left no whole file at {path}")
    return mapped
