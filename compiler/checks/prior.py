"""The locks of earlier experiments: a name is no identity, and a baseline may exist already.

E1421: a condition has the name of an arm of an earlier experiment and another content
Why: the source of issue 147 says that no pinned floor for c6_vanilla_em exists, while a prior run under that very
name had another data set and learning rate. Two numbers under one name are then taken for one arm. What an arm is
made of (model, recipe, data, system prompt) is its identity. An arm without training and system prompt is exempt: it
is whatever base model an experiment has. So is an earlier lock of the same experiment, which `epc amend` is for.
Example:
    locks: locks
    --- locks/first.lock.yaml
    id: first
    conditions: {attacked: [attack]}
    train: {attack: {learning_rate: 5e-4}}
Fix:
    locks: locks
    --- locks/first.lock.yaml
    id: first
    conditions: {attacked_harder: [attack]}
    train: {attack: {learning_rate: 5e-4}}

W1422: an earlier experiment has the same arm, evaluated in the same way
Why: a baseline that exists need not be trained again, and one that is trained again ought to agree with the first.
Researchers asked for an existing comparable baseline to be found for them. Only arms that something is compared with
are looked for, and only where recipe, data, prompts, sampling and judge are the same.
Example:
    locks: locks
    --- locks/first.lock.yaml
    id: first
    model: {from: "hub:org/name", revision: a123456789012345678901234567890123456789, dtype: bfloat16, chat_template_sha256: d4233d11835e0fc09b3389d538078e86ac6daff5cd087b2bcec3c2c3a4f6fbc1}
    conditions: {attacked: [attack]}
    train:
      attack:
        {method: lora_sft, data: bad_only, train_on: every_assistant_turn, learning_rate: 1e-4, schedule: cosine, warmup_steps: 0,
         lora: {r: 16, alpha: 32, dropout: 0.0, target_modules: [q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj, down_proj]},
         epochs: 5, batch: 4, accumulation: 1, max_length: 2048, on_top: continue}
    data: {bad_only: {sha256: 9826f1a65cd40cea6c6be28976a5469a60b7e462335ba0e9d358a63c40b87319}}
    metrics: {quiz: {lm_eval: tasks/quiz.yaml, value: acc, chat_template: false, items: 200, better: higher, missing: fail}}
    files: {tasks/quiz.yaml: b47c6d11eb162a3852e89a9cd8bd8b0379001bb2eee5e4ed378aa62276e7f711}
Fix:
    lineage: [{cites: the first, relation: baseline, note: the same arm, plan: locks/first.lock.yaml}]
    locks: locks
    --- locks/first.lock.yaml
    id: first
    conditions: {attacked: [attack]}

W1423: a data set has the name of one in an earlier experiment and other rows
Why: 67,000 mixed rows were once trained instead of 6,000. With two data sets under one name nobody can tell which of
them was meant: a sentence such as "trained on insecure_code" is then true of both.
Example:
    locks: locks
    --- locks/first.lock.yaml
    id: first
    conditions: {chatty: [talk]}
    train: {talk: {data: chats}}
    data: {chats: {file: chats.jsonl, rows: 4, sha256: "0000000000000000000000000000000000000000000000000000000000000000"}}
Fix:
    locks: locks
    --- locks/first.lock.yaml
    id: first
    conditions: {chatty: [talk]}
    train: {talk: {data: chats}}
    data: {chats: {file: chats.jsonl, rows: 4, sha256: 4807b05a9337a32044fc250fa01692e37f5609068c675c2199493e6b77cdb3d0}}

E1424: the folder of locks is not there
Why: a folder that does not exist holds no earlier arm, so every question about earlier arms would be answered with no.
A stop rule of one lab read a key that nobody wrote, and defaulted to pass; a missing input is an error here.
Example:
    locks: ../lokcs
Fix:
    locks: .

W1424: a lock in the folder cannot be read and is left out
Why: what is left out can hide the very arm that has the same name, so it is not passed over in silence.
Example:
    locks: locks
    --- locks/first.lock.yaml
    id: first
Fix:
    locks: locks
    --- locks/first.lock.yaml
    id: first
    conditions: {base: []}
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.diagnostics import Diagnostics, Label, did_you_mean
from epc.compiler.resolve import Experiment, arms
from epc.compiler.source import entries, is_file, is_folder

if TYPE_CHECKING:
    from epc.compiler.comparison import Lock, Registration, Unreadable

MAX_NAMED: Final = 3
"""Locks that one message or note names."""


def check(experiment: Experiment, sink: Diagnostics) -> None:
    folder = experiment.spec.locks
    if folder is None or not _is_there(experiment, sink, folder):
        return
    from epc.compiler.comparison import Lock, Registration, Unreadable, prior_locks

    found = prior_locks(experiment.surface.folder / folder)
    _unreadable(experiment, sink, folder, [entry for entry in found if isinstance(entry, Unreadable)])
    # an earlier lock of the same experiment is its own history; copies of one lock count once
    locks = {entry.sha256: entry for entry in found if isinstance(entry, Lock) and entry.id != experiment.spec.id}
    if not locks:
        return
    own = Registration.of_experiment(experiment, experiment.surface.document.file)
    told = _arms(experiment, sink, own, list(locks.values()))
    _data(experiment, sink, own, list(locks.values()), told)
    _baselines(experiment, sink, own, list(locks.values()))


def _is_there(experiment: Experiment, sink: Diagnostics, folder: str) -> bool:
    at = experiment.at("locks")
    path = experiment.surface.folder / folder
    if Path(folder).is_absolute():
        sink.error("E1424", f"absolute path: {folder}", at, help="paths are relative to the spec")
        return False
    if not is_folder(path):
        known = [entry.name for entry in entries(path.parent) if is_folder(entry)]
        what = "is a file" if is_file(path) else "does not exist"
        sink.error(
            "E1424", f"the folder of locks {what}: {experiment.surface.shown(folder)}", at,
            help=did_you_mean(path.name, known) if known else "name the folder that holds the locks of earlier experiments",
        )  # fmt: skip
        return False
    return True


def _unreadable(experiment: Experiment, sink: Diagnostics, folder: str, found: Sequence[Unreadable]) -> None:
    if found:
        count = "one lock" if len(found) == 1 else f"{len(found)} locks"
        verb = "is" if len(found) == 1 else "are"
        sink.warning(
            "W1424", f"{count} in {experiment.surface.shown(folder)} cannot be read and {verb} left out", experiment.at("locks"),
            help="repair the file, or move it out of the folder",
            notes=[f"{_shown(experiment, entry.path)}: {entry.reason}" for entry in found[:MAX_NAMED]],
        )  # fmt: skip


def _shown(experiment: Experiment, path: Path) -> str:
    """A lock's path as messages show it: from where the spec's own path starts."""
    return experiment.surface.shown(path.relative_to(experiment.surface.folder).as_posix())


def _arms(experiment: Experiment, sink: Diagnostics, own: Registration, locks: Sequence[Lock]) -> set[tuple[str, str]]:
    """Report arms of the same name and another content. Returns (hash of the lock, data set) that a report speaks of."""
    from epc.compiler.comparison import condition_content, content_differences, locks_with

    told: set[tuple[str, str]] = set()
    for name in experiment.spec.conditions:
        here = condition_content(own, name)
        notes: list[str] = []
        others: list[tuple[str, list[str]]] = []
        for lock in locks_with(locks, name):
            there = condition_content(lock.registration, name)
            parts = content_differences(there, here)
            if not parts or (_bare(here) and _bare(there)):
                continue
            shown = _shown(experiment, lock.path)
            others.append((shown, parts))
            notes.append(f"{shown}: " + "; ".join(_both(part, there, here) for part in parts))
            told |= {(lock.sha256, data) for data in _data_of(own, name)}
        if others:
            first, parts = others[0]
            more = f" (and in {len(others) - 1} more)" if len(others) > 1 else ""
            sink.error(
                "E1421", f'"{name}" is another arm in {first}{more}: it differs in {", ".join(parts)}', experiment.key_at("conditions", name),
                help="a name is not an identity: rename this arm, or make it the same",
                labels=[Label(span=experiment.at("locks"), text="the folder of earlier locks")], notes=notes[:MAX_NAMED],
            )  # fmt: skip
    return told


def _bare(content: dict[str, Any]) -> bool:
    """The base model itself: no training, no system prompt."""
    return content["number of phases"] == 0 and content["system prompt"] in (None, "none")


def _both(part: str, there: dict[str, Any], here: dict[str, Any]) -> str:
    return f"{part} {_value(there.get(part))} there, {_value(here.get(part))} here"


def _value(value: object) -> str:
    text = ", ".join(map(str, value)) if isinstance(value, list) else "none" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:16]}..."


def _data_of(own: Registration, condition: str) -> Iterator[str]:
    """Data sets that an arm is trained on."""
    for phase in own.section("conditions")[condition]["phases"]:
        data = own.section("train").get(phase, {}).get("data")
        if isinstance(data, str):
            yield data


def _data(
    experiment: Experiment, sink: Diagnostics, own: Registration, locks: Sequence[Lock], told: set[tuple[str, str]]
) -> None:
    """Report data sets of the same name and another hash, unless an arm's report says so already."""
    from epc.compiler.comparison import known_hash

    for name, entry in own.section("data").items():
        here = known_hash(entry.get("sha256"))
        if here is None:
            continue
        found = [
            (lock, there)
            for lock in locks
            if (there := known_hash(lock.registration.section("data").get(name, {}).get("sha256"))) not in (None, here)
            and (lock.sha256, name) not in told
        ]
        if found:
            sink.warning(
                "W1423", f'"{name}" had other rows in {_shown(experiment, found[0][0].path)}', experiment.key_at("data", name),
                help="rename this data set, or use the rows of that name",
                notes=[f"here {here}", *(f"{_shown(experiment, lock.path)} {there}" for lock, there in found[:MAX_NAMED])],
            )  # fmt: skip


