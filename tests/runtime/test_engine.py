"""`epc run` with the real Snakemake on a toy bundle: what runs, what is kept, what is said."""

from __future__ import annotations

import errno
import importlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.manifest import Pending
from epc.runtime import engine, journal, locking, progress, registration
from epc.runtime.errors import Fault
from epc.runtime.step import FinishRecord

ALL = ["data", "other", "sample", "train"]
WAIT = 60.0
PAUSE = "    (BUNDLE / 'began').touch()\n    time.sleep(60)"
RUN = """
import sys
from pathlib import Path
from rich.console import Console
from epc.runtime import engine
sys.exit(engine.run(Path(sys.argv[1]), cores=2, console=Console(width=200)))
"""


def run(toy: Any, **options: Any) -> tuple[int, str]:
    console = Console(file=StringIO(), width=200)
    code = engine.run(toy.root, **({"cores": 2} | options), console=console)
    assert isinstance(console.file, StringIO)
    return code, console.file.getvalue()


def spawn(toy: Any) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", RUN, str(toy.root)], text=True, stdout=subprocess.PIPE)


def finish(toy: Any, *step_ids: str) -> None:
    """Steps as if they had run."""
    for step_id in step_ids:
        step = next(step for step in toy.manifest.steps if step.id == step_id)
        folder = toy.store(step_id)
        folder.mkdir(parents=True)
        (folder / "out.txt").write_text(step_id)
        record = FinishRecord(
            id=step_id, key=step.key, kind=step.kind, mode="real", recipe=step.recipe, outputs={}, seconds=1.0,
            versions={}, facts={},
        )  # fmt: skip
        (folder / "finished.json").write_text(record.model_dump_json())


def wait_for(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + WAIT
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.02)


def reasons(toy: Any) -> dict[str, tuple[str, str]]:
    return {entry.step.id: (entry.state, entry.reason) for entry in engine.plan(toy.root)}


# What runs -----------------------------------------------------------------------------------


def test_all_run_once_then_only_what_is_missing(toy: Any) -> None:
    toy.threads["other"] = 2
    toy.bodies["other"] = "    import os\n    (BUNDLE / 'threads').write_text(os.environ['OMP_NUM_THREADS'])"
    toy.compile()
    code, said = run(toy)
    assert code == 0
    assert toy.ran() == ALL
    assert (toy.root / "threads").read_text() == "2"
    for step_id in ALL:
        assert f"finished  {step_id}  " in said
        assert "finished in" in (toy.root / f"logs/{step_id}.log").read_text()
    assert "registered toy as" in said
    assert "all 4 steps are finished, 4 of them now" in said
    assert [entry.event for entry in journal.read(toy.root)].count("finished") == 4

    code, said = run(toy)
    assert (code, toy.ran()) == (0, [])
    assert "nothing to run: all 4 steps are finished" in said
    assert "registered toy" not in said

    # A lost folder is made again; what was made from it stays.
    train = toy.store("train") / "finished.json"
    before = train.stat().st_mtime_ns
    (toy.store("data") / "finished.json").unlink()
    (toy.store("data") / "out.txt").unlink()
    toy.store("data").rmdir()
    assert reasons(toy)["data"] == ("run", "finished once, its store folder is gone")
    assert run(toy)[0] == 0
    assert toy.ran() == ["data"]
    assert train.stat().st_mtime_ns == before

    # A changed recipe runs under its own key, and all that follows; its reversal runs nothing.
    toy.recipes["train"] |= {"learning_rate": 0.002}
    toy.compile()
    assert run(toy)[0] == 0
    assert toy.ran() == ["sample", "train"]
    toy.recipes["train"] |= {"learning_rate": 0.001}
    toy.compile()
    assert run(toy)[0] == 0
    assert toy.ran() == []


