"""Operating characteristics: the registered decision on thousands of simulated experiments.

`model` makes scores from a truth, `values` and `contrasts` make statistics of them, `verdicts` decides, `outcomes` and
`power` sum up. `run.simulate` is the whole.
"""
