"""Reads what an offline run of Weights & Biases has written: a log of LevelDB's format that holds protocol buffers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

BLOCK, IDENTITY, HEADER = 32768, 7, 7
"""Bytes of a block, of the file's identity, of a record's header: checksum (4), length (2), kind (1)."""
FULL, LAST = 1, 4


def payloads(file: Path) -> Iterator[bytes]:
    """The records of a log, put together from their pieces."""
    data = file.read_bytes()
    assert data[:4] == b":W&B"
    place, whole = IDENTITY, b""
    while place + HEADER <= len(data):
        if BLOCK - place % BLOCK < HEADER:  # no header fits: the rest of the block is padding
            place += BLOCK - place % BLOCK
            continue
        length, kind = int.from_bytes(data[place + 4 : place + 6], "little"), data[place + 6]
        whole += data[place + HEADER : place + HEADER + length]
        place += HEADER + length
        if kind in (FULL, LAST):
            yield whole
            whole = b""


@dataclass
class OfflineRun:
    """What would be sent."""

    name: str = ""
    project: str = ""
    group: str = ""
    kind: str = ""
    host: str = ""
    config: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)
    history: list[dict[str, Any]] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    exit_code: int | None = None


def offline_run(folder: Path) -> OfflineRun:
    """The run of a folder `offline-run-*`."""
    from wandb.proto.wandb_internal_pb2 import Record

    (file,) = folder.glob("run-*.wandb")
    found = OfflineRun()

    def values(items: Any) -> dict[str, Any]:
        return {item.key or ".".join(item.nested_key): json.loads(item.value_json) for item in items}

    for payload in payloads(file):
        record = Record()
        record.ParseFromString(payload)
        match record.WhichOneof("record_type"):
            case "run":
                run = record.run
                found.name, found.project, found.group = run.display_name, run.project, run.run_group
                found.kind, found.host = run.job_type, run.host
                found.config |= values(run.config.update)
            case "config":
                found.config |= values(record.config.update)
            case "summary":
                found.summary |= values(record.summary.update)
            case "history":
                found.history.append(values(record.history.item))
            case "files":
                found.files += [item.path for item in record.files.files]
            case "exit":
                found.exit_code = record.exit.exit_code
            case _:
                pass
    return found


def offline_runs(trackers: Path) -> dict[str, OfflineRun]:
    """Name -> run, of a bundle's folder of trackers; no name may come twice."""
    found = [offline_run(folder) for folder in sorted((trackers / "wandb").glob("offline-run-*"))]
    named = {run.name: run for run in found}
    assert len(named) == len(found)
    return named
