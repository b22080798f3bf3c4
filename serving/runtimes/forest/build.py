"""Compile the kernel to machine code: ``python -m serving.runtimes.forest.build FILE``.

Run as a process of its own, so that neither a server nor a worker imports Numba, whose compiler
takes seconds, holds the interpreter while it runs and some 130 MB for ever after.
"""

import os
import struct
import sys
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from serving.runtimes.forest.linking import link

HEADER = struct.Struct("<32sQ24x")
"""What a file begins with: the SHA-256 of the code, and how far into it the kernel begins."""
_SYMBOL = "headrace_forest_predict"
_MEMSET = """
define ptr @memset(ptr %to, i32 %value, i64 %count) {
  %byte = trunc i32 %value to i8
  %none = icmp eq i64 %count, 0
  br i1 %none, label %done, label %loop
loop:
  %i = phi i64 [ 0, %0 ], [ %next, %loop ]
  %at = getelementptr i8, ptr %to, i64 %i
  store volatile i8 %byte, ptr %at
  %next = add i64 %i, 1
  %more = icmp ult i64 %next, %count
  br i1 %more, label %loop, label %done
done:
  ret ptr %to
}
"""
"""The compiler makes a call of a loop that clears memory; the code has no C library to call."""


def main(argv: Sequence[str] | None = None) -> int:
    """Compile into the file named; it appears whole or not at all."""
    (name,) = sys.argv[1:] if argv is None else argv
    code, entry = link(object_file(), _SYMBOL)
    path = Path(name)
    part = path.with_suffix(f".{os.getpid()}")
    part.write_bytes(HEADER.pack(sha256(code).digest(), entry) + code)
    part.replace(path)
    return 0


def object_file() -> bytes:
    """Return the kernel as an ELF object for the processor of this machine."""
    from llvmlite import binding as llvm

    from serving.runtimes.forest.compiled import kernel

    kernel.predict.compile(kernel.SIGNATURE)
    (made,) = kernel.predict.overloads.values()
    module = llvm.parse_assembly(made.library.get_llvm_str())
    module.get_function(made.fndesc.llvm_func_name).name = _SYMBOL
    module.link_in(llvm.parse_assembly(_MEMSET))
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(),
        features=llvm.get_host_cpu_features().flatten(),
        opt=3,
        reloc="pic",
        codemodel="small",
    )
    return bytes(machine.emit_object(module))


if __name__ == "__main__":
    raise SystemExit(main())
