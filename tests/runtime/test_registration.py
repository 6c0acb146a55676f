"""Registration, amendments, approvals, and the deviations that a report must name."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.manifest import Pending
from epc.runtime import journal, registration
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord, read_record

MARGIN = "gates.dead.when: headline.delta < 0.05 -> headline.delta < 0.02"


def result(toy: Any, **data: Any) -> None:
    """The journal entry that a finished sampling step leaves."""
    entry = {
        "step": "sample", "kind": "sample", "key": toy.key("sample"), "mode": "real",
        "lock_sha256": toy.manifest.lock_sha256,
    }  # fmt: skip
    journal.append(toy.root, "finished", **(entry | data))


def record(toy: Any, step_id: str, **versions: str) -> None:
    step = next(step for step in toy.manifest.steps if step.id == step_id)
    toy.store(step_id).mkdir(parents=True)
    finished = FinishRecord(
        id=step_id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, outputs={}, seconds=1.0,
        versions=versions, facts={},
    )  # fmt: skip
    (toy.store(step_id) / "finished.json").write_text(finished.model_dump_json())


def change(toy: Any, new: str = "0.02", old: str = "0.05") -> None:
    toy.lock = toy.lock.replace(old, new)
    toy.compile()


def found(toy: Any) -> list[str]:
    return [deviation.kind for deviation in registration.deviations(toy.root)]


# register ------------------------------------------------------------------------------------


def test_a_lock_is_registered_once_and_kept(toy: Any) -> None:
    assert registration.register(toy.root, toy.manifest)
    assert not registration.register(toy.root, toy.manifest)
    (entry,) = journal.read(toy.root)
    assert entry.event == "registered"
    assert entry.data["lock_sha256"] == toy.manifest.lock_sha256
    kept = registration.history_path(toy.root, toy.manifest.lock_sha256)
    assert kept.read_text() == toy.lock

    change(toy)
    assert registration.register(toy.root, toy.manifest)
    assert kept.read_text() == toy.lock.replace("0.02", "0.05")
    assert [entry.event for entry in journal.read(toy.root)] == ["registered", "registered"]


def edit(toy: Any) -> None:
    (toy.root / "spec.lock.yaml").write_text(toy.lock + "# a harmless remark\n")


def remove(toy: Any) -> None:
    (toy.root / "spec.lock.yaml").unlink()


def spoil(toy: Any) -> None:
    (toy.root / "spec.lock.yaml").write_bytes(b"\xff\xfe")


@pytest.mark.parametrize(("damage", "code"), [(edit, "R0752"), (remove, "R0751"), (spoil, "R0752")])
def test_a_lock_that_is_not_the_compiled_one_is_refused(toy: Any, damage: Callable[[Any], None], code: str) -> None:
    damage(toy)
    with pytest.raises(Fault) as caught:
        registration.register(toy.root, toy.manifest)
    assert caught.value.code == code
    assert not journal.path(toy.root).exists()


# changes -------------------------------------------------------------------------------------

CHANGES = {
    "nothing": ("{a: 1}", "{a: 1}", ()),
    "a remark": ("a: 1", "a: 1  # one", ()),
    "order of keys": ("{a: 1, b: 2}", "{b: 2, a: 1}", ()),
    "a value": (
        "{gates: {dead: {when: headline.delta < 0.05}}}", "{gates: {dead: {when: headline.delta < 0.02}}}", (MARGIN,)
    ),
    "a number": ("train: {rate: 0.001}", "train: {rate: 0.002}", ("train.rate: 0.001 -> 0.002",)),
    "a type": ("a: 1", "a: '1'", ('a: 1 -> "1"',)),
    "true is not 1": ("a: 1", "a: true", ("a: 1 -> true",)),
    "to nothing": ("a: {b: 1}", "a: null", ('a: {"b": 1} -> null',)),
    "added": ("{}", "{a: {b: [1, 2]}}", ('a: added {"b": [1, 2]}',)),
    "removed": ("{a: 1, b: x}", "{a: 1}", ("b: removed (was x)",)),
    "in a list": ("v: [{if: a, then: K}]", "v: [{if: a, then: S}]", ("v[0].then: K -> S",)),
    "inserted in front": ("v: [a, b, c]", "v: [x, a, b, c]", ("v[0]: added x",)),
    "removed in the middle": ("v: [a, b, c]", "v: [a, c]", ("v[1]: removed (was b)",)),
    "appended": ("seeds: [42]", "seeds: [42, 43]", ("seeds[1]: added 43",)),
    "of another kind": ("a: [1]", "a: {b: 1}", ('a: [1] -> {"b": 1}',)),
    "several": ("{a: 1, b: 2, c: 3}", "{a: 1, b: 3, d: 4}", ("b: 2 -> 3", "d: added 4", "c: removed (was 3)")),
    "a key beside its cause": (
        "{n: 1, arm: {key: 0123456789abcdef}}", "{n: 2, arm: {key: fedcba9876543210}}", ("n: 1 -> 2",)
    ),
    "a key alone": (
        "arm: {key: 0123456789abcdef}", "arm: {key: fedcba9876543210}", ("arm.key: 0123456789abcdef -> fedcba9876543210",)
    ),
    "an empty text": ("say: ''", "say: stop", ('say: "" -> stop',)),
}  # fmt: skip


@pytest.mark.parametrize("case", CHANGES)
def test_changes_are_told_by_path(case: str) -> None:
    old, new, expected = CHANGES[case]
    assert registration.changes(old, new) == expected


def test_long_values_are_shown_where_they_differ() -> None:
    same = "the same words again and " * 10
    (line,) = registration.changes(f"a: {same}one", f"a: {same}two")
    assert line == "a: ...ame words again and one -> ...ame words again and two"


def test_a_long_value_is_cut_and_kept_on_one_line() -> None:
    (line,) = registration.changes("a: x", "a: |\n  " + "long\n  " * 100)
    assert len(line) < 100
    assert "\n" not in line
    assert line.endswith("...")


# amend ---------------------------------------------------------------------------------------


def test_an_amendment_records_reason_and_changes(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    old = toy.manifest.lock_sha256
    change(toy)
    assert registration.amend(toy.root, toy.manifest, " the margin was a typo ") == (MARGIN,)
    entry = journal.read(toy.root)[-1]
    assert entry.event == "amended"
    assert entry.data == {
        "old": old, "new": toy.manifest.lock_sha256, "reason": "the margin was a typo", "changes": [MARGIN],
    }  # fmt: skip
    assert registration.history_path(toy.root, toy.manifest.lock_sha256).exists()


def test_an_amendment_may_follow_the_run_that_registered_the_change(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    change(toy)
    registration.register(toy.root, toy.manifest)
    assert registration.amend(toy.root, toy.manifest, "late") == (MARGIN,)


def unregistered(toy: Any) -> str:
    return "a reason"


def unchanged(toy: Any) -> str:
    registration.register(toy.root, toy.manifest)
    return "a reason"


def amended_twice(toy: Any) -> str:
    unchanged(toy)
    change(toy)
    registration.amend(toy.root, toy.manifest, "once")
    return "twice"


def without_reason(toy: Any) -> str:
    unchanged(toy)
    change(toy)
    return "  "


REFUSED = [(unregistered, "R0754"), (unchanged, "R0754"), (amended_twice, "R0754"), (without_reason, "R0753")]


@pytest.mark.parametrize(("arrange", "code"), REFUSED)
def test_what_is_no_amendment(toy: Any, arrange: Callable[[Any], str], code: str) -> None:
    reason = arrange(toy)
    before = journal.read(toy.root)
    with pytest.raises(Fault) as caught:
        registration.amend(toy.root, toy.manifest, reason)
    assert caught.value.code == code
    assert journal.read(toy.root) == before


# deviations ----------------------------------------------------------------------------------


def as_registered(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    result(toy)


def changed_before_results(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    change(toy)
    as_registered(toy)


def changed_after_results(toy: Any) -> None:
    as_registered(toy)
    change(toy)
    registration.register(toy.root, toy.manifest)


def changed_and_not_run(toy: Any) -> None:
    as_registered(toy)
    change(toy)


def changed_and_reverted(toy: Any) -> None:
    """Nothing was measured under the other lock."""
    as_registered(toy)
    change(toy)
    registration.register(toy.root, toy.manifest)
    change(toy, "0.05", "0.02")


def measured_and_reverted(toy: Any) -> None:
    as_registered(toy)
    change(toy)
    as_registered(toy)
    change(toy, "0.05", "0.02")


def amended(toy: Any) -> None:
    as_registered(toy)
    change(toy)
    registration.amend(toy.root, toy.manifest, "a typo")


def amended_in_two_steps(toy: Any) -> None:
    amended(toy)
    change(toy, "0.01", "0.02")
    registration.amend(toy.root, toy.manifest, "another typo")


def amended_then_changed(toy: Any) -> None:
    amended(toy)
    change(toy, "0.01", "0.02")


def data_only(toy: Any) -> None:
    """A finished data set is no result: it says nothing about the answer."""
    registration.register(toy.root, toy.manifest)
    result(toy, step="data", kind="data", key=toy.key("data"))
    change(toy)


def rehearsed(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    result(toy, mode="rehearsal")
    change(toy)


def measured_by_hand(toy: Any) -> None:
    result(toy)


def registered_too_late(toy: Any) -> None:
    result(toy)
    registration.register(toy.root, toy.manifest)


def journal_lost(toy: Any) -> None:
    record(toy, "sample")


def libraries_differ(toy: Any) -> None:
    as_registered(toy)
    record(toy, "data", python="3.11.7", torch="2.13.0")
    record(toy, "train", python="3.11.7", torch="2.11.0")
    record(toy, "sample", python="3.11.7")


DEVIATIONS: list[tuple[Callable[[Any], None], list[str]]] = [
    (lambda toy: None, []),
    (as_registered, []),
    (changed_before_results, []),
    (changed_after_results, ["spec_changed_after_results"]),
    (changed_and_not_run, ["spec_changed_after_results"]),
    (changed_and_reverted, []),
    (measured_and_reverted, ["spec_changed_after_results"]),
    (amended, ["amended"]),
    (amended_in_two_steps, ["amended"]),
    (amended_then_changed, ["spec_changed_after_results"]),
    (data_only, []),
    (rehearsed, []),
    (measured_by_hand, ["unregistered"]),
    (registered_too_late, ["unregistered"]),
    (journal_lost, ["unregistered"]),
    (libraries_differ, ["library_changed"]),
]


@pytest.mark.parametrize(("arrange", "expected"), DEVIATIONS)
def test_deviations(toy: Any, arrange: Callable[[Any], None], expected: list[str]) -> None:
    arrange(toy)
    assert found(toy) == expected


def test_a_deviation_says_what_changed_and_why(toy: Any) -> None:
    changed_after_results(toy)
    (deviation,) = registration.deviations(toy.root)
    assert deviation.changes == (MARGIN,)
    assert "(sample)" in deviation.text
    assert "no amendment says why" in deviation.text

    registration.amend(toy.root, toy.manifest, "a typo")
    (deviation,) = registration.deviations(toy.root)
    assert deviation.changes == (MARGIN,)
    assert deviation.text.endswith("a typo")


def test_reasons_of_several_amendments_are_all_told(toy: Any) -> None:
    amended_in_two_steps(toy)
    (deviation,) = registration.deviations(toy.root)
    assert deviation.text.endswith("a typo; another typo")
    assert deviation.changes == (MARGIN.replace("0.02", "0.01"),)


def test_a_library_is_named_with_its_versions_and_steps(toy: Any) -> None:
    libraries_differ(toy)
    (deviation,) = registration.deviations(toy.root)
    assert deviation.text == "torch changed between steps: 2.11.0 in train, 2.13.0 in data"


@pytest.mark.parametrize("content", [None, b"seeds: [2]\n", b"\xff"])
def test_a_lost_or_altered_history_is_said_not_hidden(toy: Any, content: bytes | None) -> None:
    registration.register(toy.root, toy.manifest)
    result(toy)
    kept = registration.history_path(toy.root, toy.manifest.lock_sha256)
    change(toy)
    kept.unlink() if content is None else kept.write_bytes(content)
    (deviation,) = registration.deviations(toy.root)
    assert deviation.changes == (f"history/{kept.name} is missing or altered: what changed is not known",)


# approve -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("figures", "budget", "reason"),
    [
        ({}, "", None),
        ({"usd": 0.0, "gpu_hours": 3.0}, "", None),
        ({"gpu_hours": 3.0}, "budget: {gpu_hours: 0, usd: 0}\n", None),
        ({"gpu_hours": 3.0}, "budget: {gpu_hours: 4, usd: 0}\n", None),
        ({"gpu_hours": 5.0}, "budget: {gpu_hours: 4, usd: 0}\n", "it takes about 5 GPU-hours, the budget is 4"),
        ({"usd": 0.5}, "", "it costs about 0.50 USD"),
        ({"usd": 2.0, "gpu_hours": 5.0}, "budget: {gpu_hours: 4}\n", "about 2.00 USD and it takes about 5 GPU-hours"),
    ],
)
def test_what_needs_an_approval(toy: Any, figures: dict[str, float], budget: str, reason: str | None) -> None:
    toy.figures, toy.lock = figures, toy.lock + budget
    toy.compile()
    said = registration.needs_approval(toy.manifest, toy.root)
    if reason is None:
        assert said is None
        return
    assert said is not None
    assert reason in said
    entry = registration.approve(toy.root, toy.manifest)
    allowed = {"gpu_hours": figures.get("gpu_hours", 0.0), "usd": figures.get("usd", 0.0)}
    assert entry.data == allowed | {"lock_sha256": toy.manifest.lock_sha256}
    assert registration.needs_approval(toy.manifest, toy.root) is None


@pytest.mark.parametrize(("amount", "enough"), [({"usd": 12.0}, False), ({"usd": 12.5}, True), ({"usd": 100.0}, True)])
def test_an_approval_covers_its_amount_and_its_lock(toy: Any, amount: dict[str, float], enough: bool) -> None:
    toy.figures = {"usd": 12.5}
    toy.compile()
    registration.approve(toy.root, toy.manifest, amount)
    needed = registration.needs_approval(toy.manifest, toy.root)
    assert needed == (None if enough else "it costs about 12.50 USD; approved are 12.00 USD and 0 GPU-hours")
    change(toy)
    assert registration.needs_approval(toy.manifest, toy.root) == "it costs about 12.50 USD"


def test_history_is_found_by_hash(tmp_path: Path) -> None:
    assert registration.history_path(tmp_path, "ab") == tmp_path / "history" / "ab.lock.yaml"


@pytest.mark.parametrize(
    ("figures", "expected"),
    [
        ({}, ()),
        (
            {"usd": 0.0, "gpu_hours": 0.0, "judge_calls": 0.0},
            ("dollars for judges, at most    0.00", "GPU-hours on one H100 or H200  0.00"),
        ),
        (
            {"completions": 24000.0, "judge_calls": 24000.0, "gpu_hours": 2.5, "usd": 133.204},
            (
                "completions                       24,000  6 arms x 4,000",
                "judge calls, retries not counted  24,000",
                "GPU-hours on one H100 or H200       2.50",
                "dollars for judges, at most       133.20  24,000 x $0.00555",
            ),
        ),
    ],
)
def test_the_cost_is_shown_with_its_arithmetic(toy: Any, figures: dict[str, float], expected: tuple[str, ...]) -> None:
    toy.figures = figures
    toy.arithmetic = {"completions": "6 arms x 4,000", "usd": "24,000 x $0.00555"} if figures.get("usd") else {}
    toy.compile()
    assert registration.cost_lines(toy.manifest) == expected


# freeze --------------------------------------------------------------------------------------

A, B, C = "a" * 64, "b" * 64, "c" * 64
WAITING = """\
gates: {dead: {when: headline.delta < 0.05}}
prompts:
  heldout: {external: {file: ext/p.txt, sha256: pending}, stand_in: s.txt, sha256: d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1d1}
  all: {union: [heldout, ours], sha256: d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2d2}
