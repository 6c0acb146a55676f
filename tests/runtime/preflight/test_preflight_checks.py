"""What a preflight looks at before anything expensive: each check on a really compiled experiment."""

from __future__ import annotations

import json
import os
import resource
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from tests.runtime.preflight.conftest import PROMPTED, codes

from epc.compiler import cost
from epc.runtime.devices import VISIBLE
from epc.runtime.errors import Fault
from epc.runtime.preflight import disk, gpu, libraries, needs
from epc.runtime.preflight.outcome import NAMES, FailedError, Row, overridden, size

GIB = 2**30
TRAINING = {name: metadata.version(name) for name in libraries.TRAINING}


def test_what_is_expensive_is_asked_for_and_nothing_else(project: Any) -> None:
    project.compile(*PROMPTED)
    rows = project.check()
    assert list(rows) == [
        "GPU",
        "disk",
        "packages",
        "model",
        "inputs",
        "keys",
        "transformers engine",
        "judge alignment",
    ]
    assert rows["transformers engine"].found == "not tried: what failed comes first"
    project.finish("sample", {"index.json": "[]"})
    project.finish("model", {})
    assert list(project.check()) == ["disk", "packages", "finished steps", "inputs", "keys", "judge alignment"]
    project.finish("judge-alignment", {"judgements.jsonl": "", "outcomes.json": "{}"})
    assert project.missing()
    assert project.check() == {}


def test_steps_that_a_run_leaves_out_are_not_looked_at(project: Any) -> None:
    project.compile(*PROMPTED)
    assert "keys" not in project.check(until="sample")
    assert project.check(until="model") == {}


# GPU -----------------------------------------------------------------------------------------

H200 = "{index}, GPU-{index}aaa, NVIDIA H200, 143771, {used}, {free}\n"
TWO = H200.format(index=0, used=140000, free=3771) + H200.format(index=1, used=4, free=143767)
HOLDERS = "GPU-0aaa, 4711, /usr/bin/python3, 139000\nGPU-0aaa, 4712, [Not Found], [N/A]\n"


def test_devices_and_who_holds_them() -> None:
    first, second = gpu.parsed(TWO, HOLDERS, None).devices
    assert (first.name, first.total, first.free) == ("NVIDIA H200", 143771 * 2**20, 3771 * 2**20)
    assert first.held == "process 4711 (python3) 139,000 MiB, process 4712 ([Not Found])"
    assert second.held == "nobody"
    (alone,) = gpu.parsed(H200.format(index=0, used=140000, free=3771), "", None).devices
    assert alone.held == "a process that cannot be seen from here"


@pytest.mark.parametrize(
    ("chosen", "expected"),
    [(None, [0, 1]), ("1", [1]), ("1,0", [1, 0]), ("GPU-1a", [1]), ("", []), ("-1", []), ("1,7,0", [1])],
)
def test_devices_that_cuda_shows(chosen: str | None, expected: list[int]) -> None:
    assert [device.index for device in gpu.parsed(TWO, "", chosen).devices] == expected


def base_of(parameters: int, step: Any) -> needs.Base:
    return needs.Base(step=step, finished=True, folder=None, parameters=parameters, dtype="bfloat16")


