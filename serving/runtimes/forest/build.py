"""Compile the kernel to machine code: ``python -m serving.runtimes.forest.build FILE``.

Run as a process of its own, so that neither a server nor a worker imports Numba, whose compiler
takes seconds, holds the interpreter while it runs and some 130 MB for ever after.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from llvmlite import binding as llvm

SYMBOL = "headrace_forest_predict"
_FROM_OUTSIDE = {"expf", "memset", "memcpy"}
"""What the machine code may ask of the process that loads it."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compile into the file named, behind its SHA-256; it appears whole or not at all."""
    (name,) = sys.argv[1:] if argv is None else argv
    path, code = Path(name), compiled()
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(hashlib.sha256(code).digest() + code)
    part.replace(path)
    return 0


def compiled() -> bytes:
    """Return the kernel as an ELF object for the processor of this machine.

    Raises:
        RuntimeError: if the code would need anything of Numba's when it runs.
    """
    from serving.runtimes.forest.compiled import kernel

    kernel.predict.compile(kernel.SIGNATURE)
    (made,) = kernel.predict.overloads.values()
    module = llvm.parse_assembly(made.library.get_llvm_str())
    module.get_function(made.fndesc.llvm_func_name).name = SYMBOL
    asked = {
        f.name for f in module.functions if f.is_declaration and not f.name.startswith("llvm.")
    }
    if not asked <= _FROM_OUTSIDE:
        raise RuntimeError(f"the kernel asks for {sorted(asked - _FROM_OUTSIDE)} from outside")
    return bytes(target_machine().emit_object(module))


def target_machine() -> llvm.TargetMachine:
    """The processor of this machine, with all that it can do."""
    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        codemodel="jitdefault",
        jit=True,
    )


if __name__ == "__main__":
    raise SystemExit(main())