data:
  traces: {build: turns, sha256: pending}
  attack: {file: ext/d.jsonl, stand_in: s.jsonl, sha256: pending}
conditions: {base: {key: 0123456789abcdef}}
files: {s.txt: d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3d3, ours.txt: d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4d4}
"""
"""A lock that waits for a file of prompts, a file of rows and built rows."""
ALL_FROZEN = (
    WAITING.replace("p.txt, sha256: pending", f"p.txt, sha256: {A}").replace("turns, sha256: pending", f"turns, sha256: {B}")
    .replace("s.jsonl, sha256: pending", f"s.jsonl, sha256: {C}").replace("d1" * 32, "d5" * 32).replace("d2" * 32, "d6" * 32)
    .replace("0123456789abcdef", "fedcba9876543210").replace(f"s.txt: {'d3' * 32}", f"ext/p.txt: {A}")
)  # fmt: skip
BUILT = Pending(name="data.traces", kind="built", file="data")
PROMPTS = Pending(name="prompts.heldout", kind="external", file="ext/p.txt", source="a paper")

BEYOND: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "nothing": (WAITING, WAITING, ()),
    "all of it": (WAITING, ALL_FROZEN, ()),
    "one of it": (WAITING, WAITING.replace("turns, sha256: pending", f"turns, sha256: {B}"), ()),
    "a margin too": (WAITING, ALL_FROZEN.replace("0.05", "0.02"), (MARGIN,)),
    "no hash": (
        WAITING, WAITING.replace("turns, sha256: pending", "turns, sha256: none"),
        ("data.traces.sha256: pending -> none",),
    ),
    "back to pending": (
        ALL_FROZEN, ALL_FROZEN.replace(B, "pending"), (f"data.traces.sha256: {B} -> pending",)
    ),
    "another hash": (ALL_FROZEN, ALL_FROZEN.replace(B, C), (f"data.traces.sha256: {B} -> {C}",)),
    "other prompts without a freeze": (
        WAITING, WAITING.replace("d1" * 32, "d5" * 32), (f"prompts.heldout.sha256: {'d1' * 32} -> {'d5' * 32}",)
    ),
    "a file that was not awaited": (
        WAITING, ALL_FROZEN.replace("d4" * 32, "d5" * 32), (f"files.ours.txt: {'d4' * 32} -> {'d5' * 32}",)
    ),
    "the word somewhere else": ("id: pending", f"id: {A}", ("id: is no place for frozen content",)),
}  # fmt: skip


@pytest.mark.parametrize("case", BEYOND)
def test_what_freezing_does_not_explain(case: str) -> None:
    old, new, expected = BEYOND[case]
    assert registration.beyond_freezing(old, new) == expected


def frozen(toy: Any, new: str, **items: str) -> None:
    """The compiled lock frozen into `new`, which is then the compiled one."""
    registration.freeze(toy.root, toy.manifest, new, {name.replace("_", "."): value for name, value in items.items()})
    toy.lock, toy.pending = new, ()
    toy.compile()


def waiting(toy: Any, *pending: Pending) -> None:
    toy.lock, toy.pending = WAITING, pending
    toy.compile()


def test_freezing_links_two_locks_without_a_deviation(toy: Any) -> None:
    waiting(toy, BUILT)
    old = toy.manifest.lock_sha256
    frozen(toy, ALL_FROZEN, data_traces=B)
    entries = journal.read(toy.root)
    assert [entry.event for entry in entries] == ["registered", "frozen"]
    assert entries[0].data["pending"] == [BUILT.model_dump()]
    assert entries[1].data == {"old": old, "new": sha256_text(ALL_FROZEN), "items": {"data.traces": B}}
    assert registration.lock_of(entries[1]) == toy.manifest.lock_sha256
    result(toy)
    assert found(toy) == []


def test_an_amendment_and_a_freeze_make_one_chain(toy: Any) -> None:
    waiting(toy, BUILT)
    toy.lock = toy.lock.replace("p.txt, sha256: pending", f"p.txt, sha256: {A}").replace(
        "s.jsonl, sha256: pending", f"s.jsonl, sha256: {C}"
    )
    toy.compile()
    registration.register(toy.root, toy.manifest)
    result(toy)
    toy.lock = toy.lock.replace("0.05", "0.02")
    toy.compile()
    registration.amend(toy.root, toy.manifest, "a typo")
    frozen(toy, toy.lock.replace("turns, sha256: pending", f"turns, sha256: {B}"), data_traces=B)
    (deviation,) = registration.deviations(toy.root)
    assert deviation.kind == "amended"
    assert deviation.text.endswith(": a typo")
    assert deviation.changes == (MARGIN, f"data.traces.sha256: pending -> {B}")


def test_what_changes_the_design_is_not_frozen(toy: Any) -> None:
    waiting(toy, BUILT)
    with pytest.raises(Fault, match=r"headline.delta < 0.05 -> headline.delta < 0.02") as caught:
        frozen(toy, ALL_FROZEN.replace("0.05", "0.02"), data_traces=B)
    assert caught.value.code == "R0763"
    assert not journal.path(toy.root).exists()
    assert not (toy.root / "history").exists()


def forged(toy: Any) -> None:
    """A frozen entry written by another hand, over a change of the design."""
    new = ALL_FROZEN.replace("0.05", "0.02")
    journal.append(toy.root, "frozen", old=toy.manifest.lock_sha256, new=sha256_text(new), items={"data.traces": B})
    toy.lock, toy.pending = new, ()
    toy.compile()
    registration.register(toy.root, toy.manifest)


def history_lost(toy: Any) -> None:
    old = toy.manifest.lock_sha256
    frozen(toy, ALL_FROZEN, data_traces=B)
    registration.history_path(toy.root, old).unlink()


@pytest.mark.parametrize("arrange", [forged, history_lost])
def test_a_link_that_cannot_be_verified_covers_nothing(toy: Any, arrange: Callable[[Any], None]) -> None:
    waiting(toy, BUILT)
    toy.figures = {"usd": 5.0}
    toy.compile()
    registration.register(toy.root, toy.manifest)
    registration.approve(toy.root, toy.manifest)
    result(toy)
    arrange(toy)
    assert found(toy) == ["spec_changed_after_results"]
    assert registration.needs_approval(toy.manifest, toy.root) is not None


@pytest.mark.parametrize(("figures", "approved"), [({"usd": 5.0}, True), ({"usd": 4.0}, True), ({"usd": 6.0}, False)])
def test_an_approval_holds_through_a_freeze_unless_the_cost_grew(
    toy: Any, figures: dict[str, float], approved: bool
) -> None:
    toy.figures = {"usd": 5.0}
    waiting(toy, PROMPTS, BUILT)
    registration.approve(toy.root, toy.manifest)
    partly = ALL_FROZEN.replace(B, "pending").replace(C, "pending")
    frozen(toy, partly, prompts_heldout=A)
    toy.figures = figures
    frozen(toy, ALL_FROZEN, data_traces=B)
    assert (registration.needs_approval(toy.manifest, toy.root) is None) == approved


# the gate ------------------------------------------------------------------------------------


def gate(toy: Any) -> Any:
    records = {step.id: read_record(toy.root, step) for step in toy.manifest.steps}
    return registration.frozen_gate(toy.root, toy.manifest, records)


def rows(toy: Any, sha256: str, step_id: str = "data") -> None:
    """The data step as finished with rows of that hash."""
    step = next(step for step in toy.manifest.steps if step.id == step_id)
    toy.store(step_id).mkdir(parents=True, exist_ok=True)
    finished = FinishRecord(
        id=step_id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, outputs={"rows.jsonl": sha256},
        seconds=1.0, versions={}, facts={},
    )  # fmt: skip
    (toy.store(step_id) / "finished.json").write_text(finished.model_dump_json())


def started(toy: Any, step_id: str = "train") -> None:
    journal.append(toy.root, "started", step=step_id, key=toy.key(step_id))


def hand_written(toy: Any) -> None:
    """Registered as pending, then the hash written into the spec without a freeze."""
    registration.register(toy.root, toy.manifest)
    toy.lock, toy.pending = ALL_FROZEN, ()
    toy.compile()
    rows(toy, B)
    started(toy)


def in_time(toy: Any) -> None:
    rows(toy, B)
    started(toy, "data")
    started(toy, "other")
    frozen(toy, ALL_FROZEN, data_traces=B)
    started(toy)


def too_late(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    rows(toy, B)
    started(toy)
    frozen(toy, ALL_FROZEN, data_traces=B)
    started(toy)


def not_started(toy: Any) -> None:
    rows(toy, B)
    frozen(toy, ALL_FROZEN, data_traces=B)


def other_rows(toy: Any) -> None:
    not_started(toy)
    rows(toy, C)


def not_built(toy: Any) -> None:
    frozen(toy, ALL_FROZEN, data_traces=B)


def amended_away(toy: Any) -> None:
    """The data set is no longer part of the design."""
    registration.register(toy.root, toy.manifest)
    toy.pending = ()
    toy.recipes["rows"], toy.kinds["rows"], toy.needs["rows"] = toy.recipes.pop("data"), "data", ()
    toy.recipes["train"] = toy.recipes.pop("train")
    toy.needs["train"] = ("rows",)
    toy.recipes["sample"] = toy.recipes.pop("sample")
    toy.compile()


GATES: dict[str, tuple[Callable[[Any], None], bool | None, str]] = {
    "still pending": (lambda toy: None, False, "data.traces is still pending"),
    "frozen in time": (in_time, True, f"data.traces {B[:12]}"),
    "frozen after training started": (too_late, False, "data.traces was frozen after train had started"),
    "nothing trained yet": (not_started, True, f"data.traces {B[:12]}"),
    "trained on other rows": (other_rows, False, f"never frozen with the rows that were trained on ({C})"),
    "the hash written by hand": (hand_written, False, "data.traces was never frozen"),
    "the data step has not finished": (not_built, None, "data has not finished"),
    "no longer used": (amended_away, True, "no data set"),
}


@pytest.mark.parametrize("case", GATES)
def test_the_gate_on_built_rows(toy: Any, case: str) -> None:
    arrange, truth, detail = GATES[case]
    waiting(toy, BUILT)
    arrange(toy)
    evaluated = gate(toy)
    assert (evaluated.name, evaluated.role, evaluated.built_in) == ("epc.frozen", "validity", True)
    assert evaluated.truth is truth
    assert detail in evaluated.detail


def test_the_gate_on_external_files(toy: Any) -> None:
    toy.recipes = {"data-attack": {"rows": 2}, "train": {"r": 1}}
    toy.needs = {"data-attack": (), "train": ("data-attack",)}
    toy.kinds = {"data-attack": "data", "train": "train"}
    waiting(toy, PROMPTS, Pending(name="data.attack", kind="external", file="ext/d.jsonl"))
    assert gate(toy).truth is False
    assert gate(toy).detail == "prompts.heldout is still pending; data.attack is still pending"
    frozen(toy, ALL_FROZEN, prompts_heldout=A, data_attack=C)
    started(toy)
    rows(toy, C, "data-attack")
    assert gate(toy).truth is True
    rows(toy, B, "data-attack")
    assert gate(toy).truth is False


def test_there_is_no_gate_where_nothing_was_ever_pending(toy: Any) -> None:
    registration.register(toy.root, toy.manifest)
    started(toy)
    assert gate(toy) is None


# version control -----------------------------------------------------------------------------


class Repository:
    """A toy bundle in generated/ of a repository that holds its spec."""

    def __init__(self, root: Path, toy_class: Any) -> None:
        self.root = root
        (root / "specs").mkdir(parents=True)
        self.spec = root / "specs/toy.yaml"
        self.spec.write_text("id: toy\n")
        self.toy = toy_class(root / "generated/toy")
        self.compile()
        self.git("init", "-q")

    def compile(self) -> None:
        manifest = self.toy.compile()
        self.toy.manifest = manifest.model_copy(update={"spec_sha256": sha256_text(self.spec.read_text())})

    def git(self, *arguments: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        command = ["git", "-C", str(self.root), *who, *arguments]
        return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()

    def commit(self) -> str:
        self.git("add", "specs")
        self.git("commit", "-q", "-m", "spec")
        return self.git("rev-parse", "HEAD")

    def registered(self) -> registration.Commit | None:
        registration.register(self.toy.root, self.toy.manifest)
        return registration.commit_of(self.toy.root, self.toy.manifest)


@pytest.fixture
def repository(tmp_path: Path, toy: Any, monkeypatch: pytest.MonkeyPatch) -> Repository:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    return Repository(tmp_path / "repository", type(toy))


def clean(repository: Repository) -> None:
    """generated/ is not committed, and does not count."""


def spec_edited(repository: Repository) -> None:
    repository.spec.write_text("id: toy\nseeds: [2]\n")


def spec_compiled_before_its_commit(repository: Repository) -> None:
    spec_edited(repository)
    repository.compile()


def committed_after_compiling(repository: Repository) -> None:
    spec_edited(repository)
    repository.commit()


def prompts_added(repository: Repository) -> None:
    (repository.root / "specs/prompts.txt").write_text("a\n")


def spec_ignored(repository: Repository) -> None:
    repository.git("rm", "-q", "--cached", "specs/toy.yaml")
    (repository.root / ".git/info/exclude").write_text("toy.yaml\n")
    repository.git("commit", "-q", "-m", "gone")


@pytest.mark.parametrize(
    ("arrange", "dirty"),
    [
        (clean, False),
        (spec_edited, True),
        (spec_compiled_before_its_commit, True),
        (committed_after_compiling, True),
        (prompts_added, True),
        (spec_ignored, True),
    ],
)
def test_a_registration_names_the_commit(
    repository: Repository, arrange: Callable[[Repository], None], dirty: bool
) -> None:
    repository.commit()
    arrange(repository)
    head = repository.git("rev-parse", "HEAD")
    assert repository.registered() == registration.Commit(commit=head, dirty=dirty)
    (entry,) = journal.read(repository.toy.root)
    assert (entry.data["commit"], entry.data["dirty"]) == (head, dirty)


def no_commit(repository: Repository, patch: pytest.MonkeyPatch) -> None:
    pass


def no_git(repository: Repository, patch: pytest.MonkeyPatch) -> None:
    repository.commit()
    patch.setenv("PATH", str(repository.root))


def no_spec(repository: Repository, patch: pytest.MonkeyPatch) -> None:
    repository.commit()
    repository.spec.unlink()


def no_repository(repository: Repository, patch: pytest.MonkeyPatch) -> None:
    (repository.root / ".git").rename(repository.root / "git")


@pytest.mark.parametrize("arrange", [no_commit, no_git, no_spec, no_repository])
def test_without_version_control_nothing_is_claimed(
    repository: Repository, monkeypatch: pytest.MonkeyPatch, arrange: Callable[[Repository, pytest.MonkeyPatch], None]
) -> None:
    arrange(repository, monkeypatch)
    assert repository.registered() is None
    (entry,) = journal.read(repository.toy.root)
    assert {"commit", "dirty", "pending"}.isdisjoint(entry.data)
