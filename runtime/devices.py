"""Which GPU a step gets and how much of its memory: steps share devices by claims, one a process.

A claim is a file, locked for as long as its process lives, that names a device and the MiB it may fill. Claims are kept
for the whole machine, so that two runs do not meet on a device either, and made one at a time. A step fits where its
need and the claims there are within what was free when the device had none; one that states no need takes a device
that has none. Where nothing fits it waits for other steps to end, never for a process that is none of ours: then it goes
ahead on the device with most room, and says itself what is lacking.

`python -P -m epc.runtime.devices MIB SCRIPT` claims a device, leaves only it visible and becomes the script: what a
script imports may look for devices. A script that is started by hand claims one for itself.
"""

from __future__ import annotations

import fcntl
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Final

from epc.compiler.contract.devices import CONTEXT_MIB
from epc.runtime import locking
from epc.runtime.errors import EXIT_INTERRUPTED, Fault
from epc.runtime.lifetime import end_with_engine

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
CLAIM: Final = "EPC_GPU_CLAIM"
"""Environment variable: the file of this process's claim."""
WHOLE: Final = 0
"""As a need: a device of one's own."""
MARGIN_MIB: Final = 512
"""Of a device: left to the driver."""
MIB: Final = 2**20
PAUSE: Final = 0.5
"""Seconds between two looks for room."""
LISTING_SECONDS: Final = 30


@dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU that this process may use."""

    token: str
    """What CUDA_VISIBLE_DEVICES calls it."""
    uuid: str
    free_mib: int | None
    """None where the driver does not say: such a device is used by one step at a time."""

    @property
    def room(self) -> int:
        """MiB that steps may claim, 0 where that is not known."""
        return max(0, (self.free_mib or 0) - MARGIN_MIB)


@dataclass(frozen=True, kw_only=True)
class Claimed:
    """A claim of a process that lives."""

    file: Path
    uuid: str
    mib: int
    room: int
    """MiB that could be claimed of the device before anybody had."""

    @property
    def text(self) -> str:
        return json.dumps({"uuid": self.uuid, "mib": self.mib, "room": self.room})


def visible(environment: Mapping[str, str] = os.environ) -> list[Device]:
    """The GPUs that nvidia-smi lists and CUDA_VISIBLE_DEVICES admits, in its order; none where there is no nvidia-smi."""
    chosen = environment.get(VISIBLE)
    if hidden(chosen):
        return []
    listed = _listed()
    if chosen is None:
        return [device for _, device in listed]
    found: list[Device] = []
    for token in map(str.strip, chosen.split(",")):
        device = next(
            (device for index, device in listed if token == index or (token[:4] == "GPU-" and device.uuid.startswith(token))),
            None,
        )  # fmt: skip
        if device is None and token.startswith("MIG-") and listed:
            device = Device(token=token, uuid=token, free_mib=None)
        if device is None:
            break  # as CUDA does: what follows an entry that names nothing is not visible
        found.append(replace(device, token=token))
    return found


def hidden(chosen: str | None) -> bool:
    """Whether a value of CUDA_VISIBLE_DEVICES hides every device, whatever there is: then the driver is not asked."""
    return chosen is not None and chosen.strip() in ("", "-1")


def _listed() -> list[tuple[str, Device]]:
    """(index, device) of every NVIDIA GPU, in the order of their places on the bus."""
    command = shutil.which("nvidia-smi")
    if command is None:
        return []
    query = [command, "--query-gpu=index,uuid,memory.free", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, errors="replace", timeout=LISTING_SECONDS)
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in done.stdout.splitlines() if done.returncode == 0 else ():
        fields = [field.strip() for field in line.split(",")]
        if len(fields) == 3 and fields[0].isdecimal():  # anything else is a message
            index, uuid, free = fields
            found.append(
                (index, Device(token=index, uuid=uuid, free_mib=int(free) if free.isdecimal() else None))
            )  # fmt: skip
    return found


def room(devices: Sequence[Device]) -> tuple[int, int]:
    """(MiB of the roomiest device, MiB of all), as the engine counts; (1, devices) where a device's room is not known."""
    if any(device.free_mib is None for device in devices):
        return 1, len(devices)
    return max((device.room for device in devices), default=1), sum(device.room for device in devices)


