"""Everything in which two registrations differ, each difference at its path and under its rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Final

from epc.compiler.comparison import by_hash, gates, recipes
from epc.compiler.comparison.collector import FILES, Collector, Difference, Kind, both
from epc.compiler.comparison.content import entry, phases
from epc.compiler.comparison.pairs import Pair, Pairs
from epc.compiler.comparison.registration import STATED, Registration
from epc.compiler.comparison.rules import Path
from epc.compiler.comparison.values import ABSENT, arrow, spaced

_ONLY: Final = "nothing that both have differs"
_IDLE: Final = "only what decides nothing was changed"
_LEFT_OUT: Final = "something measured before is not measured any more"
_FIELD: Final = {
    "data": "rows", "train": "method", "generate": "prompts", "prompts": "sha256", "sample": "prompts", "judges": "model",
    "metrics": "of", "analyses": "metric", "gates": "predicate", "conditions": "phases",
}  # fmt: skip
"""The field of each section by which an entry that only one side has is put into its group."""
_PART: Final = {"model": "from", "verdicts": "if"}
"""The same for parts of another form."""


@dataclass(frozen=True, kw_only=True)
class Differences:
    found: tuple[Difference, ...]
    unplaced: tuple[str, ...]
    """Paths that differ and that the language does not know: a lock of another version."""
    pairs: Pairs


def differences(old: Registration, new: Registration) -> Differences:
    """All differences, in the order of the lock."""
    collector = Collector(old, new)
    _unstated(collector)
    for key in both(old.design, new.design):
        match key:
            case _ if key in old.unstated | new.unstated:
                continue
            case "seeds":
                _seeds(collector)
            case "model":
                _model(collector)
            case "conditions":
                _conditions(collector)
            case "train" | "data" | "generate" | "prompts" | "sample" | "judges" | "metrics" | "analyses":
                _section(collector, key)
            case "gates":
                _gates(collector)
            case "verdicts":
                _verdicts(collector)
            case "files":
                _files(collector)
            case _:
                collector.value((key,), old.design.get(key, ABSENT), new.design.get(key, ABSENT))
    return Differences(found=tuple(collector.found), unplaced=tuple(collector.unplaced), pairs=collector.pairs)


def _unstated(collector: Collector) -> None:
    """Whole parts that one side states and the other, written by hand, does not."""
    for key in STATED:
        silent = [side for side in (collector.old, collector.new) if key in side.unstated]
        stating = [side for side in (collector.old, collector.new) if key not in side.unstated]
        if len(silent) == 1 and stating[0].design[key]:
            where: Path = (key, "*", _FIELD[key]) if key in _FIELD else (key, _PART[key]) if key in _PART else (key,)
            collector.unknown(where, f"not stated in {silent[0].name}", path=key)


def _seeds(collector: Collector) -> None:
    old, new = (sorted(side.design["seeds"]) for side in (collector.old, collector.new))
    if old == new:
        return
    lacking = [seed for seed in old if seed not in new]
    if lacking:
        collector.add(("seeds",), f"{old} -> {new}; {', '.join(map(str, lacking))} only before")
    else:
        collector.add(
            ("seeds",), f"{old} -> {new}", status="PASS", reason="every seed of the earlier one is among them"
        )


def _model(collector: Collector) -> None:
    """The name of a chat template matters only where a side does not have its hash."""
    old, new = collector.old.design["model"], collector.new.design["model"]
    hashes = old.get("chat_template_sha256"), new.get("chat_template_sha256")
    for key in both(old, new):
        before, after = old.get(key, ABSENT), new.get(key, ABSENT)
        match key:
            case "chat_template_sha256":
                if None not in hashes and hashes[0] != hashes[1]:
                    collector.add(("model", key), collector.hashes(*hashes))
            case "chat_template" if None not in hashes:
                continue
            case "dtype" | "chat_template" if ABSENT in (before, after):
                collector.unknown(("model", key), "one side does not say")
            case _:
                collector.value(("model", key), before, after)


def _conditions(collector: Collector) -> None:
    old, new = collector.old.section("conditions"), collector.new.section("conditions")
    for name in both(old, new):
        path: Path = ("conditions", name, "phases")
        if name not in old or name not in new:
            kind: Kind = "added" if name in new else "removed"
            collector.add(path, kind, kind=kind, path=f"conditions.{name}", shared=False, status="PASS", reason=_ONLY)
            continue
        before, after = phases(collector.old, name), phases(collector.new, name)
        pairs = list(zip(before, after, strict=False))
        if len(before) != len(after) or any(
            pair not in collector.pairs.of("train") and pair[0] != pair[1] for pair in pairs
        ):
            collector.add(path, arrow(before, after))
        collector.value(("conditions", name, "system"), old[name].get("system"), new[name].get("system"))


def _section(collector: Collector, section: str) -> None:
    pairs = collector.pairs.of(section)
    for names, shared in pairs.items():
        _pair(collector, section, names, shared)
    for_arms = section in ("train", "data", "generate", "prompts")
    sides: tuple[tuple[Registration, set[str], Kind], ...] = (
        (collector.new, {after for _, after in pairs}, "added"), (collector.old, {before for before, _ in pairs}, "removed"),
    )  # fmt: skip
    for side, held, kind in sides:
        lost = kind == "removed" and not for_arms
        for name in side.section(section):
            if name not in held:
                collector.add(
                    (section, name, _FIELD[section]), kind, path=f"{section}.{name}", shared=False, kind=kind,
                    of_data=section == "prompts" and by_hash.for_data_alone(collector, (name, name)),
                    status="WARN" if lost else "PASS", reason=_LEFT_OUT if lost else _ONLY,
                )  # fmt: skip


def _pair(collector: Collector, section: str, names: Pair, shared: bool) -> None:
    before, after = names
    old, new = entry(collector.old, section, before), entry(collector.new, section, after)
    more: dict[str, Any] = {"shared": shared, "was": "" if before == after else f" (was {before})"}
    match section:
        case "data":
            by_hash.data(collector, names, old, new, **more)
        case "prompts":
            by_hash.prompts(collector, names, old, new, **more)
        case "train":
            recipes.recipe(collector, names, old, new, **more)
        case _:
            for key in both(old, new):
                collector.field((section, after, key), old, new, **more)


def _gates(collector: Collector) -> None:
    old, new = collector.old.section("gates"), collector.new.section("gates")
    others = _other_quantities(collector)
    for name in both(old, new):
        before, after = old.get(name), new.get(name)
        if before is None or after is None:
            gate = after or before or {}
            role, text = str(gate.get("role")).replace("_", "-"), gate.get("predicate")
            kind: Kind = "added" if before is None else "removed"
            decides = gate.get("role") in gates.DECIDING
            collector.add(
                ("gates", name, "predicate"), f"{name} {'is new' if before is None else 'was removed'}: the {role} gate `{text}`",
                path=f"gates.{name}", kind=kind, status="WARN" if decides else "PASS",
                reason=f"a gate that decides was {kind}" if decides else _IDLE,
            )  # fmt: skip
            continue
        for key, sentence, decides in gates.gate_change(name, before, after, others):
            collector.add(
                ("gates", name, key), sentence, status="WARN" if decides else "PASS", reason="" if decides else _IDLE
            )
        if before.get("say") != after.get("say"):
            collector.add(("gates", name, "say"), "reworded")
        _alphas(collector, name, after, others)


def _alphas(collector: Collector, name: str, gate: Mapping[str, Any], others: frozenset[str]) -> None:
    """What another alpha of a test means for a gate on it."""
    for analysis in collector.new.section("analyses"):
        before, after = (entry(side, "analyses", analysis).get("alpha") for side in (collector.old, collector.new))
        if (
            analysis in others
            or before == after
            or not isinstance(before, int | float)
            or not isinstance(after, int | float)
        ):
            continue
        sentence = gates.alpha_change(name, gate, analysis, before, after)
        if sentence is not None:
            decides = gate.get("role") in gates.DECIDING
            collector.add(
                ("gates", name, "predicate"), sentence, path=f"gates.{name}", follows=f"analyses.{analysis}.alpha",
                status="WARN" if decides else "PASS",
            )  # fmt: skip


def _other_quantities(collector: Collector) -> frozenset[str]:
    """Analyses of the same name that measure something else, so that their thresholds cannot be compared."""
    found = set()
    for name in collector.new.section("analyses"):
        old, new = (entry(side, "analyses", name) for side in (collector.old, collector.new))
        metrics = entry(collector.old, "metrics", old.get("metric")), entry(collector.new, "metrics", new.get("metric"))
        if any(spaced(old.get(key)) != spaced(new.get(key)) for key in ("contrast", "arm")) or any(
            metrics[0].get(key) != metrics[1].get(key) for key in ("score", "better", "value")
        ):
            found.add(name)
    return frozenset(found)


def _verdicts(collector: Collector) -> None:
    old, new = collector.old.design["verdicts"], collector.new.design["verdicts"]
    for sentence in gates.rule_changes(old, new):
        collector.add(("verdicts", "if"), sentence, path="verdicts")
    if [rule.get("say") for rule in old] != [rule.get("say") for rule in new]:
        collector.add(("verdicts", "say"), "reworded", path="verdicts.say")


def _files(collector: Collector) -> None:
    """Files that no entry names, which is what a task of lm-eval reads: by path, or by name where they moved."""
    old, new = (
        {path: sha256 for path, sha256 in side.design["files"].items() if path not in _named_files(side)}
        for side in (collector.old, collector.new)
    )
    by_name = {PurePosixPath(path).name: path for path in old}
    for path, sha256 in new.items():
        before = path if path in old else by_name.get(PurePosixPath(path).name)
        if before is not None and old[before] != sha256:
            collector.add(("files", path), collector.hashes(old[before], sha256))


def _named_files(side: Registration) -> set[str]:
    """Paths that some entry names, so that their hashes are compared there."""
    found = {str(side.design["model"].get("chat_template"))}
    for section in ("judges", "metrics"):
        for name in side.section(section):
            found |= {str(entry(side, section, name).get(key)) for key in FILES}
            found.add(str(entry(side, section, name).get("function")).rpartition(":")[0])
    for section in ("data", "sample"):
        for name in side.section(section):
            fill = entry(side, section, name).get("fill")
            found |= {value for value in fill.values() if isinstance(value, str)} if isinstance(fill, dict) else set()
    for name in side.section("prompts"):
        prompts = entry(side, "prompts", name)
        external = prompts.get("external")
        found |= {str(prompts.get("file")), str(prompts.get("stand_in"))}
        found |= {str(external.get("file"))} if isinstance(external, dict) else set()
    return found