@pytest.mark.parametrize(
    ("own", "seen"),
    [
        ({}, ["PASSIVE", "0"]),
        ({"OMP_WAIT_POLICY": "ACTIVE"}, ["ACTIVE", None]),
        ({"GOMP_SPINCOUNT": "7"}, [None, "7"]),
        ({"OMP_WAIT_POLICY": "ACTIVE", "GOMP_SPINCOUNT": "7"}, ["ACTIVE", "7"]),
    ],
)
def test_threads_of_a_step_sleep_while_they_wait_unless_the_user_says_otherwise(
    toy: Any, monkeypatch: pytest.MonkeyPatch, own: dict[str, str], seen: list[str | None]
) -> None:
    names = ["OMP_WAIT_POLICY", "GOMP_SPINCOUNT"]
    for name in names:
        monkeypatch.delenv(name, raising=False)
    for name, value in own.items():
        monkeypatch.setenv(name, value)
    toy.bodies["data"] = (
        f"    import json, os\n    (BUNDLE / 'seen').write_text(json.dumps([os.environ.get(n) for n in {names}]))"
    )
    toy.compile()
    assert run(toy, until="data")[0] == 0
    assert json.loads((toy.root / "seen").read_text()) == seen


def test_until_runs_a_step_and_what_it_needs(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(toy.root / "manifest.json" / "no home"))  # as in a container for any user
    code, said = run(toy, until="train")
    assert (code, toy.ran()) == (0, ["data", "train"])
    assert "all 2 steps are finished" in said


def test_snakemake_never_deletes_a_finish_record(toy: Any) -> None:
    """Neither one that appeared after it had planned, nor one of a job that failed later."""
    toy.after["data"] = "import subprocess\nsubprocess.run([sys.executable, BUNDLE / 'steps/train.py'], check=True)"
    toy.after["other"] = "sys.exit(3)"
    toy.compile()
    assert run(toy)[0] == 1
    assert toy.ran() == ["data", "other", "train"]
    for step_id in ("data", "train", "other"):
        assert (toy.store(step_id) / "finished.json").exists()
        assert (toy.store(step_id) / "out.txt").exists()
    assert "already finished" in (toy.root / "logs/train.log").read_text()


# What waits for a freeze ---------------------------------------------------------------------

BUILT = Pending(name="data.traces", kind="built", file="data")
EXTERNAL = Pending(name="prompts.heldout", kind="external", file="ext/p.txt", source="a paper")
ROWS = '{"messages": []}\n' * 3


def build_rows(toy: Any) -> None:
    toy.bodies["data"] = f"    (step.out / 'rows.jsonl').write_text({ROWS!r})"


