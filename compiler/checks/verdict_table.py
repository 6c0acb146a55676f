"""The verdict table decides every result that can occur, once, and in the right direction.

Tables are proved, not sampled (`table`), and a finding comes with a result that shows it.

E0901: the table leaves results without a verdict
Why: In the source of issue 147 a difference from 5 to 15 points had no verdict at all. What nobody
registered is decided when the result is known, by somebody who knows it.
Example:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
Fix:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

E0902: two rules of one rank can both match, with different verdicts
Why: Which of two kills is written up would then depend on the order of two lines, that is on nothing. Rules of
different rank have an order that means something: override, kill, success.
Example:
    gates: {damaged: {role: kill, when: quizzed.upper < -0.2}}
    verdicts:
      - {if: no_effect, then: KILL_NULL}
      - {if: damaged, then: KILL_DAMAGE}        # no effect, and damaged: which of the two?
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
Fix:
    gates: {damaged: {role: kill, when: quizzed.upper < -0.2}}
    verdicts:
      - {if: no_effect, then: KILL_NULL}
      - {if: damaged and not no_effect, then: KILL_DAMAGE}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

E0903: a rule stands before one that outranks it, and hides it
Why: A table is read from above. A safety override below a kill would be silent exactly where both hold, and a
reader would learn that the mechanism is dead but not that it is harmful.
Example:
    gates: {harmful: {role: override, when: refusing.ci_low > 0.5}}
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: harmful, then: OVERRIDE}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
Fix:
    gates: {harmful: {role: override, when: refusing.ci_low > 0.5}}
    verdicts:
      - {if: harmful, then: OVERRIDE}
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

W0903: a rule stands before one that outranks it, though no result meets both
Why: The verdicts are right today. The next change of a threshold can make the two overlap, and then the rule that
should yield comes first. One order for all tables also lets a reviewer read them quickly.
Example:
    verdicts:
      - {if: survives and able, then: SUCCESS}
      - {if: no_effect, then: KILL}
      - {otherwise: INCONCLUSIVE}
Fix:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

E0904: a rule that never decides
Why: Somebody thought that this verdict was possible. Either a rule above takes every result that it was meant for,
or its gates cannot hold together; in both cases the table is not the one its author had in mind.
Example:
    gates: {weak: {role: kill, when: headline.upper < 2}}      # wherever this holds, no_effect does
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: weak, then: KILL_WEAK}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
Fix:
    gates: {weak: {role: kill, when: headline.upper < 2}}
    verdicts:
      - {if: weak, then: KILL_WEAK}
      - {if: no_effect and not weak, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

E0905: a gate that is the same for every result
Why: A stop rule in one lab read a key that nobody wrote and always passed. A threshold that no result can reach
does the same with a straight face; mostly it is in percent where the metric is a share, or the other way round.
Example:
    gates: {able: {require: quizzed.lower > -5}}       # accuracy differs by 1 at most
Fix:
    gates: {able: {require: quizzed.lower > -0.05}}

E0906: a result can be a success and a kill, and the success stands
Why: In the source of issue 147 p < .05 succeeded while a difference below 5 killed: 3 points with p =
.01 did both. Written in this order the table would call that a success.
Example:
    gates: {survives: {require: headline.reject}, no_effect: {when: headline.delta < 5}}
    verdicts:
      - {if: survives and able, then: SUCCESS}
      - {if: no_effect, then: KILL}
      - {otherwise: INCONCLUSIVE}
Fix:
    gates: {survives: {require: headline.reject and headline.delta >= 5}, no_effect: {when: headline.delta < 5}}
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

W0906: a result can be a success and a kill, and the kill stands
Why: In the source of issue 147 p < .05 succeeded while a difference below 5 killed: 3 points with p =
.01 did both. The order of rules decides it here, but a reader of the success gate alone will expect another
verdict.
Example:
    gates: {survives: {require: headline.reject}, no_effect: {when: headline.delta < 5}}
Fix:
    gates: {survives: {require: headline.reject and headline.delta >= 5}, no_effect: {when: headline.delta < 5}}

W0907: exactly at a threshold neither of two rules matches
Why: "Below 5" and "above 5" leave 5 itself to `otherwise`. Scores on a lattice land exactly on round numbers more
often than one thinks, and then the verdict hangs on a symbol that nobody chose.
Example:
    gates: {no_effect: {when: headline.delta < 5}, survives: {require: headline.reject and headline.delta > 5}}
Fix:
    gates: {no_effect: {when: headline.delta < 5}, survives: {require: headline.reject and headline.delta >= 5}}

E0908: a better result gets a worse verdict
Why: It is nearly always a comparison turned round or a treatment and control swapped, and such a table punishes the
very effect that the experiment is about.
Example:
    gates: {no_effect: {when: headline.upper > 60}}
Fix:
    gates: {no_effect: {when: headline.upper < 5}}

W0908: a metric's declared direction and the table disagree throughout
Why: The table is consistent in itself, so either `better:` says the wrong thing or every comparison is turned
round. The report would draw the arrows the wrong way and the missing-data corners would assume the wrong worst
case.
Example:
    metrics: {alignment: {better: lower}}
Fix:
    metrics: {alignment: {better: higher}}

W0909: one quantity held to two thresholds for one purpose
Why: The source of issue 147 stated the tolerated loss of accuracy as 0.02, as 0.05 and as a kill above
0.05, against two different baselines. With two numbers for one purpose the stricter decides and the other misleads.
Example:
    gates: {strict: {role: guardrail, require: quizzed.lower > -0.05}}
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able and strict, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
Fix:
    gates: {able: {require: quizzed.lower > -0.05}}

W0910: a guardrail or override compares a point estimate with its margin
Why: A point rule at a margin is a coin flip: at a true harm of exactly the margin of 10 points it passes 49% of the
time, a rule on the 95% bound 6%. Safety that passes half of the time at the limit is not what a margin promises.
Example:
    gates: {able: {require: quizzed.delta > -0.1}}
Fix:
    gates: {able: {require: quizzed.lower > -0.1}}

E0911: a verdict rule names a gate whose role is not to decide
Why: A prediction or a description may be anything without changing the verdict; that is why no multiplicity rule
covers it. A validity gate stands above the table, since without it there is no verdict to give.
Example:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able and on_part, then: SUCCESS}      # on_part is a prediction
      - {otherwise: INCONCLUSIVE}
Fix:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

E0912: a deciding gate that no rule names
Why: A guardrail that the table does not name is printed and guards nothing. Readers of the gates alone would
believe that the success depends on it.
Example:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives, then: SUCCESS}       # able is a guardrail
      - {otherwise: INCONCLUSIVE}
Fix:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}

E0913: a validity gate reads the arm whose effect is tested
Why: In one lab the attack had not taken and the null was read as a defence, so a manipulation check is needed; but
on the treated arm it is the effect itself, and a failed experiment would be declared invalid instead of negative.
Example:
    analyses: {attack_effect: {contrast: treated - base}}
Fix:
    analyses: {attack_effect: {contrast: attacked - base}}

W0914: a table with more combinations of thresholds than can be proved
Why: Every combination of thresholds is looked at, and beyond twenty million a solver is needed: an extra that is
installed with pip install 'epc-prereg[solver]'. Without a proof the table may hide any of the flaws above, so this
is said.
Example:
    gates:
      steps:
        role: descriptive
        require: >-
          part.ci_low > 1 or part.lower > 2 or part.delta > 3 or part.upper > 4 or part.ci_high > 5 or part.ci_low
          > 6 or part.lower > 7 or part.delta > 8 or part.upper > 9 or part.ci_high > 10 or part.ci_low > 11 or
          part.lower > 12 or part.delta > 13 or part.upper > 14 or part.ci_high > 15 or part.ci_low > 16 or
          part.lower > 17 or part.delta > 18 or part.upper > 19 or part.ci_high > 20 or part.ci_low > 21 or
          part.lower > 22 or part.delta > 23 or part.upper > 24
Fix:
    gates: {steps: {role: descriptive, require: part.delta > 1}}

W0915: a verdict that no gate of its kind speaks for
Why: Roles say what a gate is for: kill and override gates stop, a success gate carries the claim. A rule that calls it
a success where only a kill gate stays silent, or a kill where a success gate holds, has its gates or its label
swapped, and its author would read the outcome the other way round.
Example:
    verdicts:
      - {if: survives and able, then: KILL}
      - {if: no_effect, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
Fix:
    verdicts:
      - {if: no_effect, then: KILL}
      - {if: survives and able, then: SUCCESS}
      - {otherwise: INCONCLUSIVE}
"""

