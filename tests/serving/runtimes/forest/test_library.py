import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest

from serving.runtimes.forest import library
from serving.runtimes.forest.build import HEADER
from serving.runtimes.forest.library import KernelMissing
from serving.runtimes.forest.linking import LinkFailed, link


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "headrace"


@pytest.fixture
def compiler(monkeypatch):
    """Stands in for the compiler, which takes seconds; counts its runs."""
    runs = []

    def compiled(path):
        runs.append(path)
        code = b"machine code"
        digest = library.hashlib.sha256(code).digest()
        path.write_bytes(HEADER.pack(digest, 0) + code)
        return library._mapped(path)

    monkeypatch.setattr(library, "_compiled", compiled)
    return runs


def test_a_machine_compiles_once(cache, compiler):
    first, second = library._code("this one"), library._code("this one")
    assert len(compiler) == 1
    assert bytes(first[0]) == bytes(second[0]) == b"machine code"


def test_another_processor_compiles_for_itself(cache, compiler):
    library._code("this one")
    library._code("that one")
    assert len(set(compiler)) == 2


@pytest.mark.parametrize("broken", [b"", b"short", b"x" * 200])
def test_a_broken_file_is_compiled_again(broken, cache, compiler):
    library._code("this one")
    compiler[0].write_bytes(broken)
    assert bytes(library._code("this one")[0]) == b"machine code"
    assert len(compiler) == 2


def test_a_folder_that_others_may_write_into_is_not_used(cache, compiler, caplog):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    library._code("this one")
    assert compiler[0].parent != cache
    assert "can be written by others; chmod go-w it" in caplog.text


def test_without_numba_the_kernel_is_missing_by_name(monkeypatch):
    def version(package):
        raise importlib.metadata.PackageNotFoundError(package)

    monkeypatch.setattr(library, "version", version)
    with pytest.raises(KernelMissing, match="numba is not installed; pip install numba"):
        library._key("this one")


def test_a_compiler_that_fails_is_told_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(KernelMissing, match="compiling it failed: nothing said"):
        library._compiled(tmp_path / "kernel")


def test_a_process_that_predicts_imports_no_compiler(kernel):
    code = (
        "import sys\n"
        "from serving.runtimes.forest.library import load_kernel\n"
        "load_kernel()\n"
        "print(sorted({'numba', 'llvmlite'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout.strip() == "[]"


def test_only_object_files_of_this_machine_are_linked():
    with pytest.raises(LinkFailed, match="no ELF-64 file for x86-64"):
        link(b"\x7fELF\x01\x01" + bytes(100), "anything")


@pytest.fixture(scope="module")
def object_file():
    """An object file of two functions; the second calls the first, or one that is nowhere."""
    from llvmlite import binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()

    def make(called):
        module = llvm.parse_assembly(
            "define i32 @seven() noinline { ret i32 7 }\n"
            "declare i32 @nowhere()\n"
            "@table = constant [4 x i32] [i32 1, i32 2, i32 30, i32 4]\n"
            "define i32 @answer(i64 %i) {\n"
            f"  %a = call i32 @{called}()\n"
            "  %p = getelementptr [4 x i32], ptr @table, i64 0, i64 %i\n"
            "  %b = load i32, ptr %p\n"
            "  %c = add i32 %a, %b\n"
            "  ret i32 %c\n}\n"
        )
        machine = llvm.Target.from_default_triple().create_target_machine(reloc="static")
        return bytes(machine.emit_object(module))

    return make


def test_a_reference_to_something_outside_is_refused(object_file):
    with pytest.raises(LinkFailed, match="to nowhere"):
        link(object_file("nowhere"), "answer")


def test_the_kernel_runs_from_pages_that_nobody_can_write(kernel):
    maps = Path("/proc/self/maps").read_text().splitlines()
    modes = [line.split()[1] for line in maps if "/headrace/forest-" in line]
    assert modes
    assert all(mode.startswith("r-x") for mode in modes)
