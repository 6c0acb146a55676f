"""generated/reflex_gpu, an experiment run on a GPU and packed: everything but the weights is there to be recomputed."""

from __future__ import annotations

import gzip
import json
import shutil
from collections.abc import Callable
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from epc.compiler.contract.canonical import sha256_file
from epc.compiler.predicate import parse
from epc.runtime import engine, journal, kept, packing, verify
from epc.runtime.bundle import piece, read_manifest
from epc.runtime.cli import main
from epc.runtime.decide import decide
from epc.runtime.errors import Fault
from epc.runtime.status import status
from epc.runtime.step import read_record
from epc.runtime.validity import outputs_intact

ROOT = Path(__file__).parents[1]
PUBLISHED = ROOT / "generated" / "reflex_gpu"
MANIFEST = read_manifest(PUBLISHED)
STEPS = {step.id: step for step in MANIFEST.steps}
MEASURED = f"store/{STEPS['measure'].key}/measurements.jsonl.gz"
PIECE = f"store/pieces/{STEPS['sample'].pieces[0].key}.jsonl.gz"
ADAPTER = f"store/{STEPS['train-s101-attack'].key}/adapter/adapter_model.safetensors"
COMPILED = verify.Compiled(
    files=None, because="not asked for here", parse=lambda text: parse(text, allow_names=False).predicate
)


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    (tmp_path / "specs").mkdir()
    return Path(shutil.copytree(PUBLISHED, tmp_path / "generated" / "reflex_gpu"))


def test_deciding_again_gives_the_same_bytes(copy: Path) -> None:
    (copy / "report" / "decision.json").unlink()
    assert main(["decide", str(copy), "--exit-code"]) == 0
    for name in ("decision.json", "report.md", "report.html"):
        assert (copy / "report" / name).read_bytes() == (PUBLISHED / "report" / name).read_bytes()


def test_it_is_small_and_names_no_machine() -> None:
    files = [file for file in PUBLISHED.rglob("*") if file.is_file() and "logs" not in file.parts]
    assert sum(file.stat().st_size for file in files) < 5_000_000
    for file in files:
        content = gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes()
        assert not [word for word in (b"/tmp/", b"/root/", b"/home/", b"/dev/shm") if word in content], file


def test_what_is_not_there_is_said_and_everything_else_recomputed(copy: Path) -> None:
    checks = {check.name: check for check in verify.verify(copy, COMPILED)}
    assert not [check.name for check in checks.values() if check.differences]
    assert "not checked: 66 files of model and adapters" in checks["outputs and completions"].looked_at
    assert "5376 rows made again" in checks["measurement rows"].looked_at
    assert {entry.state for entry in engine.plan(copy)} == {"done"}
    assert status(copy).plain.count("its weights are not in this copy") == 16


def unlisted(copy: Path) -> None:
    packed = json.loads((copy / "packed.json").read_text())
    del packed["left_out"][ADAPTER]
    (copy / "packed.json").write_text(json.dumps(packed))


def other_hash(copy: Path) -> None:
    packed = json.loads((copy / "packed.json").read_text())
    packed["left_out"][ADAPTER] = "0" * 64
    (copy / "packed.json").write_text(json.dumps(packed))


def listed_rows(copy: Path) -> None:
    """A forger's: rows cannot be left out."""
    packed = json.loads((copy / "packed.json").read_text())
    key = STEPS["capability"].key
    packed["left_out"][f"store/{key}/results.json"] = sha256_file(copy / "store" / key / "results.json")
    (copy / "store" / key / "results.json").unlink()
    (copy / "packed.json").write_text(json.dumps(packed))


def altered_row(copy: Path) -> None:
    text = gzip.decompress((copy / MEASURED).read_bytes())
    (copy / MEASURED).write_bytes(
        gzip.compress(text.replace(b'"total":0,', b'"total":1,', 1).replace(b'"value":0.0', b'"value":0.02', 1))
    )


