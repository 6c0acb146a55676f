"""E1101: the computed cost is above the declared budget.

Why: costs that are typed and not derived were wrong by a factor of ten in the literal case: 22,000 judge
calls for ten dollars.

Example:
    budget: {gpu_hours: 0.5, usd: 0}       # the plan needs 3 GPU-hours

Fix: raise the budget, or shrink the plan.
"""

from __future__ import annotations

from epc.compiler.diagnostics import Diagnostics
from epc.compiler.lower import Plan


def check(plan: Plan, sink: Diagnostics) -> None:
    budget = plan.experiment.spec.budget
    for quantity, unit, slack in (("gpu_hours", "GPU-hours", 0.05), ("usd", "dollars", 0.005)):
        needed, allowed = plan.figures.values.get(quantity), getattr(budget, quantity)
        if needed is not None and needed > allowed + slack:
            sink.error(
                "E1101", f"the plan needs about {needed:.2f} {unit}, the budget is {allowed:g}", plan.experiment.at("budget", quantity),
                help=f"raise budget.{quantity}, or shrink the plan",
                notes=[plan.figures.arithmetic[quantity]] if quantity in plan.figures.arithmetic else [],
            )  # fmt: skip
