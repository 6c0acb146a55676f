"""Every part of a plan belongs to one group or to the words, so that no key of the language is forgotten."""

from __future__ import annotations

import types
import typing
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin

import pytest
import yaml
from pydantic import BaseModel

from epc.compiler import spec as language
from epc.compiler.comparison import Registration, compare
from epc.compiler.comparison.rules import GROUPS, INTERVENTION, NAMED, RULES, rule_of

ROOT = Path(__file__).resolve().parents[3]
SPECS = sorted(path.stem for path in (ROOT / "specs").glob("*.yaml"))
LOCKS = sorted((ROOT / "generated").glob("*/spec.lock.yaml"))

Node = tuple[str | int, ...]


def leaves(value: Any, path: Node = ()) -> Iterator[Node]:
    """Paths of values; null may stand where a whole part is left out."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, (*path, index))
    elif value is not None:
        yield path


def models(annotation: Any) -> Iterator[Any]:
    """The surface models behind an annotation, and whether names of the author's choice lie between."""
    if get_origin(annotation) is Annotated:
        yield from models(get_args(annotation)[0])
    elif get_origin(annotation) in (typing.Union, types.UnionType, list):
        for option in get_args(annotation):
            yield from models(option)
    elif get_origin(annotation) is dict:
        yield from models(get_args(annotation)[1])
    elif isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation


def fields(model: Any, path: Node = ()) -> Iterator[Node]:
    """Path of every key that the language has, `-` for a name."""
    for name, info in model.model_fields.items():
        here = (*path, info.alias or name)
        inner = list(models(info.annotation))
        if not inner:
            yield here
        for below in inner:
            yield from fields(below, (*here, "-") if here[0] in NAMED and len(here) == 1 else here)


@pytest.mark.parametrize("name", SPECS)
def test_every_path_of_a_lock_has_a_place(name: str, sources: Path, lock_text: Callable[[Path], str]) -> None:
    found = list(leaves(yaml.safe_load(lock_text(sources / f"{name}.yaml"))))
    assert len(found) > 50
    assert [path for path in found if rule_of(path) is None] == []


@pytest.mark.parametrize("lock", LOCKS, ids=lambda path: path.parent.name)
def test_every_path_of_a_committed_lock_has_a_place(lock: Path) -> None:
    assert [path for path in leaves(yaml.safe_load(lock.read_text(encoding="utf-8"))) if rule_of(path) is None] == []


def test_every_key_of_the_language_has_a_place() -> None:
    written_otherwise = {"require", "when", "otherwise"}  # a lock has `predicate` and `then`
    found = [path for path in fields(language.Spec) if path[-1] not in written_otherwise]
    assert len(found) > 100
    assert [path for path in found if rule_of(path) is None] == []


def test_a_key_that_is_no_part_of_the_language_has_none() -> None:
    assert rule_of(("train", "attack", "optimiser")) is None
    assert rule_of(("novelty",)) is None


def test_places_are_groups_or_words() -> None:
    assert {rule.place for rule in RULES.values()} == {*GROUPS, "words"}
    assert set(INTERVENTION) <= set(GROUPS)
    assert {rule.place for rule in RULES.values() if rule.place != "words" and not rule.reason} == set()


@pytest.mark.parametrize("name", SPECS)
def test_a_spec_reads_as_its_lock_does(
    name: str, sources: Path, lock_text: Callable[[Path], str], unedited: Callable[[str], Registration]
) -> None:
    from_lock = Registration.of_lock(yaml.safe_load(lock_text(sources / f"{name}.yaml")), "lock")
    design = {**from_lock.design, "conditions": {
        arm: {key: value for key, value in entry.items() if key != "key"}
        for arm, entry in from_lock.section("conditions").items()
    }}  # fmt: skip
    assert design == unedited(name).design


@pytest.mark.parametrize("name", SPECS)
def test_a_plan_is_comparable_with_itself(name: str, unedited: Callable[[str], Registration]) -> None:
    found = compare(unedited(name), unedited(name))
    assert not found.blocked
    assert not found.words
    assert not found.unplaced
    assert not found.variables
    assert not found.other_content
    assert all(difference.kind == "unknown" for result in found.groups for difference in result.differences)


def test_a_lock_of_an_older_epc_reads_as_if_new_keys_had_their_default(unedited: Callable[[str], Registration]) -> None:
    design = dict(unedited("quickstart").design)
    for key in ("claims", "allow", "locks", "budget", "reporting"):
        design.pop(key)
    design["metrics"] = {
        name: {key: value for key, value in entry.items() if key != "noise"}
        for name, entry in design["metrics"].items()
    }
    found = compare(Registration.of_lock(design, "old"), unedited("quickstart"))
    assert {result.reason for result in found.groups} == {"the same"}
    assert {word.path.split(".")[0] for word in found.words} <= {"claims", "allow", "locks", "budget", "reporting"}


def test_a_key_that_this_version_does_not_know_is_told(unedited: Callable[[str], Registration]) -> None:
    design = {**unedited("quickstart").design, "optimiser": "adamw"}
    assert compare(Registration.of_lock(design, "newer"), unedited("quickstart")).unplaced == ("optimiser",)


def test_a_judge_of_an_older_lock_asked_once_and_does_not_say_of_which_interface(
    unedited: Callable[[str], Registration],
) -> None:
    design = dict(unedited("issue147").design)
    later = ("options", "votes", "aggregate", "batch_from", "limits", "gold", "api_version")
    design["judges"] = {
        name: {key: value for key, value in entry.items() if key not in later}
        for name, entry in design["judges"].items()
    }
    found = compare(Registration.of_lock(design, "old"), unedited("issue147"))
    (judges,) = [result for result in found.groups if result.group == "judges"]
    assert (judges.status, judges.is_unknown) == ("WARN", True)
    assert {difference.path.rpartition(".")[2] for difference in judges.differences} == {"api_version"}


@pytest.mark.parametrize(
    ("function", "sha256", "lines"),
    [
        ("own.py:score", "a" * 64, []),
        ("moved/own.py:score", "a" * 64, []),
        ("own.py:other", "a" * 64, ["judges.reset.function: score -> other"]),
        ("own.py:score", "b" * 64, ["judges.reset.function: own.py aaaaaaaaaaaa -> bbbbbbbbbbbb"]),
    ],
)
def test_a_function_is_compared_by_its_name_and_its_text(
    function: str, sha256: str, lines: list[str], unedited: Callable[[str], Registration]
) -> None:
    base = unedited("issue147").design

    def asking(function: str, sha256: str) -> Registration:
        judge = {"provider": "python", "function": function, "output": {"reset": "bool"}, "max_missing": 0.05}
        files = {**base["files"], function.rpartition(":")[0]: sha256}
        return Registration.of_lock({**base, "judges": {**base["judges"], "reset": judge}, "files": files}, "lock")

    found = compare(asking("own.py:score", "a" * 64), asking(function, sha256))
    differences = {result.group: result.differences for result in found.groups}
    assert [difference.line for difference in differences["judges"]] == lines
    assert all(difference.kind == "unknown" for difference in differences["evaluation"])
