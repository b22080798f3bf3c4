"""How a pointer is moved without compare-and-swap: read, change, write."""

import json
import sys
from pathlib import Path


def move(path: Path, mover: str, moves: int) -> None:
    for number in range(moves):
        history = json.loads(path.read_text()) if path.exists() else []
        history.append([mover, number])
        temporary = path.with_suffix(f".{mover}")
        temporary.write_text(json.dumps(history))
        temporary.replace(path)


if __name__ == "__main__":
    move(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
