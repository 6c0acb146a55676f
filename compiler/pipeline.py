"""The passes, in order. Each reports into one sink; only lowering needs it to be free of errors."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath

from epc.compiler import allow, rehearsal
from epc.compiler.checks import CHECKS, budget
from epc.compiler.contract.rehearsal import FOLDER, Rehearsal, Scale
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.lower import Plan, lower
from epc.compiler.resolve import BUILT_IN_TEMPLATES, Experiment, resolve
from epc.compiler.surface import load
from epc.compiler.templates import template


@dataclass(frozen=True, kw_only=True)
class Layout:
    """Where a spec's bundle goes. Never depends on where the command is typed."""

    root: Path
    """The folder that holds generated/: the parent of specs/, or else the spec's own folder."""
    out: Path
    """The folder of bundles, normally root/generated."""
    spec: Path

    @classmethod
    def of(cls, spec: Path, out: Path | None = None) -> Layout:
        folder = spec.resolve().parent
        inside = next((parent for parent in (folder, *folder.parents) if parent.name == "specs"), None)
        root = inside.parent if inside is not None else folder
        return cls(root=root, out=(out or root / "generated").resolve(), spec=spec.resolve())

    @property
    def for_rehearsal(self) -> Layout:
        """Where a rehearsal goes: beside the folder of bundles, so that neither is ever taken for the other."""
        return replace(self, out=self.root / FOLDER)

    @property
    def spec_path(self) -> str:
        """Path of the spec as emitted files show it."""
        return self.spec.relative_to(self.root).as_posix()

    def bundle(self, experiment_id: str) -> Path:
        return self.out / experiment_id

    @property
    def spec_folder(self) -> str:
        """Path from a bundle to the spec's folder."""
        up = (
            len(PurePosixPath(self.out.relative_to(self.root)).parts) + 1
            if self.out.is_relative_to(self.root)
            else None
        )
        relative = PurePosixPath(self.spec_path).parent.as_posix()
        return str(self.spec.parent) if up is None else "../" * up + relative


def check(spec: Path, file: str, sink: Diagnostics) -> Experiment | None:
    """Parse, compose, resolve and check. None when the file could not be read as a spec at all."""
    surface = load(spec, file, sink)
    if surface is None:
        return None
    experiment = resolve(surface, sink)
    for rule in CHECKS:
        rule(experiment, sink)
    return experiment


def chat_template(experiment: Experiment) -> str | None:
    """The template that replaces the model's own, None to keep that."""
    name = experiment.spec.model.chat_template
    if name == "model":
        return None
    return template(f"chat/{name}.jinja") if name in BUILT_IN_TEMPLATES else experiment.inputs[name].text


def plan(experiment: Experiment, layout: Layout, sink: Diagnostics) -> Plan | None:
    """Lower a checked experiment, check what only the plan shows, and set aside the warnings that the spec allows.

    None when there are errors.
    """
    if sink.errors:
        allow.apply(experiment, sink, complete=False)
        return None
    lowered = lower(experiment, template_text=chat_template(experiment), spec_folder=layout.spec_folder)
    budget.check(lowered, sink)
    allow.apply(experiment, sink, complete=True)
    return None if sink.errors else lowered


def rehearse(real: Plan, layout: Layout, scale: Scale, sink: Diagnostics) -> tuple[Plan, Rehearsal] | None:
    """The plan scaled down, in its own mode; None after an error in a stand-in. `sink` is that of the plan.

    Its design is not checked again: what a check demands of the real sizes, a rehearsal need not have. Raises
    rehearsal.NotRehearsableError.
    """
    found = rehearsal.scaled(real.experiment, scale, sink)
    if found is None:
        return None
    lowered = lower(
        found.experiment, template_text=chat_template(found.experiment), spec_folder=layout.spec_folder, mode="rehearsal"
    )  # fmt: skip
    return lowered, rehearsal.described(real, scale, found)


def bundle(lowered: Plan, layout: Layout, rehearsed: Rehearsal | None = None) -> dict[str, str]:
    """Every file of the bundle, path -> text; `rehearsed` is that of a plan of this mode."""
    from epc.compiler.emit import emit  # brings the template engine, which `epc check` does without

    template_text = chat_template(lowered.experiment)
    return emit(lowered, spec_path=layout.spec_path, template_text=template_text, rehearsal=rehearsed)
