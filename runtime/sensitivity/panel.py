"""The panel, analysis by analysis."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Final

from epc.compiler.contract.decision import Alternative, AnalysisResult, AnalysisSensitivity, Slice
from epc.compiler.contract.manifest import Analysis, Design, Role
from epc.runtime.estimates import Arm, Units, analysis_result, shared_seeds, units_of
from epc.runtime.gates import Evaluated
from epc.runtime.measurements import Measurements
from epc.runtime.missingness import Corners, read_by_the_decision
from epc.runtime.sensitivity.leave_one_out import leave_one_out
from epc.runtime.sensitivity.precision import margins, minimum_detectable, monte_carlo, standard_error
from epc.runtime.sensitivity.replaced import Replaced, Statistics
from epc.runtime.statistics import NESTED, Estimate, InapplicableError, Resamples, analyse
from epc.runtime.statistics.estimate import on_lattice, tidy
from epc.runtime.statistics.mcnemar import mcnemar
from epc.runtime.statistics.newcombe_paired import newcombe_paired
from epc.runtime.statistics.paired_bootstrap import paired_bootstrap
from epc.runtime.statistics.paired_t import paired_t
from epc.runtime.statistics.sign_flip import EXACT_UNITS, sign_flip
from epc.runtime.switches import VARIANTS, Evaluation, governed
from epc.runtime.verdict import DECIDING

DEFAULT_RESAMPLES: Final = 9_999
DEFAULT_SEED: Final = 0
"""Draws and seed of the alternatives to an analysis that declares none."""
FLIPPED: Final = 5_000_000
"""Most random signs that the sign flip draws here."""
BOOTSTRAPS: Final = ("percentile", "shift", "studentized", "bca")
FEWEST_LEFT: Final = 2
"""Training seeds that are left where one is left out; a single one is among those read alone."""
READING: Final[frozenset[Role]] = DECIDING | {"validity", "switch"}


def sensitivity(
    design: Design,
    measurements: Measurements,
    *,
    computed: Sequence[AnalysisResult],
    evaluation: Evaluation,
    built_in: Sequence[Evaluated],
    corners: Corners | None,
    label: str,
    shared: Resamples,
) -> tuple[AnalysisSensitivity, ...]:
    """The panel of a decision whose label is `label`.

    `computed` are the analyses as `missingness.compute` gives them, `evaluation` what came of them, `built_in` the
    built-in gates and `shared` the draws of the decision.
    """
    panel = _Panel(
        design=design, measurements=measurements, evaluation=evaluation, corners=corners, label=label, shared=shared,
        computed={result.name: result for result in computed}, replaced=Replaced(design, computed, evaluation, built_in),
    )  # fmt: skip
    read = {analysis.name for analysis in read_by_the_decision(design)}
    wanted = [analysis for analysis in design.analyses if analysis.confirmatory or analysis.name in read]
    return tuple(panel.of(analysis, variant) for analysis in wanted for variant in panel.variants(analysis))


@dataclass(frozen=True, kw_only=True)
class _Panel:
    design: Design
    measurements: Measurements
    evaluation: Evaluation
    computed: Mapping[str, AnalysisResult]
    corners: Corners | None
    replaced: Replaced
    label: str
    shared: Resamples

    def variants(self, analysis: Analysis) -> tuple[Slice | None, ...]:
        """None for an analysis without a switch; else the variant that it binds, or both where it is unknown."""
        if analysis.name not in governed(self.design):
            return (None,)
        bound = self.evaluation.results[analysis.name].bound_to
        return VARIANTS if bound is None else (bound,)

    def of(self, analysis: Analysis, variant: Slice | None) -> AnalysisSensitivity:
        name = analysis.name if variant is None else f"{analysis.name}.{variant}"
        result = self.computed[name]
        settled = variant is None or self.evaluation.results[analysis.name].bound_to == variant
        shown: dict[str, Any] = {
            "analysis": analysis.name if settled else name, "confirmatory": analysis.confirmatory, "side": analysis.side,
            "alpha": analysis.alpha, "filters": tuple(self._filters(analysis, name)),
            "missing": tuple(self._missing(analysis, name)),
        }  # fmt: skip
        if result.unknown_because is not None:
            return AnalysisSensitivity(**shown, unknown_because=result.unknown_because)
        units = units_of(self.design, analysis, self.measurements, variant=variant)
        needed = self._needed(analysis)
        definitions = tuple(self._definitions(analysis, name, units)) if needed - {"delta", "value"} else ()
        verdicts = {found.reject for found in definitions if found.reject is not None}
        values = units.values
        seeds, because = self._seeds(analysis, name, units, variant)
        return AnalysisSensitivity(
            **shown,
            definitions=definitions,
            resamples=(analysis.resamples or DEFAULT_RESAMPLES) if definitions else None,
            seed=self._seed(analysis) if definitions else None,
            fragile=len(verdicts) > 1,
            weights=tuple(self._weights(analysis, name, units)),
            seeds=seeds,
            seeds_unknown_because=because,
            without_seed=tuple(self._without_seed(analysis, name, units, variant)),
            leave_one_out=leave_one_out(
                analysis, units.metric, values[0], values[1] if analysis.contrast is not None else None,
                nested=units.nested if analysis.method in NESTED else None, needed=needed, label=lambda statistics: self.replaced.verdict(name, statistics), registered=self.label,
                shared=self.shared,
            ),
            monte_carlo=monte_carlo(analysis, result),
            standard_error=standard_error(analysis, result),
            minimum_detectable=minimum_detectable(analysis, result),
            margins=tuple(margins(analysis, result)),
        )  # fmt: skip

    def _needed(self, analysis: Analysis) -> AbstractSet[str]:
        """Statistics that decide, and p of a confirmatory analysis."""
        read = {seen.statistic for seen in self.evaluation.results[analysis.name].thresholds if seen.role in READING}
        return read | {"p"} if analysis.confirmatory else read

    def _seed(self, analysis: Analysis) -> int:
        return DEFAULT_SEED if analysis.seed is None else analysis.seed

    def _alternative(
        self, name: str, title: str, statistics: Statistics, n_units: int, *, registered: bool = False,
        corner_gate: bool = True, unknown_because: str | None = None,
    ) -> Alternative:  # fmt: skip
        """`statistics` in place of the computed analysis `name`."""
        verdict = self.label if registered else self.replaced.verdict(name, statistics, corner_gate=corner_gate)
        return Alternative(
            name=title, registered=registered, estimate=statistics.get("delta", statistics.get("value")),
            p=statistics.get("p"), reject=self.replaced.reject(name, statistics), n_units=n_units, verdict=verdict,
            changes=verdict != self.label, unknown_because=unknown_because,
        )  # fmt: skip

    def _of_result(self, name: str, title: str, result: AnalysisResult, **more: Any) -> Alternative:
        return self._alternative(
            name, title, result.statistics, result.n_units, unknown_because=result.unknown_because, **more
        )

    def _definitions(self, analysis: Analysis, name: str, units: Units) -> Iterator[Alternative]:
        """The registered definition where it is not among the others, then those; what is not defined is left out."""
        if analysis.contrast is None or not units.paired or analysis.method == "tost":  # another null hypothesis
            return
        own = analysis.p or "" if analysis.method == "paired_bootstrap" else analysis.method
        result = self.computed[name]
        found = dict(self._other_definitions(analysis, units, but=own))
        if own not in (*BOOTSTRAPS, *found):
            said = {"mcnemar": f"mcnemar_{analysis.p}"}.get(own, own)
            yield self._of_result(name, said, result, registered=True)
        for title, estimate in found.items():
            if title == own:
                yield self._of_result(name, title, result, registered=True)
            elif estimate is not None:
                yield self._alternative(name, title, estimate.statistics, len(units.complete))

    def _other_definitions(
        self, analysis: Analysis, units: Units, *, but: str
    ) -> Iterator[tuple[str, Estimate | None]]:
        treatment, control = units.values
        differences = on_lattice([treatment[unit] - control[unit] for unit in sorted(treatment)])
        metric, resamples, seed = units.metric, analysis.resamples or DEFAULT_RESAMPLES, self._seed(analysis)
        common: dict[str, Any] = {"side": analysis.side, "alpha": analysis.alpha, "interval": analysis.interval}
        limit = metric.scale[1] - metric.scale[0]
        for p in BOOTSTRAPS:
            yield p, None if p == but else paired_bootstrap(
                differences, p=p, resamples=resamples, seed=seed, limit=limit, shared=self.shared, **common
            )  # fmt: skip
        if differences.n > 1:
            yield "paired_t", None if but == "paired_t" else paired_t(differences, limit=limit, **common)
        if differences.n <= EXACT_UNITS or differences.n * resamples <= FLIPPED:
            yield "sign_flip", None if but == "sign_flip" else sign_flip(
                differences, resamples=resamples, seed=seed, limit=limit, **common
            )  # fmt: skip
        if metric.scale == (0, 1) and {*treatment.values(), *control.values()} <= {0, 1}:
            yield "newcombe_paired", None if but == "newcombe_paired" else newcombe_paired(treatment, control, **common)
            if (but, analysis.p) != ("mcnemar", "exact"):
                yield "mcnemar_exact", mcnemar(treatment, control, p="exact", **common)

    def _filters(self, analysis: Analysis, name: str) -> Iterator[Alternative]:
        metric = next(metric for metric in self.design.metrics if metric.name == analysis.metric)
        if metric.filter is None:
            return
        for variant in VARIANTS:
            found = self.computed.get(f"{analysis.name}.{variant}")
            own = name == f"{analysis.name}.{variant}" or (name == analysis.name and variant == "filtered")
            if own:
                found = self.computed[name]
            elif found is None:
                found = analysis_result(self.design, analysis, self.measurements, variant=variant, shared=self.shared)
            yield self._of_result(name, variant, found, registered=own)

    def _weights(self, analysis: Analysis, name: str, units: Units) -> Iterator[Alternative]:
        yield self._of_result(name, "every unit weighs the same", self.computed[name], registered=True)
        title = "every sample weighs the same"
        if all(_evenly(arm, units.complete) for arm in units.arms):
            yield self._of_result(name, title, self.computed[name])
            return
        values = [_linearised(_counts(arm, units.complete)) for arm in units.arms]
        try:
            statistics: Statistics = analyse(
                analysis, units.metric, values[0], values[1] if analysis.contrast is not None else None,
                shared=self.shared,
            ).statistics  # fmt: skip
        except InapplicableError:  # the method reads more than unit means: only the estimate is weighted otherwise
            point = "value" if analysis.contrast is None else "delta"
            means = [sum(arm.values(), Fraction(0)) / len(arm) for arm in values]
            weighted = tidy(float(means[0] - means[1] if len(means) == 2 else means[0]))
            statistics = {**self.computed[name].statistics, point: weighted}
        yield self._alternative(name, title, statistics, len(units.complete))

    def _seeds(
        self, analysis: Analysis, name: str, units: Units, variant: Slice | None
    ) -> tuple[tuple[Alternative, ...], str | None]:
        """Each training seed alone, and why a seed is not among them: of one that is not known no verdict is read.

        A bootstrap that draws training seeds is not defined on one of them. It is read as the paired bootstrap of the
        units then: the same definition of p, draws and seed.
        """
        seeds = shared_seeds(units.arms)
        drawn = "seed" in analysis.levels
        alone = analysis.model_copy(update={"method": "paired_bootstrap", "levels": ()}) if drawn else analysis
        by = f", paired bootstrap over {units.metric.unit}s" if drawn else ""
        results = {
            seed: analysis_result(
                self.design, alone, self.measurements, variant=variant, seeds={seed}, shared=self.shared
            )
            for seed in (seeds if len(seeds) > 1 else ())
        }
        known = {seed: found for seed, found in results.items() if found.unknown_because is None}
        because = next((found.unknown_because for found in results.values() if found.unknown_because is not None), None)
        return tuple(
            self._of_result(name, f"training seed {seed}{by}", found) for seed, found in known.items()
        ), because

    def _without_seed(
        self, analysis: Analysis, name: str, units: Units, variant: Slice | None
    ) -> Iterator[Alternative]:  # fmt: skip
        """The registered method without each training seed in turn, where at least two are left."""
        seeds = shared_seeds(units.arms)
        every = {seed for arm in units.arms if arm.trained for seed in arm.seeds}
        for seed in seeds if len(seeds) > FEWEST_LEFT else ():
            found = analysis_result(
                self.design, analysis, self.measurements, variant=variant, seeds=every - {seed}, shared=self.shared
            )
            if found.unknown_because is None:
                yield self._of_result(name, f"without training seed {seed}", found)

    def _missing(self, analysis: Analysis, name: str) -> Iterator[Alternative]:
        if self.corners is None or analysis not in self.corners.dropped:
            return
        for corner, results in self.corners.at.items():
            yield self._of_result(name, corner, results[name], corner_gate=False)


def _evenly(arm: Arm, units: Sequence[str]) -> bool:
    """Whether every unit has the same number of samples with every training seed, so that both weights are one."""
    rows = (arm.units[unit].rows for unit in units if unit in arm.units)
    return len({row.n for by_seed in rows for seed, row in by_seed.items() if seed in arm.seeds}) == 1


Counts = Mapping[str, tuple[Fraction, int]]
"""Unit -> total score and number of its samples, over training seeds."""


def _counts(arm: Arm, units: Sequence[str]) -> Counts:
    found: dict[str, tuple[Fraction, int]] = {}
    for unit in units:
        if unit not in arm.values:
            continue
        rows = [row for seed, row in arm.units[unit].rows.items() if seed in arm.seeds]
        total = sum((Fraction(row.total, row.denominator) for row in rows), Fraction(0))
        found[unit] = total, sum(row.n for row in rows)
    return found


def _linearised(counts: Counts) -> dict[str, Fraction]:
    """R + n (T_i - R N_i) / sum N_i of each unit: their mean is R = sum T_i / sum N_i."""
    n = sum(samples for _, samples in counts.values())
    ratio = sum((total for total, _ in counts.values()), Fraction(0)) / n
    return {
        unit: ratio + len(counts) * (total - ratio * samples) / n for unit, (total, samples) in counts.items()
    }  # fmt: skip
