"""Coverage-guided search for a spec that ends `epc check` with a traceback: see `make fuzz`.

    python -m tests.fuzz.fuzz_yaml CORPUS [libFuzzer options]

CORPUS is filled with the shipped specs first. An input that breaks something is written beside it.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["epc.compiler"]):
    from tests.support import fuzzing


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    for spec in (*fuzzing.ROOT.glob("specs/*.yaml"), *fuzzing.ROOT.glob("specs/recipes/*.yaml")):
        (corpus / spec.stem).write_bytes(spec.read_bytes())
    with tempfile.TemporaryDirectory() as folder:
        file = fuzzing.workspace(Path(folder))

        def one(content: bytes) -> None:
            file.write_bytes(content)
            fuzzing.check(file)

        atheris.Setup(sys.argv, one)
        atheris.Fuzz()


if __name__ == "__main__":
    main()