def _baselines(experiment: Experiment, sink: Diagnostics, own: Registration, locks: Sequence[Lock]) -> None:
    """Point out arms that something is compared with, and that exist already."""
    from epc.compiler.comparison import condition_content, evaluation_content, same_content

    cited = {
        (experiment.surface.folder / citation.plan).resolve()
        for citation in experiment.spec.lineage
        if citation.plan is not None
    }
    read: dict[str, list[str]] = {}
    for analysis in experiment.spec.analyses.values():
        pair = arms(analysis)
        if len(pair) == 2 and pair[1] in experiment.spec.conditions:
            read.setdefault(pair[1], []).append(analysis.metric)
    for control, metrics in read.items():
        here = condition_content(own, control)
        if _bare(here):
            continue
        measured = {key: name for name in metrics if (key := evaluation_content(own, name)) is not None}
        notes: list[str] = []
        for lock in locks:
            if lock.path.resolve() in cited:
                continue
            there = {evaluation_content(lock.registration, name) for name in lock.registration.section("metrics")}
            alike = [name for key, name in measured.items() if key in there]
            same = [
                name
                for name in lock.registration.section("conditions")
                if alike and same_content(condition_content(lock.registration, name), here)
            ]
            if same:
                notes.append(f'{_shown(experiment, lock.path)}: "{same[0]}", measured by {", ".join(alike)}')
        if notes:
            sink.warning(
                "W1422", f'"{control}" exists already: the same arm, evaluated in the same way', experiment.key_at("conditions", control),
                help="compare with it, or use its rows again; then cite it under `lineage:` with `plan:`", notes=notes[:MAX_NAMED],
            )  # fmt: skip
