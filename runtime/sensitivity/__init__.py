"""The sensitivity panel: how much a verdict rests on how its analyses were computed.

It stands beside the registered result and is never a choice: nothing here feeds back into the decision, but the
confidence label may be capped by FRAGILE (`runtime.decide`). Each alternative is put in place of its analysis alone,
everything else stays as it is, and the verdict table is read again. Built-in gates stay as they were.

What is computed, for every analysis that the decision reads:

- `definitions`: p as percentile, shift, studentized and BCa bootstrap, paired t and sign flip, of 0-1 data also
  Newcombe's and McNemar's exact; FRAGILE where some reject at the registered alpha and others do not. Only where a
  gate reads more than the estimate, or the analysis is confirmatory: the point estimate has no definition of p.
- `filters`: with the metric's filter and without it.
- `weights`: every unit weighs the same, as registered, or every sample does. Of samples, the estimate is the
  difference R_T - R_C of R = sum T_i / sum N_i, and the registered method is applied to e_i = R_T - R_C +
  n (T_i - R N_i) / sum N_i, treatment minus control: the ratio estimator's linearisation (W. G. Cochran, Sampling
  Techniques, 3rd ed. 1977, section 6.3), whose mean is R_T - R_C, and which is d_i where all N_i are the same.
- `seeds`: with each training seed alone; a bootstrap that draws training seeds is read as the paired bootstrap of units.
- `without_seed`: by the registered method without each training seed in turn, where two or more are left.
- `missing`: at both extremes of the missing scores.
- `leave_one_out`, `monte_carlo`, `minimum_detectable`, `margins`: see their modules.

Deterministic to the byte, from the registered seeds; an analysis that declares no seed uses DEFAULT_SEED.
"""

from epc.runtime.sensitivity.panel import sensitivity

__all__ = ["sensitivity"]
