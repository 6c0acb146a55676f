"""Manifests that are missing, damaged, of a newer schema, or of something else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.manifest import MANIFEST_SCHEMA_VERSION
from epc.runtime.bundle import read_manifest, step_of, store
from epc.runtime.errors import Fault

NEWER = MANIFEST_SCHEMA_VERSION + 1
BAD: dict[str, tuple[bytes, str, str]] = {
    "truncated": (b'{"schema_version": 1,', "R0102", "not JSON"),
    "not text": (b"\xff\xfe", "R0102", "not UTF-8"),
    "a list": (b"[]", "R0102", "manifest: "),
    "empty": (b"", "R0102", "not JSON"),
    "newer": (json.dumps({"schema_version": NEWER}).encode(), "R0103", f"{NEWER} is newer"),
    "missing fields": (b'{"schema_version": 1}', "R0102", "epc: Field required"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_manifest_is_one_fault(tmp_path: Path, case: str) -> None:
    content, code, fact = BAD[case]
    (tmp_path / "manifest.json").write_bytes(content)
    with pytest.raises(Fault) as caught:
        read_manifest(tmp_path)
    assert caught.value.code == code
    assert fact in caught.value.fact
    assert "manifest.json" in caught.value.place


def test_no_bundle(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "nothing", tmp_path, tmp_path / "file"):
        with pytest.raises(Fault, match="no compiled bundle") as caught:
            read_manifest(folder)
        assert caught.value.code == "R0101"


def test_an_unknown_key_in_the_manifest_is_named(toy: Any) -> None:
    file = toy.root / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"sneaky": 1}))
    with pytest.raises(Fault, match="sneaky"):
        read_manifest(toy.root)


def test_a_manifest_is_read_back(toy: Any) -> None:
    manifest = read_manifest(toy.root)
    assert manifest == toy.manifest
    step = step_of(manifest, "train")
    assert store(toy.root, step) == toy.root / "store" / step.key
    with pytest.raises(KeyError):
        step_of(manifest, "nobody")