# Claiming ------------------------------------------------------------------------------------


def claims_folder() -> Path:
    """Where the claims of this user's processes on this machine lie. Raises Fault R1980 when nothing can be kept there."""
    place = "TMPDIR"
    try:
        folder = Path(tempfile.gettempdir()) / f"epc-devices-{os.getuid()}"
        place = str(folder)
        folder.mkdir(mode=0o700, exist_ok=True)
        if folder.stat().st_uid == os.getuid() and os.access(folder, os.R_OK | os.W_OK | os.X_OK):
            return folder
    except OSError as error:
        raise _unusable(place, error.strerror or str(error)) from None
    raise _unusable(place, "it belongs to somebody else, or may not be written")


def _unusable(place: str, why: str) -> Fault:
    return Fault(
        "R1980", place, f"steps claim their GPU with a file in this folder, and it cannot be used: {why}",
        "make room or remove what stands in its place; or set TMPDIR to a folder of your own, the same for all runs on this"
        " machine",
    )  # fmt: skip


def placed(need: int, devices: Sequence[Device], claimed: Sequence[Claimed]) -> tuple[Device, Claimed] | None:
    """The device for a step that needs so many MiB, and its claim; None while other steps have to end first.

    Of several that fit, the one with most room left.
    """
    on = {device.uuid: [claim for claim in claimed if claim.uuid == device.uuid] for device in devices}
    rooms = {
        device.uuid: min((claim.room for claim in on[device.uuid]), default=device.room) for device in devices
    }  # fmt: skip
    if need > max(rooms.values()):
        need = WHOLE

    def left(device: Device) -> int:
        return rooms[device.uuid] - sum(claim.mib for claim in on[device.uuid])

    def claim(device: Device, mib: int) -> tuple[Device, Claimed]:
        return device, Claimed(file=Path(), uuid=device.uuid, mib=mib, room=rooms[device.uuid])

    if need != WHOLE:
        # Memory that was free at first may be held by another process by now.
        fitting = [device for device in devices if need <= left(device) and need <= (device.free_mib or 0)]
        if fitting:
            return claim(max(fitting, key=left), need)
        if any(on[device.uuid] and need <= rooms[device.uuid] for device in devices):
            return None
    empty = [device for device in devices if not on[device.uuid]]
    if not empty:
        return None
    best = max(empty, key=lambda device: device.room)
    return claim(best, max(1, rooms[best.uuid]))


def claim(need: int, environment: Mapping[str, str] = os.environ) -> tuple[IO[str], dict[str, str]] | None:
    """(handle that holds the claim, changes of the environment) for a step; None where there is no GPU to claim.

    Waits while other steps hold what it needs. The handle stays open when the process becomes another program.
    """
    said = False
    while True:
        with _one_at_a_time():
            devices = visible(environment)
            if not devices:
                return None
            found = placed(need, devices, living())
            if found is not None:
                device, claimed = found
                file = claims_folder() / f"{os.getpid()}.claim"
                handle = locking.acquire(file)
                handle.write(claimed.text + "\n")
                handle.flush()
                os.set_inheritable(handle.fileno(), True)
                changes = {CLAIM: str(file)}
                if len(devices) > 1:
                    changes[VISIBLE] = device.token
                    if VISIBLE not in environment:
                        changes["CUDA_DEVICE_ORDER"] = "PCI_BUS_ID"  # whose indices nvidia-smi prints
                return handle, changes
        if not said:
            print(f"waits for {f'{need:,} MiB of ' if need else ''}a GPU that other steps hold", flush=True)
            said = True
        time.sleep(PAUSE)


def living() -> list[Claimed]:
    """Claims whose process lives; the files of the others are removed. To be called one process at a time."""
    found = []
    for file in sorted(claims_folder().glob("*.claim")):
        claimed = _read(file)
        try:
            locking.check_free(file)
        except locking.BusyError:
            if claimed is not None:
                found.append(claimed)
            continue
        file.unlink(missing_ok=True)
    return found


