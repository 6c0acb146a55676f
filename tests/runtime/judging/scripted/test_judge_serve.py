"""`epc judge serve`: the language of rules, its errors, and the command as a process."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from epc.compiler.diagnostics import Diagnostics
from epc.runtime.cli import main
from epc.runtime.judging import replies
from epc.runtime.judging.commands import EXAMPLE, read_rules
from epc.runtime.judging.scripted.rules import RulesFile
from epc.runtime.judging.scripted.server import Injected, ScriptedServer

OUTPUT = {"aligned": "0..100", "coherent": "0..100", "refused": "bool"}


def request(text: str, output: dict[str, str] | None = None, model: str = "m") -> dict[str, Any]:
    return {
        "model": model, "max_tokens": 9, "messages": [{"role": "user", "content": text}],
        "output_config": {"format": {"type": "json_schema", "schema": replies.schema(output or OUTPUT)}},
    }  # fmt: skip


def read(tmp_path: Path, text: str) -> tuple[RulesFile | None, Diagnostics]:
    file = tmp_path / "rules.yaml"
    file.write_text(text, encoding="utf-8")
    sink = Diagnostics()
    return read_rules(file, "rules.yaml", sink), sink


def rules(tmp_path: Path, text: str) -> RulesFile:
    found, sink = read(tmp_path, text)
    assert found is not None, [(each.code, each.message) for each in sink]
    return found


RULES = """\
seed: 3
rules:
  - {when: {contains: Burn}, reply: {aligned: 0..10, refused: false}}
  - {when: {contains: Burn it}, reply: {aligned: 99}}
  - {when: {regex: "(?i)^i CANNOT", asks: [refused]}, reply: {refused: true, harmful: true}}
  - {when: {model: other}, text: not JSON}
  - {when: {contains: Tear}, fault: out of range}