def altered_weights(copy: Path) -> None:
    (copy / ADAPTER).parent.mkdir()
    (copy / ADAPTER).write_bytes(b"other weights")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda copy: None, "63 files hashed; 66 files of model and adapters left out of this copy when it was packed"),
        (lambda copy: (copy / PIECE).unlink(), "(missing)"),
        (lambda copy: (copy / PIECE).write_bytes((copy / PIECE).read_bytes()[:-20]), "(the gzipped file is cut off or altered)"),
        (altered_row, "measure/measurements.jsonl (altered)"),
        (altered_weights, "train-s101-attack/adapter/adapter_model.safetensors (altered)"),
        (unlisted, "train-s101-attack/adapter/adapter_model.safetensors (missing)"),
        (other_hash, "train-s101-attack/adapter/adapter_model.safetensors (missing)"),
        (listed_rows, "capability/results.json (missing)"),
    ],
)  # fmt: skip
def test_damage_is_told_from_what_was_left_out(copy: Path, damage: Callable[[Path], object], said: str) -> None:
    damage(copy)
    gate = outputs_intact(copy, MANIFEST, {step.id: read_record(copy, step) for step in MANIFEST.steps})
    assert said in gate.detail
    assert gate.truth is said.startswith("63 files")


def test_verify_names_every_damage(copy: Path) -> None:
    (copy / PIECE).write_bytes((copy / PIECE).read_bytes()[:-20])
    unlisted(copy)
    (copy / "steps" / "sample.py").write_text("pass\n")
    found = {check.name: [fault.fact for fault in check.differences] for check in verify.verify(copy, COMPILED)}
    assert found["journal"] == ["this is not the list of left out files that the journal says was packed"]
    assert found["manifest"] == ["this compiled file is not the one that was packed"]
    assert [fact.rpartition("/")[2] for fact in found["outputs and completions"]] == [
        "adapter_model.safetensors is missing",
        "base-s0-first_answer cannot be read: the gzipped file is cut off or altered",
    ]
    assert "cannot be read" in found["measurement rows"][0]
    assert any("INVALID" in fact for fact in found["decision"])


def test_a_step_that_would_need_the_weights_is_refused(copy: Path) -> None:
    shutil.rmtree(copy / "store" / STEPS["capability"].key)
    with pytest.raises(Fault) as refused:
        engine.run(copy, console=Console(file=StringIO()))
    assert refused.value.code == "R0713"
    assert "whose weights are not in this copy" in refused.value.fact


def weights(bundle: Path, content: bytes) -> None:
    """Make the adapter of one training be there, as it would be where it was trained."""
    step = STEPS["train-s101-attack"]
    record = read_record(bundle, step)
    assert record is not None
    (bundle / ADAPTER).parent.mkdir()
    (bundle / ADAPTER).write_bytes(b"weights")
    record.outputs["adapter/adapter_model.safetensors"] = sha256_file(bundle / ADAPTER)
    (bundle / "store" / step.key / "finished.json").write_text(record.model_dump_json(indent=1))
    (bundle / ADAPTER).write_bytes(content)


def test_packing_leaves_weights_out_and_keeps_every_other_byte(copy: Path, tmp_path: Path) -> None:
    weights(copy, b"weights")
    kept.gzipped(piece(copy, STEPS["sample"].pieces[0].key)).rename(tmp_path / "piece.gz")
    piece(copy, STEPS["sample"].pieces[0].key).write_bytes(gzip.decompress((tmp_path / "piece.gz").read_bytes()))
    out = tmp_path / "generated" / "again"
    packed = packing.pack(copy, out)
    assert len(packed.left_out) == 66
    assert packed.left_out[ADAPTER] == sha256_file(copy / ADAPTER)
    assert not (out / ADAPTER).exists()
    assert gzip.decompress((out / PIECE).read_bytes()) == gzip.decompress((PUBLISHED / PIECE).read_bytes())
    assert [entry.event for entry in journal.read(out)][-1] == "packed"
    assert decide(out).verdict == decide(copy).verdict


@pytest.mark.parametrize(
    ("damage", "code"),
    [
        (lambda copy: weights(copy, b"altered"), "R0716"),
        (altered_row, "R0716"),
        (lambda copy: (copy / PIECE).unlink(), "R0716"),
        (lambda copy: (copy / "packed.json").write_text("{"), "R0712"),
        (unlisted, "R0716"),
        (lambda copy: shutil.rmtree(copy / "store" / STEPS["measure"].key), "R0715"),
        (lambda copy: (copy.parent / "again").write_text("in the way"), "R0714"),
    ],
)  # fmt: skip
def test_only_whole_results_are_packed(copy: Path, damage: Callable[[Path], object], code: str) -> None:
    damage(copy)
    with pytest.raises(Fault) as refused:
        packing.pack(copy, copy.parent / "again")
    assert refused.value.code == code