def test_nothing_is_trained_before_built_rows_are_frozen(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    build_rows(toy)
    toy.pending = (BUILT,)
    toy.lock = "data: {traces: {sha256: pending}}\n"
    toy.compile()
    monkeypatch.chdir(toy.root)
    console = Console(file=StringIO(), width=200)
    with pytest.raises(Fault) as caught:
        engine.run(toy.root, cores=2, console=console)
    fault = caught.value
    assert (fault.code, fault.exit_code, fault.place) == ("R0762", 2, "specs/toy.yaml")
    assert fault.fact == (
        "train, sample wait until the data are frozen\n"
        f"       data.traces: store/{toy.key('data')}/rows.jsonl, 3 rows, SHA-256 {sha256_text(ROWS)}"
    )
    assert "epc freeze specs/toy.yaml" in fault.remedy
    assert "all 2 steps that need not wait are finished, 2 of them now" in console.file.getvalue()  # type: ignore[attr-defined]
    assert toy.ran() == ["data", "other"]

    with pytest.raises(Fault, match="R0762"):  # nothing is left to do but to freeze
        run(toy)
    assert toy.ran() == []
    assert run(toy, until="data")[0] == 0

    new = toy.lock.replace("pending", sha256_text(ROWS))
    registration.freeze(toy.root, toy.manifest, new, {"data.traces": sha256_text(ROWS)})
    toy.lock, toy.pending = new, ()
    toy.compile()
    code, said = run(toy)
    assert (code, toy.ran()) == (0, ["sample", "train"])
    assert "deviation" not in said


def test_a_preparation_that_fails_is_told_first(toy: Any) -> None:
    toy.bodies["data"] = "    sys.exit('the texts are gone')"
    toy.pending = (BUILT,)
    toy.compile()
    code, said = run(toy)
    assert code == 1
    assert "the texts are gone" in said
    assert "not run: train" not in said


@pytest.mark.parametrize("until", [None, "data"])
def test_nothing_runs_before_external_files_are_frozen(toy: Any, until: str | None) -> None:
    toy.pending = (EXTERNAL, BUILT)
    toy.figures = {"usd": 5.0}
    toy.compile()
    with pytest.raises(Fault) as caught:
        run(toy, until=until)
    assert caught.value.code == "R0761"
    assert caught.value.fact.splitlines()[1:] == [
        "       prompts.heldout: ext/p.txt, relative to specs/toy.yaml (put it there; from a paper)"
    ]
    assert toy.ran() == []
    assert journal.read(toy.root) == []


def test_the_plan_says_what_must_be_frozen_first(toy: Any) -> None:
    toy.pending = (BUILT,)
    toy.compile()
    finish(toy, "other")
    waits = ("waits", "waits for epc freeze of data.traces")
    expected = {"data": ("run", "never run"), "train": waits, "other": ("done", "finished"), "sample": waits}
    assert reasons(toy) == expected
    assert run(toy, plan_only=True)[1].endswith("3 of 4 steps must run\nepc freeze must fill in first: data.traces\n")
    toy.pending = (EXTERNAL, BUILT)
    toy.compile()
    assert reasons(toy)["data"] == ("waits", "waits for epc freeze of prompts.heldout")


# What is kept --------------------------------------------------------------------------------


def test_kill_9_loses_nothing_finished(toy: Any) -> None:
    toy.bodies["train"] = PAUSE
    toy.compile()
    process = spawn(toy)
    wait_for((toy.root / "began").exists)
    wait_for((toy.store("other") / "finished.json").exists)
    running = int((toy.root / "store" / f"{toy.key('train')}.partial" / ".lock").read_text())
    process.kill()
    process.wait()
    wait_for(lambda: ended(running))
    kept = [(toy.store(step_id) / "finished.json").stat().st_mtime_ns for step_id in ("data", "other")]
    assert toy.ran() == ["data", "other", "train"]
    assert reasons(toy)["train"] == ("run", "begun, not finished")

    toy.bodies.clear()
    toy.compile()
    assert run(toy)[0] == 0
    assert toy.ran() == ["sample", "train"]
    assert kept == [(toy.store(step_id) / "finished.json").stat().st_mtime_ns for step_id in ("data", "other")]
    journal.read(toy.root)


def ended(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(toy: Any, number: signal.Signals) -> None:
    toy.bodies["train"] = PAUSE
    toy.compile()
    process = spawn(toy)
    wait_for((toy.root / "began").exists)
    wait_for((toy.store("other") / "finished.json").exists)
    process.send_signal(number)
    said, _ = process.communicate(timeout=WAIT)
    assert process.returncode == 130
    assert "finished steps are kept; epc run goes on from here" in said
    assert "Traceback" not in said
    assert toy.ran() == ["data", "other", "train"]
    assert journal.read(toy.root)[-1].data["error"] == "interrupted"
    if number == signal.SIGINT:
        toy.bodies.clear()
        toy.compile()
        assert run(toy)[0] == 0
        assert toy.ran() == ["sample", "train"]


def test_a_step_that_ignores_ctrl_c_is_ended_by_a_second_one(toy: Any) -> None:
    toy.bodies["train"] = "    import signal\n    signal.signal(signal.SIGINT, signal.SIG_IGN)\n" + PAUSE
    toy.compile()
    process = spawn(toy)
    wait_for((toy.root / "began").exists)
    process.send_signal(signal.SIGINT)
    assert process.stdout is not None
    while "press Ctrl-C again" not in process.stdout.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=WAIT)
    assert process.returncode == 130
    locking.check_free(toy.root / "store" / f"{toy.key('train')}.partial" / ".lock")


# What is said when it does not work ----------------------------------------------------------


def test_a_failing_step_shows_its_last_lines_and_the_rest_goes_on(toy: Any) -> None:
    toy.bodies["data"] = "    for n in range(40):\n        print('line', n)\n    sys.exit('the data are bad')"
    toy.compile()
    code, said = run(toy)
    assert code == 1
    assert toy.ran() == ["data", "other"]
    assert "failed    data" in said
    assert f"step data failed; the last lines of {toy.root / 'logs/data.log'}:" in said
    lines = said.split("data.log:\n")[1].splitlines()
    shown = [line.strip() for line in lines[: lines.index("")]]
    assert shown == [*(f"line {n}" for n in range(26, 40)), "the data are bad"]
    assert "not run: train, sample" in said
    assert "step other failed" not in said


def test_scripts_that_die_without_a_word_to_the_journal(toy: Any) -> None:
    toy.bodies["data"] = "    import os\n    os.kill(os.getpid(), 9)"
    toy.compile()
    (toy.root / "steps/other.py").write_text("import nothing_of_this_name\n")
    code, said = run(toy)
    assert code == 1
    assert said.count("failed    other") == 1
    assert "ModuleNotFoundError: No module named 'nothing_of_this_name'" in said
    assert "failed    data" in said
    assert said.count("killed, most often for want of memory") == 1


def test_an_engine_that_cannot_start_shows_its_log(toy: Any) -> None:
    (toy.root / "Snakefile").write_text("import nothing_of_this_name\n")
    code, said = run(toy)
    assert code == 1
    assert "before any step failed" in said
    assert "engine.log" in said
    assert "nothing_of_this_name" in said


def without_snakemake(toy: Any, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(sys, "path", [entry for entry in sys.path if "site-packages" not in entry])
    patch.delitem(sys.modules, "snakemake", raising=False)  # another test may have imported it
    importlib.invalidate_caches()


def costs(toy: Any, patch: pytest.MonkeyPatch) -> None:
    toy.figures = {"usd": 12.5}
    toy.compile()


def lock_edited(toy: Any, patch: pytest.MonkeyPatch) -> None:
    (toy.root / "spec.lock.yaml").write_text(toy.lock.replace("0.05", "0.01"))


def record_truncated(toy: Any, patch: pytest.MonkeyPatch) -> None:
    finish(toy, "data")
    (toy.store("data") / "finished.json").write_text('{"id"')


def output_lost(toy: Any, patch: pytest.MonkeyPatch) -> None:
    finish(toy, "data")
    (toy.store("data") / "out.txt").unlink()


def disk_full(toy: Any, patch: pytest.MonkeyPatch) -> None:
    (toy.root / "logs").mkdir()
    (toy.root / "logs" / "engine.log").symlink_to("/dev/full")


def journal_cut(toy: Any, patch: pytest.MonkeyPatch) -> None:
    (toy.root / "journal.jsonl").write_text("{}\n")


REFUSED: dict[str, tuple[Callable[[Any, pytest.MonkeyPatch], None], dict[str, str], str, str, str]] = {
    # arrange, options of run, code, part of the fact, part of the remedy
    "no Snakemake": (without_snakemake, {}, "R0701", "not installed", 'pip install "epc-prereg[local]"'),
    "unknown step": (lambda *_: None, {"until": "evaluate"}, "R0706", "no step evaluate", "data, train, other, sample"),
    "not approved": (costs, {}, "R0704", "12.50 USD", "epc approve"),
    "lock edited": (lock_edited, {}, "R0752", "edited by hand", "compile it again"),
    "record truncated": (record_truncated, {}, "R0201", "finish record of step data", "run again"),
    "output lost": (output_lost, {}, "R0707", "lost out.txt", "only this step is redone"),
    "disk full": (disk_full, {}, "R0711", "no space left", "finished steps are kept"),
    "journal damaged": (journal_cut, {}, "R0401", "cannot be read", "backup"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_stops_a_run_before_it_begins(toy: Any, monkeypatch: pytest.MonkeyPatch, case: str) -> None:
    arrange, options, code, fact, remedy = REFUSED[case]
    arrange(toy, monkeypatch)
    with pytest.raises(Fault) as caught:
        run(toy, **options)
    assert caught.value.code == code
    assert fact in caught.value.fact
    assert remedy in caught.value.remedy
    assert toy.ran() == []


def test_the_cost_is_shown_before_anything_is_dispatched(toy: Any) -> None:
    toy.figures = {"judge_calls": 24000.0, "usd": 133.2}
    toy.arithmetic = {"usd": "24,000 x $0.00555"}
    toy.compile()
    console = Console(file=StringIO(), width=200)
    with pytest.raises(Fault, match="R0704"):
        engine.run(toy.root, cores=2, console=console)
    said = console.file.getvalue()  # type: ignore[attr-defined]
    assert "judge calls, retries not counted  24,000" in said
    assert "dollars for judges, at most       133.20  24,000 x $0.00555" in said
    assert toy.ran() == []
    assert not (toy.root / "store").exists()
    registration.approve(toy.root, toy.manifest)
    assert run(toy)[0] == 0


def test_a_second_run_is_told_who_runs(toy: Any) -> None:
    held = locking.acquire(toy.root / ".lock")
    with pytest.raises(Fault, match=f"already being run by process {os.getpid()}") as caught:
        run(toy)
    assert caught.value.code == "R0702"
    locking.release(held)
    finish(toy, *ALL)
    assert run(toy)[0] == 0


def test_a_step_that_is_still_running_is_not_joined(toy: Any) -> None:
    partial = toy.root / "store" / f"{toy.key('data')}.partial"
    partial.mkdir(parents=True)
    held = locking.acquire(partial / ".lock")
    with pytest.raises(Fault, match="step data is still being run") as caught:
        run(toy)
    assert caught.value.code == "R0703"
    assert f"kill {os.getpid()}" in caught.value.remedy
    locking.release(held)


def test_other_errors_of_the_system_are_not_called_a_full_disk(toy: Any) -> None:
    (toy.root / "logs").write_text("a file where a folder must be")
    with pytest.raises(OSError, match=os.strerror(errno.EEXIST)):
        run(toy)


# epc run --plan ------------------------------------------------------------------------------


def nothing(toy: Any) -> None:
    pass


def rate(toy: Any) -> None:
    finish(toy, *ALL)
    toy.was = toy.key("train")
    toy.recipes["train"] |= {"learning_rate": 0.002}


def many(toy: Any) -> None:
    finish(toy, *ALL)
    toy.was = toy.key("train")
    toy.recipes["train"] = {"learning_rate": 0.001, "lora": {"r": 8, "alpha": 32}, "epochs": 2, "batch": 8}


def upstream(toy: Any) -> None:
    finish(toy, *ALL)
    toy.was = toy.key("data")
    toy.recipes["data"] = {"rows": 5}


def remade(toy: Any) -> None:
    """data changed and has run again; what follows has not."""
    finish(toy, *ALL)
    toy.was = toy.key("train")
    toy.recipes["data"] = {"rows": 5}
    toy.compile()
    finish(toy, "data")


def pieces(toy: Any) -> None:
    """A recipe that names content keys: they say nothing to a person."""
    toy.recipes["sample"] = {"n": 2, "pieces": ["0123456789abcdef"]}
    toy.compile()
    finish(toy, *ALL)
    toy.was = toy.key("sample")
    toy.recipes["sample"] = {"n": 3, "pieces": ["fedcba9876543210", "00000000ffffffff"]}


def no_record(toy: Any) -> None:
    finish(toy, *ALL)
    (toy.store("train") / "finished.json").unlink()


def unreadable(toy: Any) -> None:
    finish(toy, *ALL)
    (toy.store("train") / "finished.json").write_text("{")


def output_gone(toy: Any) -> None:
    finish(toy, *ALL)
    (toy.store("train") / "out.txt").unlink()


def empty_folder(toy: Any) -> None:
    finish(toy, "data", "other", "sample")
    toy.store("train").mkdir()


DONE = ("done", "finished")
PLANS: dict[str, tuple[Callable[[Any], None], dict[str, tuple[str, str]]]] = {
    "at first": (
        nothing,
        {
            "data": ("run", "never run"),
            "train": ("waits", "needs data, which must run"),
            "other": ("run", "never run"),
            "sample": ("waits", "needs train, other, which must run"),
        },
    ),
    "all done": (lambda toy: finish(toy, *ALL), dict.fromkeys(ALL, DONE)),
    "a value changed": (
        rate,
        {
            "data": DONE,
            "train": ("run", "learning_rate changed from 0.001 to 0.002 (was key {was})"),
            "other": DONE,
            "sample": ("waits", "needs train, which must run"),
        },
    ),
    "many values changed": (
        many,
        {
            "train": (
                "run",
                "lora.r changed from 16 to 8, lora.alpha added 32, epochs added 2 and 1 more (was key {was})",
            )
        },
    ),
    "an input changed": (
        upstream,
        {
            "data": ("run", "rows changed from 4 to 5 (was key {was})"),
            "train": ("waits", "needs data, which must run"),
            "sample": ("waits", "needs train, which must run"),
        },
    ),
    "an input was made again": (
        remade,
        {
            "train": ("run", "what it is made from changed (was key {was})"),
            "sample": ("waits", "needs train, which must run"),
        },
    ),
    "content keys": (pieces, {"sample": ("run", "n changed from 2 to 3 (was key {was})")}),
    "no record": (no_record, {"train": ("run", "store folder without its finish record"), "data": DONE}),
    "record unreadable": (unreadable, {"train": ("run", "finish record unreadable")}),
    "output gone": (output_gone, {"train": ("run", "its output out.txt is gone")}),
    "folder empty": (empty_folder, {"train": ("run", "never run"), "sample": DONE}),
}


@pytest.mark.parametrize("case", PLANS)
def test_one_reason_per_step(toy: Any, case: str) -> None:
    arrange, expected = PLANS[case]
    toy.was = ""
    arrange(toy)
    toy.compile()
    found = reasons(toy)
    assert list(found) == ["data", "train", "other", "sample"]
    assert {k: found[k] for k in expected} == {k: (s, r.format(was=toy.was)) for k, (s, r) in expected.items()}


def test_the_plan_is_printed_and_nothing_is_touched(toy: Any) -> None:
    finish(toy, "data")
    code, said = run(toy, plan_only=True)
    assert code == 0
    assert said.splitlines() == [
        "done   data    finished",
        "run    train   never run",
        "run    other   never run",
        "waits  sample  needs train, other, which must run",
        "3 of 4 steps must run",
    ]
    assert not (toy.root / "journal.jsonl").exists()
    assert not (toy.root / "logs").exists()


def test_a_run_names_what_changed_after_results(toy: Any) -> None:
    finish(toy, *ALL)
    run(toy)
    journal.append(
        toy.root, "finished", step="sample", kind="sample", key=toy.key("sample"), mode="real",
        lock_sha256=toy.manifest.lock_sha256,
    )  # fmt: skip
    toy.lock = toy.lock.replace("0.05", "0.02")
    toy.compile()
    _, said = run(toy)
    assert "deviation: the spec changed after results existed" in said
    assert "  gates.dead.when: headline.delta < 0.05 -> headline.delta < 0.02" in said
    registration.amend(toy.root, toy.manifest, "a typo")
    assert "deviation: amended after results existed" in run(toy)[1]


# What is shown while steps run ---------------------------------------------------------------


def published(toy: Any) -> progress.Progress | None:
    folder = toy.root / "logs"
    folder.mkdir(exist_ok=True)
    state = {"done": 12, "total": 16, "facts": {"loss": 1.2345678, "tokens_per_second": 240.0, "arm": "base"}}
    progress.progress_path(toy.root, "train").write_text(json.dumps(state))
    return progress.read_progress(toy.root, "train")


def test_a_terminal_gets_one_line_in_all_and_one_for_each_running_step(toy: Any) -> None:
    console = Console(file=StringIO(), width=100, force_terminal=True, color_system=None)
    screen = progress.display(console)
    assert isinstance(screen, progress.LiveDisplay)
    with screen:
        screen.say("finished  data  1.0 s")
        screen.show(1, 4, {"train": (83.0, published(toy)), "other": (2.0, None)})
        shown = console.file.getvalue()  # type: ignore[attr-defined]
    assert "1 of 4 steps" in shown
    assert "train  1:23  12/16  loss 1.235  tokens/s 240  arm base" in shown
    assert "other  0:02  starting" in shown
    assert "finished  data  1.0 s" in shown


def test_a_log_gets_plain_lines_now_and_then(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    console = Console(file=StringIO(), width=20)
    screen = progress.display(console)
    assert isinstance(screen, progress.PlainDisplay)
    state = {"train": (3700.0, published(toy))}
    with screen:
        screen.began("train")
        screen.show(1, 4, state)  # too early for a progress line
        monkeypatch.setattr(progress, "PLAIN_INTERVAL", 0.0)
        screen = progress.display(console)
        screen.show(1, 4, state)
    lines = console.file.getvalue().splitlines()  # type: ignore[attr-defined]
    assert lines == ["started   train", "running   train  1:01:40  12/16  loss 1.235  tokens/s 240  arm base"]


@pytest.mark.parametrize("content", ["", "{", "[]", '{"done": "x", "total": 1, "facts": {}}', '{"done": 1}'])
def test_progress_that_cannot_be_read_is_none(toy: Any, content: str) -> None:
    (toy.root / "logs").mkdir()
    progress.progress_path(toy.root, "train").write_text(content)
    assert progress.read_progress(toy.root, "train") is None