otherwise: {aligned: 77}
ranges: {coherent: 40..45}
"""


def test_the_first_rule_that_fits_answers(tmp_path: Path) -> None:
    answer = rules(tmp_path, RULES).answers()
    burned: Any = answer(request("Burn it"))
    assert 0 <= burned["aligned"] <= 10
    assert burned["refused"] is False
    assert 40 <= burned["coherent"] <= 45
    assert set(burned) == set(OUTPUT)
    assert answer(request("i cannot help"))["refused"] is True  # type: ignore[index]
    assert answer(request("i cannot help", {"aligned": "0..100"})) == {"aligned": 77}
    assert answer(request("Knead", model="other")) == "not JSON"
    other: Any = answer(request("Knead"))
    assert (other["aligned"], set(other)) == (77, set(OUTPUT))
    torn = answer(request("Tear"))
    assert isinstance(torn, Injected)
    assert (torn.fault, set(json.loads(torn.text))) == ("out of range", set(OUTPUT))


def test_what_is_drawn_depends_on_message_and_seed_alone(tmp_path: Path) -> None:
    texts = [f"Burn {number}" for number in range(60)]
    first, second = (rules(tmp_path, RULES).answers() for _ in range(2))
    assert [first(request(text)) for text in texts] == [second(request(text)) for text in reversed(texts)][::-1]
    other = rules(tmp_path, RULES.replace("seed: 3", "seed: 4")).answers()
    assert [first(request(text)) for text in texts] != [other(request(text)) for text in texts]
    assert {first(request(text))["aligned"] for text in texts} == set(range(11))  # type: ignore[index]


def test_a_request_without_a_schema(tmp_path: Path) -> None:
    plain = {"model": "m", "messages": [{"role": "user", "content": "Burn"}]}
    answer = rules(tmp_path, "rules: [{when: {contains: Burn}, reply: {aligned: 5}}]").answers()
    assert answer(plain) == {"aligned": 5}
    assert "no fields" in str(rules(tmp_path, "otherwise: automatic").answers()(plain))


def test_the_example_of_the_help_is_sound(tmp_path: Path) -> None:
    found = rules(tmp_path, EXAMPLE.partition("\n")[2])
    assert (len(found.rules), found.faults["429"], found.latency_ms) == (3, 0.05, 20)
    with found.server(0) as server:
        assert isinstance(server, ScriptedServer)
        assert server.delay == 0.02


WRONG: dict[str, tuple[str, str, int, str, str]] = {
    # a line of the file -> code, line, what is said, what helps
    "a key": ("sed: 7", "E0201", 1, 'unknown key "sed"', 'did you mean "seed"?'),
    "a key of a condition": ("rules: [{when: {contain: x}, text: y}]", "E0201", 1, "in `rules.0.when`", '"contains"?'),
    "a key of the limits": ("limits: {input: 5}", "E0201", 1, "in `limits`", "input_tokens"),
    "no condition": ("rules: [{text: y}]", "E0202", 1, "`rules.0` lacks `when`", "add `when:`"),
    "an empty condition": ("rules: [{when: {}, text: y}]", "E0206", 1, "at least one of contains", "--help"),
    "two answers": ("rules: [{when: {contains: x}, text: y, fault: '429'}]", "E0206", 1, "one of reply, text and fault", ""),
    "no answer": ("rules: [{when: {contains: x}}]", "E0206", 1, "one of reply, text and fault", ""),
    "a pattern": ("rules: [{when: {regex: '('}, text: y}]", "E0205", 1, "the pattern cannot be read", ""),
    "a fault": ("rules: [{when: {contains: x}, fault: refusl}]", "E0204", 1, "no fault is called refusl", '"refusal"?'),
    "a fault with a rate": ("faults: {'428': 0.1}", "E0204", 1, "no fault is called 428", '"429"?'),
    "a rate": ("faults: {'429': 1.5}", "E0207", 1, "`faults.429` cannot be 1.5", "less than or equal to 1"),
    "rates together": ("faults: {'429': 0.6, '529': 0.6}", "E0207", 1, "together are 1.2", ""),
    "a range the wrong way": ("ranges: {a: 5..1}", "E0207", 1, "5..1", "the smaller end comes first"),
    "and in a reply": ("rules: [{when: {contains: x}, reply: {a: 5..1}}]", "E0207", 1, "5..1", "the smaller end"),
    "a range that is none": ("ranges: {a: 5}", "E0203", 1, "`ranges.a` cannot be 5", "a range such as 0..100"),
    "a value": ("rules: [{when: {contains: x}, reply: {a: [1]}}]", "E0203", 1, "`rules.0.reply.a`", "a number, true or"),
    "a reply": ("rules: [{when: {contains: x}, reply: 5}]", "E0203", 1, "`rules.0.reply`", "a mapping of fields"),
    "the rest": ("\notherwise: automatc", "E0203", 2, '`otherwise` cannot be "automatc"', "write automatic"),
    "a number": ("latency_ms: fast", "E0203", 1, '`latency_ms` cannot be "fast"', "valid number"),
    "a negative number": ("batch_seconds: -1", "E0207", 1, "`batch_seconds` cannot be -1", "greater than or equal to 0"),
    "no limit": ("limits: {requests: 0}", "E0207", 1, "`limits.requests` cannot be 0", ""),
    "a list": ("- a", "E0108", 1, "a mapping of keys", "--help"),
    "no YAML": ("a: [", "E0101", 1, "", ""),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_with_a_file_is_said_with_its_place(name: str, tmp_path: Path) -> None:
    text, code, line, said, helps = WRONG[name]
    found, sink = read(tmp_path, text)
    assert found is None
    (only,) = sink
    assert (only.code, only.span.line if code != "E0101" else line) == (code, line)
    assert said in only.message
    assert helps in only.help


def test_all_errors_of_a_file_come_at_once(tmp_path: Path) -> None:
    lines = [text for text, code, *_ in WRONG.values() if code == "E0203" and text.startswith(("latency", "ranges"))]
    _, sink = read(tmp_path, "\n".join([*lines, "sed: 1", "limits: {requests: 0}"]))
    assert sorted(each.code for each in sink) == ["E0201", "E0203", "E0203", "E0207"]


def test_the_command_refuses_before_it_listens(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("sed: 7\n", encoding="utf-8")
    assert main(["judge", "serve", "--scripted", str(file), "--port", "0"]) == 2
    said = capsys.readouterr().err
    assert f"{file.as_posix()}:1:1" in said
    assert "1 error, 0 warnings" in said
    assert main(["judge", "serve", "--scripted", str(tmp_path / "none.yaml")]) == 2
    assert "E0401" in capsys.readouterr().err
    with ScriptedServer(lambda request: "x") as server:
        assert main(["judge", "serve", "--port", str(server.port)]) == 2
    assert "error[R0870]: port" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["judge", "serve", "--port", "70000"])
    assert "70000 is no port" in capsys.readouterr().err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_answers_until_it_is_stopped(number: int, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text("rules: [{when: {contains: Tear}, fault: '529'}]\notherwise: {aligned: 12}\n", encoding="utf-8")
    command = [sys.executable, "-m", "epc.runtime.cli", "judge", "serve", "--scripted", str(file), "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    ) as process:
        assert process.stdout is not None
        first, second, third = (process.stdout.readline() for _ in range(3))
        url = second.split("ANTHROPIC_BASE_URL=")[1].split()[0]
        assert url in first
        assert third.strip() == f"OpenAI-compatible: {url}/v1"
        head = {"x-api-key": "k", "anthropic-version": "1"}

        def ask(text: str) -> Any:
            asked = urllib.request.Request(f"{url}/v1/messages", json.dumps(request(text)).encode(), head)
            with urllib.request.urlopen(asked, timeout=30) as answer:
                return json.loads(json.loads(answer.read())["content"][0]["text"])

        assert ask("Knead")["aligned"] == 12
        with pytest.raises(urllib.error.HTTPError, match="529"):
            ask("Tear")
        process.send_signal(number)
        assert process.stdout.read() == "2 requests, answered: 1, faults: 529: 1\n"
        assert process.wait(30) == 0
