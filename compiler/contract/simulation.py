"""report/simulation.json: what the registered decision would say under assumed truths."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

from epc.compiler.contract.manifest import Role, Side, TruthOf, VerdictClass

SIMULATION_SCHEMA_VERSION = 1


class Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, defer_build=True, allow_inf_nan=False)


class VerdictShare(Part):
    label: str
    verdict_class: VerdictClass
    share: float
    """Of the simulated experiments."""


class PartOutcome(Part):
    """One comparison of a gate that has several."""

    text: str
    true: float
    decisive: float
    """Share of experiments whose verdict changes if this comparison is left out of the gate."""


class GateOutcome(Part):
    name: str
    role: Role
    text: str
    true: float
    unknown: float
    decisive: float | None
    """Share of experiments whose verdict changes if the gate is removed: a requirement then holds, a kill or override
    does not fire, a switch does not switch. Null for gates that never decide."""
    parts: tuple[PartOutcome, ...] = ()
    """Of a deciding gate with several comparisons."""


class FamilyOutcome(Part):
    name: str
    method: str
    false_rejection: float | None
    """Share of experiments in which a member rejects although its effect is not on the tested side; null where every
    member's is."""


class TruthOutcome(Part):
    """The decision under one truth."""

    name: str
    describe: str
    declared: bool
    """False where it was derived from the gates."""
    metrics: dict[str, TruthOf]
    """As simulated: every metric that an analysis reads."""
    deserved: str
    """What the table says of the true values themselves; on a guardrail's margin counts as beyond it."""
    verdicts: tuple[VerdictShare, ...]
    """In the order of the table; INVALID last."""
    success: float
    """Share with a verdict of class SUCCESS."""
    false_success: float | None
    """`success` where the truth deserves none, else null."""
    expect: str | None = None
    at_least: float | None = None
    expected: float | None = None
    """Share of the expected verdict."""
    met: bool | None = None
    gates: tuple[GateOutcome, ...] = ()
    families: tuple[FamilyOutcome, ...] = ()


class PowerPoint(Part):
    effect: float
    """True treatment - control."""
    reject: float
    """Share of experiments whose test rejects."""
    success: float
    """Share with a verdict of class SUCCESS."""


class PowerThreshold(Part):
    gate: str
    role: Role
    text: str
    constant: float


class Power(Part):
    """Power of a confirmatory contrast against its true effect, all else as in one truth."""

    analysis: str
    metric: str
    side: Side
    alpha: float
    truth: str
    experiments: int
    power: float
    """What is asked for."""
    mde: float | None
    """Smallest effect with that power, on the curve, linear between points; null where the curve does not reach it."""
    points: tuple[PowerPoint, ...]
    thresholds: tuple[PowerThreshold, ...]


class Needed(Part):
    """Units, and samples per unit, with which a truth gets its verdict as often as is asked for."""

    truth: str
    label: str
    power: float
    source: str
    """Sample set or task whose size is varied."""
    planned_units: int
    planned_samples: int
    planned_share: float
    units: int | None
    """Fewest units at the planned samples, verified by simulation; null where none was found."""
    units_share: float | None
    samples: int | None
    """Fewest samples per unit at the planned units."""
    samples_share: float | None
    because: str
    """How it was found, or why there is none."""


class Simulation(Part):
    schema_version: int = SIMULATION_SCHEMA_VERSION
    epc: str
    id: str
    title: str
    lock_sha256: str
    """Of the registration that was simulated."""
    seed: int
    experiments: int
    """Under each truth; shares have a standard error of at most sqrt(0.25 / experiments)."""
    resamples: int | None
    """Instead of the registered number, null where that was used."""
    truths: tuple[TruthOutcome, ...]
    power: tuple[Power, ...] = ()
    needed: tuple[Needed, ...] = ()
    assumptions: tuple[str, ...] = ()
    """What was assumed where the spec declares nothing, and what is not simulated."""