from __future__ import annotations

from typing import Final

from epc.compiler import decision
from epc.compiler.diagnostics import Diagnostics
from epc.compiler.resolve import Experiment
from epc.compiler.table import FindingKind, analyse

CODES: Final[dict[FindingKind, tuple[str, str]]] = {
    "not_total": ("0901", "end the table with - {otherwise: INCONCLUSIVE}"),
    "ambiguous": ("0902", "make the two rules exclusive, or give them the same verdict"),
    "order_violation": ("0903", "order the rules: override, kill, success, otherwise"),
    "unreachable_rule": ("0904", "delete the rule, or move it up"),
    "constant_gate": ("0905", "a gate that never changes decides nothing: check its threshold"),
    "success_and_kill": ("0906", "say in the rationale that kill wins, or separate the thresholds"),
    "boundary_gap": ("0907", "make one of the two comparisons inclusive"),
    "non_monotone": ("0908", "a better result must never get a worse verdict: check directions and thresholds"),
    "same_quantity_two_thresholds": ("0909", "keep one threshold for this quantity and purpose"),
    "point_rule_at_margin": (
        "0910",
        "read the bound instead (`lower` or `upper`), or say in the rationale why the point estimate",
    ),
    "descriptive_decides": ("0911", "only override, kill, success, guardrail and sanity gates may decide"),
    "undecided_gate": ("0912", "name the gate in a verdict rule, or give it role prediction or descriptive"),
    "manipulation_reads_treatment": ("0913", "contrast arms other than the confirmatory treatment"),
    "class_against_role": ("0915", "name a gate whose role is that of the verdict, or change the verdict's class"),
    "too_large": ("0914", "split the table, or use fewer thresholds"),
}


def check(experiment: Experiment, sink: Diagnostics) -> None:
    spec = experiment.spec
    whole = experiment.rules_complete and len(experiment.gates) == len(spec.gates) and not experiment.surface.poisoned
    known = all(a.metric in spec.metrics for a in spec.analyses.values())
    if not (whole and known):
        return
    findings = analyse(
        metrics=decision.metrics(experiment), analyses=decision.analyses(experiment), gates=decision.gates(experiment),
        verdicts=decision.verdicts(experiment),
    )  # fmt: skip
    for finding in findings:
        number, remedy = CODES[finding.kind]
        if finding.rules:
            at = experiment.at("verdicts", finding.rules[0])
        elif finding.gates:
            at = experiment.key_at("gates", finding.gates[0])
        else:
            at = experiment.key_at("verdicts")
        notes = [finding.witness] if finding.witness else []
        if finding.severity == "error":
            sink.error(f"E{number}", finding.message, at, help=finding.help or remedy, notes=notes)
        else:
            sink.warning(f"W{number}", finding.message, at, help=finding.help or remedy, notes=notes)
