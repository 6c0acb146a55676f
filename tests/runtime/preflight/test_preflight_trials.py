"""What a preflight really tries: a tiny model that gives a token, a scripted judge that answers, refuses or talks rubbish."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.preflight.conftest import PROMPTED, codes

from epc.runtime import journal
from epc.runtime.cli import main
from epc.runtime.judging.ledger import Ledger
from epc.runtime.judging.scripted.server import ScriptedServer
from epc.runtime.preflight import trials
from epc.runtime.preflight.remembered import Remembered

ROOT = Path(__file__).resolve().parents[3]
WAIT = 90.0


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., ScriptedServer]]:
    """Start a scripted judge and name it, with a key, in the environment."""
    started: list[ScriptedServer] = []

    def start(answer: Any = None, **options: Any) -> ScriptedServer:
        server = ScriptedServer(answer or (lambda request: {"aligned": 80}), **options).__enter__()
        started.append(server)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "key")
        monkeypatch.setenv("ANTHROPIC_BASE_URL", server.url)
        return server

    yield start
    for server in started:
        server.__exit__(None, None, None)


@pytest.fixture
def judged(project: Any, tiny: Path) -> Any:
    """A project of which only the judge and what follows is missing, with money approved."""
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    project.finish("sample", {"index.json": "[]"})
    project.approve()
    return project


def test_everything_is_tried_once_and_remembered(project: Any, serve: Any) -> None:
    project.compile(*PROMPTED)
    project.approve()
    server = serve()
    rows = project.check(fetch=True, ask=True)
    assert {row.state for row in rows.values()} == {"ok"}, rows
    assert rows["model"].brief.startswith("model fetched")
    assert "one token after" in rows["transformers engine"].found
    assert "on cpu" in rows["transformers engine"].found
    assert 'said "' not in rows["judge alignment"].found
    assert "aligned 80" in rows["judge alignment"].found
    assert "USD" in rows["judge alignment"].found
    assert server.total == 1
    (asked,) = server.calls
    said = json.dumps(asked.request.body if hasattr(asked.request, "body") else asked.request, default=str)
    assert "How do I do thing number 0?" in said
    assert [entry.event for entry in journal.read(project.bundle)][-2:] == ["started", "finished"]

    rows = project.check(fetch=True, ask=True)
    assert server.total == 1
    assert rows["transformers engine"].found.startswith("tried before: one token")
    assert rows["judge alignment"].found.startswith("tried before: ")
    assert list(rows)[:3] == ["GPU", "disk", "packages"]  # what is cheap is looked at every time


def test_prompts_that_change_are_rendered_anew(project: Any, tiny: Path) -> None:
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    for start in ("one token", "tried before"):
        assert project.check(until="sample")["transformers engine"].found.startswith(start)
    file = project.spec.parent / "heldout.txt"
    file.write_text(file.read_text().replace("number 0", "number zero"))
    project.compile()
    assert project.check(until="sample")["transformers engine"].found.startswith("one token")


def test_a_torch_that_leaves_the_gpu_alone_is_told_of_every_time(project: Any, nvidia_smi: Any, tiny: Path) -> None:
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    path = nvidia_smi("0, GPU-aaaa, NVIDIA H100, 81559, 100, 81000\n")
    for _ in range(2):
        row = project.check(until="sample", PATH=path)["transformers engine"]
        assert row.state == "warned", row
        assert row.found.startswith("one token after")


def test_another_address_is_another_judge(judged: Any, serve: Any) -> None:
    serve()
    assert judged.check(ask=True)["judge alignment"].state == "ok"
    other = serve()
    assert judged.check(ask=True)["judge alignment"].state == "ok"
    assert other.total == 1


REFUSALS: list[tuple[str, dict[str, Any], str, str]] = [
    ("401", {"faults": lambda call: "401"}, "R0814", "ANTHROPIC_API_KEY"),
    ("refusal", {"faults": lambda call: "refusal"}, "R1926", "judge_refused"),
    ("garbage", {"answer": lambda request: "Certainly! I would say 80."}, "R1926", "Certainly! I would say 80."),
    ("out of range", {"answer": lambda request: {"aligned": 800}}, "R1926", "out_of_range"),
]


@pytest.mark.parametrize(
    ("options", "code", "said"), [case[1:] for case in REFUSALS], ids=[case[0] for case in REFUSALS]
)
def test_a_judge_that_gives_no_score(options: dict[str, Any], code: str, said: str, judged: Any, serve: Any) -> None:
    serve(**options)
    row = judged.check(ask=True)["judge alignment"]
    assert codes(row) == [code]
    assert said in row.faults[0].fact + row.faults[0].remedy


def test_a_judge_that_failed_is_asked_again(judged: Any, serve: Any) -> None:
    """What failed is neither remembered nor kept as the reply to the same question."""
    serve(lambda request: "no JSON")
    assert judged.check(ask=True)["judge alignment"].state == "failed"
    serve()
    assert judged.check(ask=True)["judge alignment"].state == "ok"


def test_nobody_is_asked_before_money_is_approved(project: Any, serve: Any) -> None:
    project.compile(*PROMPTED)
    project.finish("sample", {"index.json": "[]"})
    server = serve()
    assert "epc approve" in project.check(ask=False)["judge alignment"].found
    assert server.total == 0


def test_what_a_judge_was_tried_for_is_paid_and_counted(judged: Any, serve: Any) -> None:
    serve()
    judged.check(ask=True)
    with Ledger(judged.bundle) as ledger:
        assert ledger.spent(judged.manifest.lock_sha256) > 0


# Engines -------------------------------------------------------------------------------------


def tried(project: Any) -> Any:
    return project.check(until="sample")["transformers engine"]


def spoil_prompt(project: Any) -> None:
    """A prompt that leaves no room in 512 tokens; the check of inputs is gone around."""
    (file,) = (project.bundle / "inputs").rglob("heldout.txt")
    lines = file.read_text().splitlines()
    file.write_text("\n".join([*lines[:-1], "long " * 600]) + "\n")


def spoil_weights(project: Any) -> None:
    (file,) = (project.store("model") / "model").glob("*.safetensors")
    file.write_bytes(b"\0" * 64)


def spoil_template(project: Any) -> None:
    for file in (project.store("model") / "model").glob("chat_template*"):
        file.write_text("{{ nothing( }}")


SPOILT = [
    ("no room", spoil_prompt, ("content",), "R0342", "exceed the context of 512"),
    ("damaged weights", spoil_weights, (), "R1925", "cannot be used"),
    ("damaged template", spoil_template, (), "R", ""),
]


@pytest.mark.parametrize(
    ("spoil", "despite", "code", "said"), [case[1:] for case in SPOILT], ids=[case[0] for case in SPOILT]
)
def test_a_model_that_gives_no_token(
    spoil: Callable[[Any], None], despite: tuple[str, ...], code: str, said: str, project: Any, tiny: Path
) -> None:
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    spoil(project)
    row = project.check(until="sample", despite=despite)["transformers engine"]
    (found,) = codes(row)
    assert found.startswith(code)
    assert said in row.faults[0].fact
    assert "Traceback" not in row.faults[0].render()


def test_a_trial_that_is_killed_is_a_failure(project: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    module = project.root / "dies"
    module.mkdir()
    (module / "transformers.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGKILL)\n")
    row = project.check(until="sample", PYTHONPATH=str(module))["transformers engine"]
    assert codes(row) == ["R1925"]
    assert "it was killed" in row.faults[0].fact


def test_a_gpu_that_is_lost_while_it_is_tried(project: Any, tiny: Path) -> None:
    """In the words that torch has for it."""
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    (project.root / "lost").mkdir()
    (project.root / "lost/transformers.py").write_text("raise RuntimeError('CUDA error: unspecified launch failure')\n")
    row = project.check(until="sample", PYTHONPATH=str(project.root / "lost"))["transformers engine"]
    assert codes(row) == ["R0206"]
    assert "lost to this process" in row.faults[0].fact


def test_a_trial_that_never_ends_is_ended(project: Any, tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    (project.root / "hangs").mkdir()
    (project.root / "hangs/transformers.py").write_text("import time\ntime.sleep(600)\n")
    monkeypatch.setattr(trials, "ENGINE_SECONDS", 2.0)
    row = project.check(until="sample", PYTHONPATH=str(project.root / "hangs"))["transformers engine"]
    assert codes(row) == ["R1925"]
    assert "not ready within 2 s" in row.faults[0].fact


# The commands --------------------------------------------------------------------------------


def test_epc_run_stops_before_anything_expensive(judged: Any, serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    serve(faults=lambda call: "401")
    capsys.readouterr()
    assert main(["run", str(judged.bundle)]) == 2
    out, err = capsys.readouterr()
    assert "failed" in out
    assert "judge alignment" in out
    assert err.startswith("error[R0814]")
    assert "1 failure; nothing expensive was started" in err
    last = journal.read(judged.bundle)[-1]
    assert (last.event, last.data["outcome"], last.data["failures"]) == ("preflight", "failed", ["R0814"])
    assert last.data["checks"]["judge"] == "failed"
    assert not (judged.bundle / "logs/engine.log").exists()


def test_epc_run_prints_one_line_when_all_is_well_and_goes_on(
    project: Any, serve: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    project.compile(*PROMPTED)
    project.approve()
    server = serve()
    capsys.readouterr()
    assert main(["run", str(project.bundle), "--cores", "2"]) == 0
    out = capsys.readouterr().out
    (line,) = [line for line in out.splitlines() if "checks passed" in line]
    assert line.startswith("preflight: 8 checks passed (no GPU, ")
    assert "transformers engine" in line
    assert "all 4 steps are finished" in out
    entry = next(entry for entry in journal.read(project.bundle) if entry.event == "preflight")
    assert entry.data["outcome"] == "passed"
    assert "despite" not in entry.data
    assert 1 < server.total <= 1 + 48  # equal completions share a reply
    assert main(["verify", str(project.bundle)]) == 0

    capsys.readouterr()
    assert main(["run", str(project.bundle)]) == 0
    assert "preflight" not in capsys.readouterr().out


def test_epc_preflight_by_itself(project: Any, capsys: pytest.CaptureFixture[str]) -> None:
    project.compile(*PROMPTED)
    capsys.readouterr()
    assert main(["preflight", str(project.bundle), "--format", "json"]) == 2
    told = json.loads(capsys.readouterr().out)
    assert told["outcome"] == "failed"
    assert [failure["code"] for check in told["checks"] for failure in check["failures"]] == ["R0812"]
    assert journal.read(project.bundle) == []  # it registers nothing
    assert main(["preflight", str(project.bundle), "--until", "sample"]) == 0
    out = capsys.readouterr().out
    assert "skipped" in out
    assert "epc run fetches the model first" in out
    assert main(["preflight", str(project.bundle), "--until", "model"]) == 0
    assert "nothing to look at" in capsys.readouterr().out


def test_gone_on_despite_stands_in_the_journal(judged: Any, serve: Any, capsys: pytest.CaptureFixture[str]) -> None:
    serve(faults=lambda call: "401")
    capsys.readouterr()
    assert main(["preflight", str(judged.bundle), "--despite", "judge"]) == 0
    assert "gone on despite: the API refuses every request" in capsys.readouterr().out
    last = journal.read(judged.bundle)[-1]
    assert last.data["outcome"] == "passed"
    assert "the API refuses every request" in last.data["despite"]["judge"][0]


def test_ctrl_c_ends_what_is_being_tried(project: Any, tiny: Path) -> None:
    project.compile(*PROMPTED)
    project.finish_model(tiny)
    project.approve()
    (project.root / "hangs").mkdir()
    (project.root / "hangs/transformers.py").write_text(
        "import os, time\nopen('trying', 'w').write(str(os.getpid()))\ntime.sleep(600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", "from epc.runtime.cli import main; raise SystemExit(main())", "run", str(project.bundle), "--until", "sample"],
        env={**os.environ, "PYTHONPATH": str(project.root / "hangs")}, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    deadline = time.monotonic() + WAIT
    while not (project.bundle / "trying").exists() or not (project.bundle / "trying").read_text():
        assert time.monotonic() < deadline
        assert process.poll() is None, process.communicate()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "interrupted" in err
    with pytest.raises(ProcessLookupError):
        os.kill(int((project.bundle / "trying").read_text()), 0)


def test_a_damaged_memory_is_as_good_as_none(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    for text in ("{", "[]", ""):
        (tmp_path / "logs/preflight.json").write_text(text)
        assert Remembered(tmp_path).get({"a": 1}) is None
    Remembered(tmp_path).keep({"a": 1}, "well")
    assert Remembered(tmp_path).get({"a": 1}) == "well"
    assert Remembered(tmp_path).get({"a": 2}) is None


HARNESS = (
    ("metrics:\n", "metrics:\n  capable: {lm_eval: tasks/mini_choice.yaml, value: acc, chat_template: false, items: 240, better: higher, missing: fail}\n"),
)  # fmt: skip


def test_the_harness_opens_its_tasks(project: Any, tiny: Path) -> None:
    """Of a task whose data lie in the bundle nothing is tried by `epc run`: here the trial itself is run."""
    shutil.copytree(ROOT / "specs/tasks", project.spec.parent / "tasks")
    project.compile(*HARNESS)
    project.finish_model(tiny)
    assert "harness" not in project.check(until="capability")
    step = project.step("capability")
    trial = trials.Trial(kind="engine", step=step, what="harness", identity={})
    (said,) = trials.run(project.bundle, [trial], {})
    assert "harness opened mini_choice: 960 requests on cpu" in str(said)
