"""The GPUs that the steps will see: their free memory, and who holds the rest.

They are asked through nvidia-smi, which comes with every driver, in a process of its own: a device that is lost can
keep whoever asks waiting for ever, and torch is not loaded for a question.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from epc.compiler.contract.devices import CONTEXT_MIB
from epc.compiler.contract.manifest import Step
from epc.runtime.devices import VISIBLE, hidden
from epc.runtime.errors import Fault
from epc.runtime.preflight import needs
from epc.runtime.preflight.outcome import GIB, Row, size
from epc.runtime.wording import count

SECONDS: Final = 30.0
"""For nvidia-smi, which starts the driver where nothing else has."""
MIB: Final = 2**20
MARGIN: Final = 1.1
"""Times the weights: what is needed at the very least to sample, or to train row by row."""
VLLM_RESERVE: Final = (0.05, 2 * 2**30)
"""Share of a GPU, and bytes at least, that the vLLM engine leaves free."""
DEVICES: Final = "index,uuid,name,memory.total,memory.used,memory.free"
HOLDERS: Final = "gpu_uuid,pid,process_name,used_memory"
NOT_THERE: Final = ("No devices were found",)
_ERROR = re.compile(r"\[(GPU is lost|Unknown Error|GPU requires reset|[^\]]*ERR[^\]]*)\]", re.IGNORECASE)
"""What stands in place of a number for a device that is gone."""


@dataclass(frozen=True, kw_only=True)
class Holder:
    """A process with memory on a GPU."""

    pid: int
    name: str
    used: int | None
    """Bytes, None where the driver does not say."""

    def __str__(self) -> str:
        used = "" if self.used is None else f" {self.used // MIB:,} MiB"
        return f"process {self.pid} ({self.name}){used}"


@dataclass(frozen=True, kw_only=True)
class Device:
    index: int
    uuid: str
    name: str
    total: int
    """Bytes."""
    used: int
    free: int
    holders: tuple[Holder, ...] = ()

    @property
    def crowded(self) -> bool:
        """Whether more is used than the driver takes by itself."""
        return self.used > self.total // 20

    @property
    def held(self) -> str:
        """Who holds its memory, for a person."""
        if self.holders:
            return ", ".join(map(str, self.holders))
        return "a process that cannot be seen from here" if self.crowded else "nobody"


@dataclass(frozen=True, kw_only=True)
class Seen:
    """GPUs as they were found, in the order in which a step sees them."""

    devices: tuple[Device, ...] = ()
    fault: Fault | None = None
    unknown: str = ""
    """Why nothing is known of a GPU that is there."""


def look(environment: Mapping[str, str] = os.environ) -> Seen:
    """The GPUs of this machine that CUDA_VISIBLE_DEVICES leaves to the steps; a driver that fails is a Fault R1903."""
    if hidden(environment.get(VISIBLE)):
        return Seen()
    nodes = any(Path("/dev").glob("nvidia[0-9]*"))
    program = shutil.which("nvidia-smi", path=environment.get("PATH"))
    if program is None:
        if nodes:
            return Seen(unknown="nvidia-smi is not installed here, so its memory is not known")
        if Path("/dev/kfd").exists():
            return Seen(unknown="it is no GPU of NVIDIA, so its memory is not known")
        return Seen()
    asked = _ask(program, f"--query-gpu={DEVICES}", environment)
    held = _ask(program, f"--query-compute-apps={HOLDERS}", environment) if isinstance(asked, str) else ""
    for answer in (asked, held):
        if isinstance(answer, Fault):
            return Seen(fault=answer)
    return parsed(str(asked or ""), str(held or ""), environment.get(VISIBLE))


def parsed(devices: str, holders: str, chosen: str | None) -> Seen:
    """The two tables of nvidia-smi, and the value of CUDA_VISIBLE_DEVICES, as devices."""
    by_device: dict[str, list[Holder]] = {}
    for line in holders.splitlines():
        uuid, _, rest = line.partition(",")
        pid, _, rest = rest.partition(",")
        name, _, used = rest.rpartition(",")
        if pid.strip().isdigit():
            known = int(used) * MIB if used.strip().isdigit() else None
            holder = Holder(pid=int(pid), name=Path(name.strip()).name, used=known)
            by_device.setdefault(uuid.strip(), []).append(holder)
    found: list[Device] = []
    for line in filter(None, map(str.strip, devices.splitlines())):
        if broken := _ERROR.search(line):
            return Seen(fault=_lost(f"{line.split(',')[0]}: {broken[0].strip('[]')}"))
        device = _device(line, by_device)
        if device is None:
            return Seen(unknown=f"nvidia-smi does not say how much memory it has: {line}")
        found.append(device)
    if chosen is not None and chosen.startswith("MIG-"):
        return Seen(unknown="a slice of one (MIG) is chosen, whose memory nvidia-smi does not list")
    return Seen(devices=tuple(_visible(found, chosen)))


def _ask(program: str, query: str, environment: Mapping[str, str]) -> str | Fault | None:
    """What nvidia-smi prints; None where there is no device at all."""
    try:
        done = subprocess.run(
            [program, query, "--format=csv,noheader,nounits"], capture_output=True, text=True, timeout=SECONDS,
            env=dict(environment), errors="replace",
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return _lost(f"nvidia-smi got no answer from it within {SECONDS:.0f} s")
    except OSError as error:
        return _lost(f"nvidia-smi cannot be started: {error.strerror}")
    said = " ".join(f"{done.stdout} {done.stderr}".split())
    if any(text in said for text in NOT_THERE):
        return None
    if done.returncode:
        return _lost(said[:300] or f"nvidia-smi ended with code {done.returncode}")
    return done.stdout


def _lost(said: str) -> Fault:
    return Fault(
        "R1903", "GPU", f"the driver does not answer for it: {said}",
        "look at nvidia-smi and at the system log (dmesg) for Xid errors; a lost GPU comes back by a reset or a restart of"
        " the machine. Without a GPU: CUDA_VISIBLE_DEVICES= hides it",
    )  # fmt: skip


def _device(line: str, holders: Mapping[str, Sequence[Holder]]) -> Device | None:
    """A line of the query; None for one without numbers."""
    parts = [part.strip() for part in line.split(",")]
    try:
        index, uuid, *name, total, used, free = parts
        return Device(
            index=int(index), uuid=uuid, name=", ".join(name), total=int(total) * MIB, used=int(used) * MIB,
            free=int(free) * MIB, holders=tuple(holders.get(uuid, ())),
        )  # fmt: skip
    except ValueError:
        return None


def _visible(devices: Sequence[Device], chosen: str | None) -> Iterator[Device]:
    """The devices that CUDA shows a process, in its order: those named, up to the first name that is none."""
    if chosen is None:
        yield from devices
        return
    for name in map(str.strip, chosen.split(",")):
        device = next(
            (device for device in devices if name in (str(device.index), device.uuid)
             or (name.startswith("GPU-") and device.uuid.startswith(name))), None,
        )  # fmt: skip
        if device is None:
            return
        yield device


# What is needed of them ----------------------------------------------------------------------


def rows(
    seen: Seen, base: needs.Base | None, steps: Sequence[Step], *, engines: Sequence[needs.Engine], chosen: str | None
) -> Iterator[Row]:
    """A row for each GPU that the steps may load their model on, or one of the processors where there is none.

    A step takes the GPU with most room, so one that is roomy enough will do. `chosen` is the value of
    CUDA_VISIBLE_DEVICES.
    """
    weights = None if base is None else base.weights
    if seen.fault is not None:
        yield Row(check="gpu", what="GPU", found="does not answer", faults=(seen.fault,))
    elif seen.unknown:
        yield Row(check="gpu", what="GPU", found=seen.unknown, warnings=(f"there is a GPU, but {seen.unknown}",))
    elif not seen.devices:
        yield _processors(base, weights, chosen)
    else:
        planned = max((step.resources.gpu_mib for step in steps), default=0) * MIB
        best = max(seen.devices, key=lambda device: device.free)
        for device in seen.devices:
            yield _on(device, weights, planned, steps, "vllm" in engines, best=device is best)


def needed(weights: int, total: int, *, vllm: bool) -> int:
    """Bytes that must be free on a GPU."""
    share, least = VLLM_RESERVE
    return round(MARGIN * weights) + CONTEXT_MIB * MIB + (max(least, round(share * total)) if vllm else 0)


def _on(device: Device, weights: int | None, planned: int, steps: Sequence[Step], vllm: bool, *, best: bool) -> Row:
    """`planned` are the bytes that the compiler foresees for the step that takes most; only the best device can fail."""
    what = f"GPU {device.index}"
    free, total = size(device.free), size(device.total)
    found = f"{free} of {total} free, {device.name}; held by {device.held}"
    brief = f"{what} {device.free / GIB:.0f} of {device.total / GIB:.0f} GiB free"
    if weights is None:
        return Row(check="gpu", what=what, found=found, needed="known when the model is here", brief=brief)
    least = needed(weights, device.total, vllm=vllm)
    wanted = f"{size(least)}: the weights take {size(weights)}" + (
        f", planned are up to {size(planned)}" if planned else ""
    )
    if device.free >= least:
        return Row(check="gpu", what=what, found=found, needed=wanted, brief=brief)
    if not best:
        return Row(check="gpu", what=what, found=f"{found}; not to be used", needed=wanted)
    pids = " ".join(str(holder.pid) for holder in device.holders)
    free_it = f"end what holds it (kill {pids}), " if pids else "end what holds it, " if device.crowded else ""
    fault = Fault(
        "R1901", what, f"{free} of {total} are free, and to load the model takes {size(least)}, in {count(len(steps), 'step')};"
        f" the memory is held by {device.held}",
        f"{free_it}or use a larger GPU; then run again",
    )  # fmt: skip
    return Row(check="gpu", what=what, found=found, needed=wanted, faults=(fault,))


def _processors(base: needs.Base | None, weights: int | None, chosen: str | None) -> Row:
    """A machine without a GPU, or one that hides it from the steps."""
    number, free = needs.threads(), _available()
    memory = "" if free is None else f", {size(free)} of main memory"
    hidden = f" (hidden by {VISIBLE}={chosen})" if chosen is not None else ""
    found = f"no GPU{hidden}: {count(number, 'thread')}{memory}"
    brief = f"no GPU, {count(number, 'thread')}"
    if base is not None and base.large and base.parameters is not None:
        fault = Fault(
            "R1902", "GPU", f"there is none{hidden}, and the model has {base.parameters / 1e9:.1f} billion parameters",
            "run on a machine with a GPU: on a processor this takes weeks. Tried out on a small model: epc run --rehearse",
        )  # fmt: skip
        return Row(
            check="gpu",
            what="GPU",
            found=found,
            needed=f"a GPU with {size(needed(weights or 0, 0, vllm=False))}",
            faults=(fault,),
        )
    if weights is not None and free is not None and free < MARGIN * weights:
        fault = Fault(
            "R1905", "memory", f"{size(free)} of the main memory are free, and the weights alone take {size(weights)}",
            "end what holds it, or use a larger machine",
        )  # fmt: skip
        return Row(check="gpu", what="GPU", found=found, needed=size(round(MARGIN * weights)), faults=(fault,))
    return Row(check="gpu", what="GPU", found=found, needed="none for a small model" if base else "", brief=brief)


def _available() -> int | None:
    """Bytes of main memory that programs can still get (Linux), None where that is not told."""
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (OSError, StopIteration, ValueError):
        return None
