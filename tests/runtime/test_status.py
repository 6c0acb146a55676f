"""`epc status`: what it says at each stage of a bundle's life."""

from __future__ import annotations

from io import StringIO
from typing import Any

from rich.console import Console

from epc.compiler.contract.manifest import Interim, Pending
from epc.runtime import journal, locking, progress, registration
from epc.runtime.status import status
from epc.runtime.step import FinishRecord


def finish(toy: Any, step_id: str, seconds: float) -> None:
    step = next(step for step in toy.manifest.steps if step.id == step_id)
    toy.store(step_id).mkdir(parents=True)
    record = FinishRecord(
        id=step_id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, outputs={}, seconds=seconds,
        versions={}, facts={},
    )  # fmt: skip
    (toy.store(step_id) / "out.txt").write_text("")
    (toy.store(step_id) / "finished.json").write_text(record.model_dump_json())
    journal.append(
        toy.root, "finished", step=step_id, kind=step.kind, key=step.key, seconds=seconds, mode="real",
        lock_sha256=toy.manifest.lock_sha256,
    )  # fmt: skip


def lines(toy: Any) -> list[str]:
    """As printed on a console much narrower than the lines."""
    console = Console(file=StringIO(), width=20)
    console.print(status(toy.root), soft_wrap=True)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue().splitlines()


def test_a_bundle_that_was_only_compiled(toy: Any) -> None:
    assert lines(toy) == [
        "toy: toy",
        f"lock        {toy.manifest.lock_sha256}",
        "registered  not yet: epc run registers it",
        "",
        "run         data    never run",
        "waits       train   needs data, which must run",
        "run         other   never run",
        "waits       sample  needs train, other, which must run",
        "0 of 4 steps are finished, 0.0 s of work",
    ]
    assert not journal.path(toy.root).exists()


