"""Registration, amendments, approvals, and the deviations that a report must name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from epc.runtime import journal, registration
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord

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
    assert (registration.needs_approval(toy.manifest, toy.root) is None) == enough
    change(toy)
    assert registration.needs_approval(toy.manifest, toy.root) is not None


def test_history_is_found_by_hash(tmp_path: Path) -> None:
    assert registration.history_path(tmp_path, "ab") == tmp_path / "history" / "ab.lock.yaml"
