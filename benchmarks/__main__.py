"""List the benchmarks."""

import ast
from pathlib import Path


def benchmarks() -> dict[str, str]:
    """The name of each benchmark and the first line of its docstring, without importing it."""
    files = sorted(Path(__file__).parent.glob("[a-z]*.py"))
    docs = {file.stem: ast.get_docstring(ast.parse(file.read_text())) or "" for file in files}
    return {name: doc.splitlines()[0] for name, doc in docs.items() if name != "harness"}


if __name__ == "__main__":
    for name, purpose in benchmarks().items():
        print(f"python -m benchmarks.{name:<12} {purpose}")