def test_finished_running_failed_and_interrupted_steps(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    finish(toy, "data", 12.3)
    partial = toy.root / "store" / f"{toy.key('train')}.partial"
    partial.mkdir()
    journal.append(toy.root, "started", step="train", key=toy.key("train"))
    held = locking.acquire(partial / ".lock")
    (toy.root / "logs").mkdir()
    progress.progress_path(toy.root, "train").write_text('{"done": 3, "total": 16, "facts": {"loss": 1.5}}')
    journal.append(toy.root, "failed", step="other", key=toy.key("other"), error="R0204: no space")
    said = lines(toy)
    at = [entry.at for entry in journal.read(toy.root)]
    assert f"registered  {at[0]}" in said
    assert "finished    data    12.3 s" in said
    assert f"running     train   since {at[2]}  3/16  loss 1.5" in said
    assert f"failed      other   see {toy.root / 'logs/other.log'}" in said
    assert "waits       sample  needs train, other, which must run" in said
    assert said[-1] == "1 of 4 steps are finished, 12.3 s of work"

    locking.release(held)
    journal.append(toy.root, "failed", step="train", key=toy.key("train"), error="interrupted")
    assert "run         train   begun, not finished" in lines(toy)


def test_amendments_approvals_deviations_and_the_verdict(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    finish(toy, "sample", 1.0)
    toy.lock = toy.lock.replace("0.05", "0.02")
    toy.compile()
    change = "            gates.dead.when: headline.delta < 0.05 -> headline.delta < 0.02"
    said = lines(toy)
    assert any(line.startswith("deviation   the spec changed after results existed") for line in said)
    assert change in said

    registration.amend(toy.root, toy.manifest, "a typo")
    amended = journal.read(toy.root)[-1]
    assert f"registered  {amended.at}" in lines(toy)
    registration.register(toy.root, toy.manifest)
    registration.approve(toy.root, toy.manifest, {"usd": 3.0})
    journal.append(toy.root, "decided", verdict="KILL", lock_sha256=toy.manifest.lock_sha256)
    said = lines(toy)
    assert any(line.startswith("amended     ") and line.endswith("  a typo") for line in said)
    assert said.count(change) == 1
    assert any(line.startswith("deviation   amended after results existed") for line in said)
    assert any(line.endswith("up to 3.00 USD, 0 GPU-hours") for line in said)
    assert said[-1].startswith("verdict     KILL  decided ")
    assert "earlier lock" not in said[-1]

    toy.lock = toy.lock.replace("0.02", "0.01")
    toy.compile()
    assert lines(toy)[-1].endswith("(of an earlier lock)")


def test_a_damaged_record_is_a_line_not_an_error(toy: Any) -> None:
    finish(toy, "data", 1.0)
    (toy.store("data") / "finished.json").write_text("{")
    said = lines(toy)
    assert "run         data    finish record unreadable" in said
    assert any(line.startswith("deviations  not known: the finish record of step data") for line in said)


def test_what_is_pending_frozen_and_to_be_approved(toy: Any) -> None:
    toy.lock = "data: {traces: {sha256: pending}}\n"
    toy.figures = {"usd": 5.0}
    toy.pending = (
        Pending(name="prompts.heldout", kind="external", file="ext/p.txt", source="a paper"),
        Pending(name="data.traces", kind="built", file="data"),
    )
    toy.compile()
    said = lines(toy)
    assert said[3:6] == [
        "approval    needed: it costs about 5.00 USD; epc approve",
        "pending     prompts.heldout: ext/p.txt, relative to specs/toy.yaml (put it there; from a paper)",
        "pending     data.traces: the rows of data",
    ]
    registration.approve(toy.root, toy.manifest)
    new = toy.lock.replace("pending", "a" * 64)
    registration.freeze(toy.root, toy.manifest, new, {"data.traces": "a" * 64})
    toy.lock, toy.pending = new, ()
    toy.compile()
    approved, _, frozen = journal.read(toy.root)
    assert lines(toy)[2:5] == [
        f"registered  {frozen.at}",
        f"approved    {approved.at}  up to 5.00 USD, 0 GPU-hours",
        f"frozen      {frozen.at}  data.traces  {'a' * 64}",
    ]


def test_the_commit_of_the_registration(toy: Any) -> None:
    journal.append(toy.root, "registered", lock_sha256=toy.manifest.lock_sha256, commit="c" * 40, dirty=True)
    assert lines(toy)[3] == f"commit      {'c' * 40}  (with changes that are not committed)"


def test_planned_looks_and_those_that_the_journal_holds(toy: Any) -> None:
    looks = Interim(looks=(0.5, 0.75, 1.0), spending="obrien_fleming", levels=(0.00152532, 0.00916, 0.022))
    design = toy.manifest.design.model_copy(update={"interim": looks})
    toy.manifest = toy.manifest.model_copy(update={"design": design})
    (toy.root / "manifest.json").write_text(toy.manifest.model_dump_json())
    lock = toy.manifest.lock_sha256
    assert [line for line in lines(toy) if line.startswith("look")] == [
        "look        1 of 3  at 0.5 of the units  p below 0.00152532  not taken",
        "look        2 of 3  at 0.75 of the units  p below 0.00916  not taken",
        "look        3 of 3  at 1 of the units  p below 0.022  is the decision",
    ]
    for look in (2, 1, 1):
        journal.append(toy.root, "looked", lock_sha256=lock, rows_sha256="0" * 64, open_steps=3, look=look, units="u")
    journal.append(toy.root, "looked", lock_sha256="f" * 64, rows_sha256="0" * 64, open_steps=3, look=3, units="u")
    second, first, again, earlier = (entry.at for entry in journal.read(toy.root))
    assert [line for line in lines(toy) if line.startswith("look")] == [
        f"look        1 of 3  at 0.5 of the units  p below 0.00152532  taken {first}",
        f"look        2 of 3  at 0.75 of the units  p below 0.00916  taken {second}",
        "look        3 of 3  at 1 of the units  p below 0.022  is the decision",
        f"looked      {again}  look 1 again",
        f"looked      {earlier}  of an earlier lock",
    ]


def test_looks_without_a_plan(toy: Any) -> None:
    lock = toy.manifest.lock_sha256
    assert not [line for line in lines(toy) if line.startswith("look")]
    journal.append(toy.root, "looked", lock_sha256=lock, rows_sha256="0" * 64, open_steps=3)
    journal.append(toy.root, "looked", lock_sha256=lock, rows_sha256="0" * 64, open_steps=1)
    first, second = (entry.at for entry in journal.read(toy.root))
    said = lines(toy)
    assert said[-2:] == [f"looked      {first}  3 steps open", f"looked      {second}  1 step open"]