ONE_FREE = H200.format(index=0, used=4, free=143767)
ONE_FULL = H200.format(index=0, used=140000, free=3771)
ROOM = [
    # (nvidia-smi, parameters, engines, codes, what is said)
    ("free", ONE_FREE, 7_600_000_000, [], [[]], "GPU 0 140 of 140 GiB free"),
    ("full", ONE_FULL, 7_600_000_000, [], [["R1901"]], "3.7 GiB"),
    ("too small for the reserve of vLLM", "0, GPU-0, A, 16384, 0, 16384\n", 7_000_000_000, ["vllm"], [["R1901"]], "16 GiB"),
    ("enough for transformers", "0, GPU-0, A, 16384, 0, 16384\n", 7_000_000_000, ["transformers"], [[]], ""),
    ("one of two is enough", TWO, 7_600_000_000, [], [[], []], ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("devices", "parameters", "engines", "expected", "said"), [c[1:] for c in ROOM], ids=[c[0] for c in ROOM]
)
def test_room_on_the_gpu(
    devices: str, parameters: int, engines: Any, expected: list[list[str]], said: str, project: Any
) -> None:
    project.compile()
    seen = gpu.parsed(devices, HOLDERS, None)
    rows = list(
        gpu.rows(seen, base_of(parameters, project.step("model")), project.missing(), engines=engines, chosen=None)
    )
    assert [codes(row) for row in rows] == expected
    assert said in rows[0].brief or said in rows[0].found
    if rows[0].faults and "H200" in rows[0].found:
        assert "process 4711 (python3)" in rows[0].faults[0].fact
        assert "kill 4711 4712" in rows[0].faults[0].remedy


LOST = [
    ("", "Failed to initialize NVML: Driver/library version mismatch", 18, "version mismatch"),
    ("", "NVIDIA-SMI has failed because it could not communicate with the NVIDIA driver.", 9, "communicate"),
    (
        "Unable to determine the device handle for GPU 0000:3D:00.0: GPU is lost. Reboot the system",
        "",
        15,
        "GPU is lost",
    ),
    ("0, GPU-0aaa, NVIDIA H200, [GPU is lost], [GPU is lost], [GPU is lost]\n", "", 0, "0: GPU is lost"),
]


@pytest.mark.parametrize(("out", "err", "code", "said"), LOST)
def test_a_lost_gpu_is_a_failure_in_the_words_of_the_driver(
    out: str, err: str, code: int, said: str, nvidia_smi: Any
) -> None:
    seen = gpu.look({"PATH": nvidia_smi(out, err=err, code=code)})
    assert seen.fault is not None
    assert (seen.fault.code, seen.devices) == ("R1903", ())
    assert said in seen.fault.fact
    assert "Xid" in seen.fault.remedy


def test_a_driver_that_hangs_is_given_up(nvidia_smi: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = nvidia_smi("")
    (tmp_path / "bin/nvidia-smi").write_text("#!/bin/sh\nexec sleep 60\n")
    monkeypatch.setattr(gpu, "SECONDS", 0.2)
    seen = gpu.look({"PATH": path})
    assert seen.fault is not None
    assert "no answer" in seen.fault.fact


@pytest.mark.parametrize(
    ("out", "code", "known"),
    [("No devices were found\n", 6, False), ("", 0, False), ("0, GPU-0, A100, [N/A], [N/A], [N/A]\n", 0, True)],
)
def test_no_device_and_one_that_says_nothing(out: str, code: int, known: bool, nvidia_smi: Any) -> None:
    seen = gpu.look({"PATH": nvidia_smi(out, code=code)})
    assert (seen.devices, seen.fault, bool(seen.unknown)) == ((), None, known)


def test_a_gpu_is_seen_through_the_whole_check(project: Any, nvidia_smi: Any, tiny: Path) -> None:
    project.compile()
    project.finish_model(tiny)
    row = project.check(PATH=nvidia_smi(TWO, HOLDERS), CUDA_VISIBLE_DEVICES="0")["GPU 0"]
    assert row.state == "ok"
    assert "held by process 4711" in row.found


def test_without_a_gpu_a_large_model_fails_and_a_small_one_does_not(project: Any) -> None:
    project.compile()
    step = project.step("model")
    (large,) = gpu.rows(gpu.Seen(), base_of(7_000_000_000, step), [step], engines=[], chosen="")
    assert codes(large) == ["R1902"]
    assert "7.0 billion" in large.faults[0].fact
    assert f"hidden by {VISIBLE}=" in large.faults[0].fact
    (small,) = gpu.rows(gpu.Seen(), base_of(1000, step), [step], engines=[], chosen=None)
    assert small.state == "ok"
    assert small.brief == f"no GPU, {needs.threads()} thread" + ("s" if needs.threads() > 1 else "")


def test_large_is_what_the_compiler_calls_large() -> None:
    assert needs.LARGE == cost.LARGE


# Disk ----------------------------------------------------------------------------------------

ROWS_OF = """
import json, sys
from pathlib import Path
from epc.runtime.preflight import disk
rows = list(disk.rows({Path(sys.argv[1]): int(sys.argv[2])}, "model 1 GiB"))
print(json.dumps([[row.state, [[f.code, f.fact] for f in row.faults]] for row in rows]))
"""


def probed(folder: Path, number: int, **options: Any) -> Any:
    command = [sys.executable, "-c", ROWS_OF, str(folder), str(number)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, **options)
    return json.loads(done.stdout)


def test_room_is_reserved_and_given_back(tmp_path: Path) -> None:
    free = os.statvfs(tmp_path).f_bavail
    (row,) = disk.rows({tmp_path / "a/store": 300 * 2**20, tmp_path / "b": 10 * 2**20}, "")
    assert row.state == "ok"
    assert row.found == "310 MiB reserved and given back"
    assert {path for path in tmp_path.rglob("*") if path.is_file()} == set()
    assert os.statvfs(tmp_path).f_bavail > free - 2**14  # others write here too


def test_a_limit_on_the_size_of_files_is_met(tmp_path: Path) -> None:
    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (2**20, 2**20))

    ((state, [[code, fact]]),) = probed(tmp_path, 2**24, preexec_fn=limit)
    assert (state, code) == ("failed", "R1911")
    assert "16 MiB" in fact


@pytest.fixture
def small_disk(tmp_path: Path) -> Any:
    """A tmpfs of 16 MiB in a mount namespace of its own: a command that runs there."""
    inside = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c"]
    mount = f"mount -t tmpfs -o size=16m none {tmp_path} && exec "
    if subprocess.run([*inside, f"{mount}true"], capture_output=True).returncode:
        pytest.skip("no file system may be mounted here")
    return lambda command: subprocess.run([*inside, mount + command], capture_output=True, text=True, check=True).stdout


def test_a_full_disk(small_disk: Any, tmp_path: Path) -> None:
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(ROWS_OF)
    for number, expected in ((2**20, "ok"), (2**26, "failed")):
        ((state, faults),) = json.loads(small_disk(f"{sys.executable} {script} {tmp_path}/store {number}"))
        assert state == expected
        assert [code for code, _ in faults] == ["R1910"] * (expected == "failed")
    script.unlink()
    assert "64 MiB here" in faults[0][1]
    assert "16 MiB free" in faults[0][1]


def test_folders_of_one_disk_are_reserved_together(small_disk: Any, tmp_path: Path) -> None:
    """Each of the two would fit by itself."""
    script = tmp_path.parent / f"{tmp_path.name}.py"
    script.write_text(
        "import sys\nfrom pathlib import Path\nfrom epc.runtime.preflight import disk\n"
        "root = Path(sys.argv[1])\nprint([row.state for row in disk.rows({root / 'a': 10 << 20, root / 'b': 10 << 20}, '')])\n"
    )
    assert small_disk(f"{sys.executable} {script} {tmp_path}").strip() == "['failed']"
    script.unlink()


def test_a_folder_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("")
    (row,) = disk.rows({tmp_path / "store": 2**20}, "")
    assert codes(row) == ["R1912"]


def test_what_a_run_will_write(project: Any, tiny: Path) -> None:
    """The adapters of the tiny model, by their real size."""
    project.compile()
    project.finish_model(tiny)
    base = needs.base_model(project.bundle, project.manifest)
    assert base is not None
    shapes = {tensor.name.split(".")[-2]: tensor.shape for tensor in needs.tensors(tiny) if ".layers.0." in tensor.name}
    one = 4 * 4 * 2 * sum(sum(shape) for shape in shapes.values() if len(shape) == 2)
    parts = dict(needs.writes(project.bundle, project.missing(), base).parts)
    assert parts["adapters"] == 2 * one
    assert parts["completions"] == 2 * 24 * (needs.ROW_BYTES + 2 * len("{prompt}none") + 4 * needs.TOKEN_BYTES)
    assert parts["judgements"] == 2 * 24 * needs.CALL_BYTES
    assert base.parameters == sum(
        tensor.shape[0] * (tensor.shape[1] if len(tensor.shape) > 1 else 1) for tensor in needs.tensors(tiny)
    )


# Packages and versions -----------------------------------------------------------------------


def test_a_missing_package_is_named_with_the_extra_that_brings_it(
    project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    project.compile()
    known = metadata.version

    def version(name: str) -> str:
        if name in ("trl", "anthropic"):
            raise metadata.PackageNotFoundError(name)
        return known(name)

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setattr(libraries.importlib.util, "find_spec", lambda name: None)
    row = libraries.packages(project.missing(), {}, gpu=False)
    assert codes(row) == ["R1915", "R1915"]
    assert [fault.remedy for fault in row.faults] == [
        "pip install 'epc-prereg[local]'", "pip install 'epc-prereg[judge]'"
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("version", "wanted", "below", "outside"),
    [
        ("2.13.0+cpu", "<=2.13.0,>=2.11", False, False),
        ("2.14.0", "<=2.13.0,>=2.11", False, True),
        ("2.10.1", "<=2.13.0,>=2.11", True, True),
        ("4.57.1", "<6,>=5.17", True, True),
        ("6.0.0rc1", "<6,>=5.17", False, True),
        ("unknown", "<6,>=5.17", False, False),
    ],
)
def test_ranges(version: str, wanted: str, below: bool, outside: bool) -> None:
    assert libraries._against(version, wanted) == (below, outside)


def test_installed_packages_are_in_the_ranges_of_the_project(project: Any) -> None:
    project.compile()
    row = libraries.packages(project.missing(), {"sample": "transformers"}, gpu=False)
    assert (row.faults, row.warnings) == ((), ())
    assert row.found.startswith("6 of 6")


@pytest.mark.parametrize(
    ("then", "expected"),
    [(TRAINING, []), (TRAINING | {"trl": "1.0.0"}, ["R1917"]), ({"python": "3.9.1"}, [])],
    ids=["the same", "another trl", "not recorded"],
)
def test_a_library_that_changed_between_two_arms(then: dict[str, str], expected: list[str], project: Any) -> None:
    project.compile()
    project.finish(
        "train-s42-attack"
        if "train-s42-attack" in {s.id for s in project.manifest.steps}
        else _first_training(project),
        {},
        then,
    )
    row = project.check()["versions"]
    assert codes(row) == expected
    if expected:
        assert f"pip install trl=={then['trl']}" in row.faults[0].remedy
        changed = project.check(despite=("versions",))["versions"]
        assert changed.state == "warned"
        assert "trl was 1.0.0" in changed.warnings[0]


def _first_training(project: Any) -> str:
    return str(next(step.id for step in project.manifest.steps if step.kind == "train"))


def test_versions_matter_only_between_trainings(project: Any) -> None:
    project.compile()
    for step in project.manifest.steps:
        if step.kind == "train":
            project.finish(step.id, {}, TRAINING | {"trl": "1.0.0"})
    assert "versions" not in project.check()


# Content -------------------------------------------------------------------------------------


def test_finished_steps_are_hashed_again(project: Any) -> None:
    project.compile()
    folder = project.finish("data-rows", {"rows.jsonl": "one\n"})
    assert project.check()["finished steps"].state == "ok"
    (folder / "rows.jsonl").write_text("two\n")
    row = project.check()["finished steps"]
    assert codes(row) == ["R1920"]
    assert "data-rows/rows.jsonl was altered" in row.faults[0].fact
    (folder / "rows.jsonl").unlink()
    assert "is missing" in project.check()["finished steps"].faults[0].fact


@pytest.mark.parametrize(
    ("file", "said"),
    [("prompts/heldout.txt", "prompts of answer"), ("rubric.txt", "rubric"), ("chat_template.jinja", "chat template")],
)
def test_inputs_are_the_registered_ones(file: str, said: str, project: Any) -> None:
    project.compile()
    assert project.check()["inputs"].state == "ok"
    (found,) = (path for path in (project.bundle / "inputs").rglob(Path(file).name))
    found.write_text(found.read_text() + "One line more.\n")
    row = project.check()["inputs"]
    assert codes(row) == ["R1922"]
    assert said in row.faults[0].fact
    found.unlink()
    assert "is missing" in project.check()["inputs"].faults[0].fact


def test_a_script_that_cannot_be_read_fails_before_the_steps_in_front_of_it(project: Any) -> None:
    project.compile()
    script = project.bundle / project.step("sample").script
    script.write_text(script.read_text() + "def (\n")
    (fault,) = project.check()["inputs"].faults
    assert (fault.code, fault.place) == ("R1922", str(script))
    assert "script of sample" in fault.fact


def test_a_local_model_that_is_gone(project: Any) -> None:
    project.compile()
    (project.spec.parent / "model").unlink()
    assert codes(project.check()["model"]) == ["R0305"]


INFO = {
    "id": "a/model", "sha": "0" * 40, "safetensors": {"parameters": {"BF16": 1000}, "total": 1000},
    "siblings": [{"rfilename": "model.safetensors", "size": 2000}, {"rfilename": "pytorch_model.bin", "size": 9000}],
}  # fmt: skip
HUB: list[tuple[str, int | None, list[str], str]] = [
    ("there", 200, [], "to be downloaded"),
    ("no such revision", 404, ["R1921"], "404"),
    ("gated", 401, ["R1921"], "401"),
    ("nobody answers", None, ["R1921"], "cannot be had"),
]


@pytest.mark.parametrize(("status", "expected", "said"), [case[1:] for case in HUB], ids=[case[0] for case in HUB])
def test_a_model_of_the_hub(
    status: int | None, expected: list[str], said: str, project: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            assert status is not None
            body = json.dumps(INFO if status == 200 else {"error": "no"}).encode()
            self.send_response(status)
            self.send_header("content-type", "application/json")
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            """Silence."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    if status is None:
        server.server_close()
    else:
        threading.Thread(target=server.serve_forever, daemon=True).start()
    project.compile(
        ('path:model", dtype: float32', f'hub:a/model", revision: {"0" * 40}, dtype: bfloat16'),
    )
    try:
        base = needs.base_model(project.bundle, project.manifest)
    finally:
        if status is not None:
            server.shutdown()
            server.server_close()
    assert base is not None
    assert ([] if base.fault is None else [base.fault.code]) == expected
    assert said in (base.about if base.fault is None else base.fault.fact)
    if not expected:
        assert (base.parameters, base.weights, base.download) == (1000, 2000, 2000)


# Keys ----------------------------------------------------------------------------------------

OPENAI = (
    "provider: anthropic, model: claude-sonnet-4-5-20250929",
    "provider: openai, model: m, price: {input: 0, output: 0}",
)
KEYS = [
    ((), {}, ["R0812"]),
    ((), {"ANTHROPIC_API_KEY": "  "}, ["R0812"]),
    ((), {"ANTHROPIC_API_KEY": "sk-secret"}, []),
    ((OPENAI,), {}, ["R0830"]),
    ((OPENAI,), {"OPENAI_BASE_URL": "http://127.0.0.1:1/v1"}, []),
    ((OPENAI,), {"OPENAI_BASE_URL": "https://else.where/v1"}, ["R0812"]),
    ((OPENAI,), {"OPENAI_BASE_URL": "https://else.where/v1", "OPENAI_API_KEY": "sk-secret"}, []),
]


@pytest.mark.parametrize(("changes", "environment", "expected"), KEYS)
def test_keys(changes: Any, environment: dict[str, str], expected: list[str], project: Any) -> None:
    project.compile(*changes)
    row = project.check(**environment)["keys"]
    assert codes(row) == expected
    assert "sk-secret" not in repr(row)


# What is made of it --------------------------------------------------------------------------


def test_all_failures_are_told_at_once_and_nothing_is_tried(project: Any, nvidia_smi: Any) -> None:
    project.compile()
    (project.spec.parent / "model").unlink()
    project.finish("data-rows", {"rows.jsonl": "one\n"})
    (project.store("data-rows") / "rows.jsonl").write_text("two\n")
    lost = nvidia_smi("", err="Unable to determine the device handle: GPU is lost", code=15)
    rows = project.check(fetch=True, ask=True, PATH=lost)
    faults = [fault for row in rows.values() for fault in row.faults]
    assert [fault.code for fault in faults] == ["R1903", "R0305", "R1920", "R0812"]
    assert rows["transformers engine"].found == "not tried: what failed comes first"
    told = FailedError(faults).render()
    assert told.count("= help: ") == 4
    assert told.endswith("preflight: 4 failures; nothing expensive was started")
    assert not (project.bundle / "logs/model.log").exists()


def test_going_on_despite_a_failure() -> None:
    fault = Fault("R1910", "here", "no room", "make some")
    rows = [
        Row(check="disk", what="disk", found="", faults=(fault,)),
        Row(check="keys", what="keys", found="", faults=(fault,)),
    ]
    changed = overridden(rows, ["disk"])
    assert [row.state for row in changed] == ["warned", "failed"]
    assert changed[0].warnings == ("gone on despite: no room",)


def test_an_unknown_check_is_refused(project: Any) -> None:
    project.compile()
    with pytest.raises(Fault) as caught:
        project.check(despite=("everything",))
    assert caught.value.code == "R1930"
    assert all(name in caught.value.remedy for name in NAMES)


@pytest.mark.parametrize(
    ("number", "expected"),
    [(0, "0 KiB"), (1, "1 KiB"), (64 * 2**20, "64 MiB"), (GIB * 5 // 2, "2.5 GiB"), (141 * GIB, "141 GiB")],
)
def test_sizes(number: int, expected: str) -> None:
    assert size(number) == expected
