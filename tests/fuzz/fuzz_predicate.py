"""Coverage-guided search for a predicate that the parser cannot read, refuse or write back: see `make fuzz`.

    python -m tests.fuzz.fuzz_predicate CORPUS [libFuzzer options]

CORPUS is filled with the gates and rules of the shipped specs first.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["epc.compiler"]):
    from tests.support import fuzzing


def one(content: bytes) -> None:
    fuzzing.predicate(content.decode("utf-8", "replace"))


def main() -> None:
    corpus = Path(sys.argv[1])
    corpus.mkdir(parents=True, exist_ok=True)
    shipped = "\n".join(spec.read_text(encoding="utf-8") for spec in fuzzing.ROOT.glob("specs/*.yaml"))
    for number, found in enumerate(re.findall(r"(?:require|when|if): ([^,}\n]+)", shipped)):
        (corpus / f"shipped{number}").write_text(found, encoding="utf-8")
    atheris.Setup(sys.argv, one)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
