"""Output of `promptfoo eval -o output.json`.

`results.results` holds one object a provider, prompt and test. `score` (0 to 1), `success` (true or false) and
`namedScores.NAME` can be a metric's score. `failureReason` 2 is an error, of which there is no score; 1 is a failed
assertion, which is one. `--repeat` gives every repetition a `testIdx` of its own, so a unit is what a test asks: the
fingerprint of its variables, description and assertions. Repetitions are its samples, in the order of `testIdx`.
(Structure: EvaluateResult and ResultFailureReason in promptfoo's published type declarations.)
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from epc.compiler.contract.canonical import canonical_json
from epc.runtime.errors import Fault
from epc.runtime.results.files import Source, fingerprint
from epc.runtime.results.problems import did_you_mean
from epc.runtime.results.records import Record

ERROR: Final = 2
REMEDY: Final = "write it with promptfoo eval -o output.json"


def records(source: Source, score: str, arm: str | None) -> Iterator[Record]:
    """Records of one output file. `arm` is of all of them, None where provider and prompt name it.

    The name of a record is its provider's label or id; with several prompts it is the prompt's label, and with
    several of both `PROVIDER / PROMPT`. Raises Fault R1602 and R1604.
    """
    found = _results(source)
    providers = list(dict.fromkeys(_provider(result) for result in found))
    prompts = list(dict.fromkeys(_prompt(result) for result in found))
    order = sorted(range(len(found)), key=lambda index: _number(found[index].get("testIdx"), index))
    seen: dict[tuple[str, str], int] = {}
    numbered: dict[int, tuple[str, str, int]] = {}
    for index in order:
        result = found[index]
        unit, name = _unit(result), arm or _name(result, providers, prompts)
        seen[unit, name] = seen.get((unit, name), 0) + 1
        numbered[index] = (unit, name, seen[unit, name])
    _known_score(source, found, score)
    for index, result in enumerate(found):
        unit, name, sample = numbered[index]
        failed = result.get("failureReason") == ERROR
        value = None if failed else _value(result, score)
        yield Record(
            place=f"results.results[{index}]", unit=unit, condition=name, sample=sample, score=value,
            outcome="error" if failed else "scored" if value is not None else f"no {score}", item=unit,
        )  # fmt: skip


def _results(source: Source) -> list[dict[str, Any]]:
    try:
        data = json.loads(source.path.read_text(encoding="utf-8-sig"))
    except UnicodeDecodeError as error:
        raise Fault("R1602", source.shown, f"not UTF-8: byte 0x{error.object[error.start]:02x}", REMEDY) from None
    except json.JSONDecodeError as error:
        place = f"{source.shown}:{error.lineno}"
        raise Fault("R1602", place, f"not JSON: {error.msg}; was it cut short?", REMEDY) from None
    inner = data.get("results") if isinstance(data, dict) else None
    found = inner.get("results") if isinstance(inner, dict) else None
    if not isinstance(found, list) or not all(isinstance(result, dict) for result in found):
        raise Fault("R1602", source.shown, "there is no list results.results: it is no promptfoo output", REMEDY)
    return found


def _known_score(source: Source, found: list[dict[str, Any]], score: str) -> None:
    """Raise Fault R1604 where no result has the score."""
    named = [f"namedScores.{name}" for result in found for name in result.get("namedScores") or {}]
    known = list(dict.fromkeys(["score", "success", *named]))
    if score not in known:
        raise Fault(
            "R1604",
            source.shown,
            f'there is no score "{score}"{did_you_mean(score, known)}',
            "correct `score:` of the metric",
        )


def _value(result: Mapping[str, Any], score: str) -> Any:
    if score.startswith("namedScores."):
        return (result.get("namedScores") or {}).get(score.removeprefix("namedScores."))
    return result.get(score)


def _number(value: Any, otherwise: int) -> int:
    return value if isinstance(value, int) else otherwise


def _provider(result: Mapping[str, Any]) -> str:
    provider = result.get("provider")
    if isinstance(provider, dict):
        return str(provider.get("label") or provider.get("id") or "")
    return str(provider or "")


def _prompt(result: Mapping[str, Any]) -> str:
    prompt = result.get("prompt")
    label = prompt.get("label") if isinstance(prompt, dict) else None
    return str(label or f"prompt {result.get('promptIdx', 0)}")


def _name(result: Mapping[str, Any], providers: list[str], prompts: list[str]) -> str:
    if len(prompts) == 1:
        return _provider(result)
    return _prompt(result) if len(providers) == 1 else f"{_provider(result)} / {_prompt(result)}"


def _unit(result: Mapping[str, Any]) -> str:
    case = result.get("testCase") or {}
    asked = {
        "vars": result.get("vars") or case.get("vars"),
        "description": case.get("description"),
        "assert": case.get("assert"),
    }
    return fingerprint(canonical_json(asked))