def _read(file: Path) -> Claimed | None:
    """What a claim says; None for one that was never finished."""
    try:
        _, text = file.read_text(encoding="ascii").splitlines()
        return Claimed(file=file, **json.loads(text))
    except (OSError, ValueError, TypeError):
        return None


@contextmanager
def _one_at_a_time() -> Iterator[None]:
    with (claims_folder() / "lock").open("a") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


# Inside a step -------------------------------------------------------------------------------


def settle(need: int) -> IO[str] | None:
    """Give a step its device, and hold torch to its share of the memory; None when its starter claimed one for it.

    A script that was started by hand where several devices are visible starts once more with one of them: whatever
    it imported may have counted them.
    """
    handle = None
    if _own() is None:
        found = claim(need)
        if found is None:
            return None
        handle, changes = found
        os.environ.update(changes)
        if VISIBLE in changes:
            sys.stdout.flush()
            os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    _hold_torch(need)
    return handle


def _own() -> Claimed | None:
    """The claim of this process, None where it has none."""
    file = Path(os.environ.get(CLAIM, ""))
    return _read(file) if file.name == f"{os.getpid()}.claim" else None


def _share() -> int:
    """MiB that this process may fill, 0 for the whole device."""
    claimed = _own()
    return 0 if claimed is None or claimed.mib >= claimed.room else claimed.mib


def _hold_torch(need: int) -> None:
    """Have torch refuse what goes beyond the share, with the error that it has for a full device."""
    share = _share()
    if need == WHOLE or not share or "torch" not in sys.modules:
        return
    import torch

    if torch.cuda.is_available():
        total = torch.cuda.mem_get_info()[1]
        torch.cuda.set_per_process_memory_fraction(min(1.0, max(1, share - CONTEXT_MIB) * MIB / total))


def free_bytes() -> int:
    """Bytes that tensors may still take of the GPU: what is free or kept by torch for later, within the step's share."""
    import torch

    held = torch.cuda.memory_allocated()
    kept = torch.cuda.memory_reserved() - held
    return left(_share(), free=torch.cuda.mem_get_info()[0] + kept, held=held)


def left(share: int, *, free: int, held: int) -> int:
    """Bytes left of a share in MiB (0 is the whole device) whose tensors hold `held` bytes, with `free` to be had."""
    return max(0, min(free, (share - CONTEXT_MIB) * MIB - held)) if share else free


def take_whole() -> bool:
    """Have the device alone, once the other steps on it have ended; False where the step had no mere share of it.

    For a step that needs more than was foreseen. It gives its share up while it waits, so that two of them do not wait
    for each other.
    """
    share = _share()
    own = _own()
    if not share or own is None:
        return False
    print(f"needs more than its share of the GPU ({share:,} MiB): waits to have it alone", flush=True)
    with _one_at_a_time():
        _rewrite(replace(own, mib=0))
    while True:
        with _one_at_a_time():
            others = [each for each in living() if each.uuid == own.uuid and each.file != own.file and each.mib]
            if not others:
                _rewrite(replace(own, mib=own.room))
                break
        time.sleep(PAUSE)
    import torch

    if torch.cuda.is_available():
        torch.cuda.set_per_process_memory_fraction(1.0)
    return True


def _rewrite(claimed: Claimed) -> None:
    claimed.file.write_text(f"{os.getpid()}\n{claimed.text}\n", encoding="ascii")


def main(arguments: Sequence[str]) -> None:
    """Claim a device and become the script."""
    need, script = int(arguments[0]), arguments[1]
    end_with_engine()
    try:
        found = claim(need)
    except KeyboardInterrupt:
        raise SystemExit(EXIT_INTERRUPTED) from None
    except (Fault, OSError) as error:
        fault = error if isinstance(error, Fault) else _unusable(tempfile.gettempdir(), error.strerror or str(error))
        print(fault.render(), file=sys.stderr)
        raise SystemExit(fault.exit_code) from None
    environment = {**os.environ, **({} if found is None else found[1])}
    os.execve(sys.executable, [sys.executable, script], environment)


if __name__ == "__main__":
    main(sys.argv[1:])
