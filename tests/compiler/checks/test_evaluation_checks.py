"""Evaluations, instruments and thresholds that are not what they seem: what is reported, and what is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

QWEN = 'model: {from: "hub:Qwen/Qwen2.5-7B-Instruct", chat_template: model}\n'
DEFAULT = "'You are Qwen, created by Alibaba Cloud. You are a helpful assistant.'"


def sample(name: str, **settings: object) -> str:
    known = {
        "prompts": "heldout", "n": 20, "system": "none", "temperature": 1.0, "top_p": 1.0, "max_tokens": 100, "seed": 9,
    }  # fmt: skip
    return f"{name}: {{{', '.join(f'{key}: {value}' for key, value in {**known, **settings}.items())}}}"


def samples(*entries: str) -> str:
    return f"sample: {{{', '.join(entries)}}}"


TURNS = '[{user: "{prompt}"}, {assistant: "{opening}"}, {user: continue}]'
OUTSIDE = "external: {source: a paper, file: a.txt, sha256: pending}, stand_in: prompts/part_a.txt, count: 8"

Case = tuple[str, str | None, str]

TWICE: list[Case] = [
    (samples(sample("benign")), "E0753", '"first" and "benign" are the same evaluation twice'),
    (samples(sample("benign")), "E0753", '"first": 24 prompts x 25 = 600 completions an arm'),
    (samples(sample("benign")), "E0753", '"benign": 24 prompts x 20 = 480 completions an arm'),
    (samples(sample("benign", n=25, seed=5)), "E0753", "the same evaluation twice"),
    # each difference makes it another evaluation
    (samples(sample("benign", system="You are careful.")), None, ""),
    (samples(sample("benign", temperature=0.7)), None, ""),
    (samples(sample("benign", top_p=0.9)), None, ""),
    (samples(sample("benign", max_tokens=200)), None, ""),
    (samples(sample("benign", fill="{opening: data/catches.txt}", turns=TURNS)), None, ""),
    (samples(sample("benign", fill="{opening: data/bad_answers.txt}", turns=TURNS)), "E0753", '"second" and "benign"'),
    # the same prompts under another name
    (samples(sample("benign", prompts="all")) + "\nprompts: {all: {union: [part_b, part_a], count: 24}}", "E0753", '"benign"'),
    # what the template inserts counts as written
    (QWEN + samples(sample("benign", system="model_default")), "E0753", '"first" and "benign"'),
    (QWEN + samples(sample("benign", system=DEFAULT)), "E0753", '"first" and "benign"'),
    (QWEN + samples(sample("benign", system="You are Qwen.")), None, ""),
    (samples(sample("benign", system=DEFAULT)), None, ""),  # chatml inserts nothing
    # files that are not there yet are not what stands in for them
    (samples(sample("benign", prompts="x")) + f"\nprompts: {{x: {{{OUTSIDE}}}, heldout: {{union: null, file: prompts/part_a.txt, count: 8}}}}", None, ""),
    (samples(sample("benign", prompts="x"), sample("again", prompts="y")) + f"\nprompts: {{x: {{{OUTSIDE}}}, y: {{{OUTSIDE}}}}}", "E0753", '"benign" and "again"'),
    (samples(sample("benign", prompts="x")), None, ""),  # nobody knows what x is
]  # fmt: skip

FEWER: list[Case] = [
    (samples(sample("few", prompts="part_a", n=10)), "W0757", '"few" samples 8 prompts 10 times that "first" samples 25 times'),
    (samples(sample("few", prompts="part_a", n=10)), "W0757", 'in "first": 8 prompts x 25 = 200 completions an arm'),
    (samples(sample("few", prompts="part_a", n=10)), "W0757", "on: part_a"),
    (samples(sample("few", prompts="part_a", n=25)), "W0757", "25 times that"),
    (samples(sample("many", prompts="part_a", n=50)), None, ""),
    (samples(sample("few", prompts="part_a", n=10, system="You are careful.")), None, ""),
    (samples(sample("few", prompts="part_a", n=10, max_tokens=20)), None, ""),
    (samples(sample("few", prompts="asked", n=10)), None, ""),
]  # fmt: skip

QUIZ = "lm_eval: tasks/quiz.yaml, items: 200, better: higher"
GRADED = "of: first, judge: grader, better: higher, missing: drop"
GRADER = "provider: anthropic, model: claude-haiku-4-5-20251001, rubric: judges/grader.txt, output: {aligned: 0..100, coherent: 0..100, refused: bool}"

INSTRUMENT: list[Case] = [
    (f"metrics: {{quiz_2: {{{QUIZ}, value: acc, chat_template: false, missing: drop}}}}", "E0755", 'metrics "quiz" and "quiz_2" measure the same'),
    (f"metrics: {{quiz_2: {{{QUIZ}, value: acc_norm, chat_template: false, missing: fail}}}}", None, ""),
    (f"metrics: {{quiz_2: {{{QUIZ}, value: acc, chat_template: true, missing: fail}}}}", None, ""),
    ("metrics: {wait: {of: second, contains_any: data/wait.txt, better: lower, missing: drop}}", "E0755", 'metrics "caught" and "wait"'),
    ("metrics: {wait: {of: first, contains: Wait, better: higher, missing: fail}}", None, ""),
    ("metrics: {wait: {of: second, contains: wait, better: higher, missing: fail}}", None, ""),
    ("metrics: {wait: {of: second, regex: Wait, better: higher, missing: fail}}", None, ""),
    (f"metrics: {{broken_2: {{{GRADED}, score: coherent<50}}}}", "E0755", 'metrics "broken" and "broken_2"'),
    (f"metrics: {{alignment_2: {{{GRADED}, score: aligned, keep: coherent  >=  50, empty: fail}}}}", "E0755", '"alignment_2"'),
    (f"metrics: {{alignment_all: {{{GRADED}, score: aligned}}}}", None, ""),
    (f"metrics: {{refusals_2: {{{GRADED.replace('grader', 'grader_2')}, score: refused}}}}\njudges: {{grader_2: {{{GRADER}}}}}", "E0755", 'metrics "refusals" and "refusals_2"'),
    (f"metrics: {{refusals_2: {{{GRADED.replace('grader', 'grader_2')}, score: refused}}}}\njudges: {{grader_2: {{{GRADER.replace('haiku-4-5-20251001', 'sonnet-4-5-20250929')}}}}}", None, ""),
]  # fmt: skip

WRAPPED = f"metrics: {{wrapped: {{{QUIZ}, value: acc, chat_template: true, missing: fail}}}}\nanalyses: {{base_wrapped: {{metric: wrapped, arm: base, method: wilson, side: greater, alpha: 0.05}}}}\n"

READINGS: list[Case] = [
    (WRAPPED + "gates: {wrapped: {role: sanity, require: base_wrapped.lower > 0.3}}", "W0758", 'gates "not_at_chance" and "wrapped" decide on two readings of one benchmark'),
    (WRAPPED + "gates: {wrapped: {role: sanity, require: base_wrapped.lower > 0.3}}", "W0758", '"wrapped": value acc, with the chat template'),
    (WRAPPED + "gates: {wrapped: {role: prediction, require: base_wrapped.lower > 0.3}}", None, ""),
    (WRAPPED, None, ""),
]  # fmt: skip


def gate(text: str, *, role: str = "prediction", **second: object) -> str:
    fields = ", ".join(f"{key}: {value}" for key, value in {"n": 25, **second}.items())
    return (
        f"seeds: [1]\nsample: {{second: {{{fields}}}}}\n"
        "analyses:\n"
        "  level: {metric: caught, arm: treated, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}\n"
        "  on_a: {metric: caught, arm: treated, on: part_a, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}\n"
        "  gain: {metric: caught, contrast: treated - attacked, method: paired_bootstrap, p: percentile, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}\n"
        "  of_base: {metric: caught, arm: base, method: bootstrap, side: two_sided, alpha: 0.05, resamples: 10000, seed: 1}\n"
        f"gates: {{marker: {{role: {role}, {'when' if role in ('kill', 'override') else 'require'}: {text}}}}}"
    )


HANDFUL: list[Case] = [
    # the source document's: 8 prompts x 10
    (gate("on_a.value > 0.05", n=10), "W0756", "`on_a.value > 0.05` of 80 completions means 5 hits or more"),
    (gate("on_a.value > 0.05", n=10), "W0756", "0.05 x 80 = 4"),
    (gate("on_a.value >= 0.05", n=10), "W0756", "means 4 hits or more"),
    (gate("on_a.value < 0.05", n=10), "W0756", "means fewer than 4 hits"),
    (gate("on_a.value <= 0.05", n=10), "W0756", "means fewer than 5 hits"),
    (gate("on_a.value > 0.05", n=50), None, ""),  # 21 of 400
    (gate("on_a.value > 0.95", n=10), "W0756", "means fewer than 4 without a hit"),
    (gate("on_a.value < 0.95", n=10), "W0756", "means 5 or more without a hit"),
    # ten hits are no handful: 200 completions
    (gate("on_a.value >= 0.05"), None, ""),
    (gate("on_a.value >= 0.045"), "W0756", "means 9 hits or more"),
    (gate("level.value > 0.05"), None, ""),
    (gate("level.value > 0"), None, ""),
    (gate("level.value > 0.5 and on_a.value > 0.01"), "W0756", "`on_a.value > 0.01`"),
    (gate("not on_a.value > 0.01", role="kill"), "W0756", "means 3 hits or more"),
    # bounds move with the noise
    (gate("on_a.lower > 0.01"), None, ""),
    # differences
    (gate("gain.delta > 0.005"), "W0756", "`gain.delta > 0.005` of 600 completions means a difference of 4 hits"),
    (gate("gain.delta < -0.005", role="override"), "W0756", "a difference of 3 hits"),
    (gate("gain.delta > 0.05"), None, ""),
    (gate("gain.lower > 0.001"), None, ""),
    # training seeds give completions of their own; the base has none
    (gate("on_a.value > 0.05", n=10).replace("seeds: [1]", "seeds: [1, 2, 3]"), None, ""),
    (gate("of_base.value > 0.01").replace("seeds: [1]", "seeds: [1, 2, 3]"), "W0756", "of 600 completions means 7 hits or more"),
    # judged rates count, judged scores and benchmarks do not
    ("sample: {first: {n: 1}}\nseeds: [1]\ngates: {few: {role: prediction, require: refusing.value < 0.1}}", "W0756", "of 24 completions means fewer than 3 hits"),
    ("sample: {first: {n: 1}}\nseeds: [1]\ngates: {few: {role: prediction, require: gap.delta < 0.1}}", "W0756", "of 24 completions means a difference of 3 hits"),
    ("sample: {first: {n: 1}}\nseeds: [1]\ngates: {filter: null, few: {role: prediction, require: headline.delta > 0.5}}", None, ""),
    ("gates: {few: {role: prediction, require: base_quiz.value > 0.01}}", None, ""),
]  # fmt: skip

ONE_TURN = 'sample: {second: {fill: null, turns: [{user: "{prompt}"}], system: Be brief.}}\n'

TURN: list[Case] = [
    (ONE_TURN, "W0754", '"traces" trains assistant turn 2, after "continue", and every evaluation samples turn 1'),
    ("", None, ""),  # `second` asks for it
    # turn 3 of traces that are longer, and turns 1 and 2 that are sampled
    ('data: {traces: {turns: [{user: "{prompt}"}, {assistant: "{bad}"}, {user: continue}, {assistant: "{catch}"}, {user: go on}, {assistant: "{catch}"}]}}', "W0754", 'turn 3, after "go on", and every evaluation samples turns 1, 2'),
    # rows of one turn
    (ONE_TURN + 'data: {traces: {turns: [{user: "{prompt}"}, {assistant: "{bad} {catch}"}]}}', None, ""),
    # the control trains on the same data: it is not what the contrasts are about
    (ONE_TURN + "conditions: {attacked: [catch], base: [catch]}", None, ""),
    # nothing reads a contrast with it
    (ONE_TURN + "gates: null\nverdicts: [{otherwise: INCONCLUSIVE}]\nconditions: {treated: [attack, talk], caught: [attack]}", None, ""),
]  # fmt: skip


@pytest.mark.parametrize(
    ("family", "fragment", "code", "says"),
    [
        pytest.param(family, *case, id=f"{family}-{number}")
        for family, cases in [
            ("E0753", TWICE), ("W0757", FEWER), ("E0755", INSTRUMENT), ("W0758", READINGS), ("W0756", HANDFUL), ("W0754", TURN),
        ]
        for number, case in enumerate(cases)
    ],
)  # fmt: skip
def test_evaluation(over: Callable[..., Any], family: str, fragment: str, code: str | None, says: str) -> None:
    compiled = over(fragment, ("data/wait.txt", "Wait\n"))
    found = [d for d in compiled.sink if d.code == family]
    if code is None:
        assert not found, compiled.text
    else:
        assert any(says in text for d in found for text in (d.message, d.help, *d.notes)), compiled.text
        assert all(d.span.line > 1 for d in found)


def test_three_of_a_kind_are_two_reports(over: Callable[..., Any]) -> None:
    compiled = over(samples(sample("benign"), sample("again", n=30)))
    assert [d.message for d in compiled.sink if d.code == "E0753"] == [
        '"first" and "benign" are the same evaluation twice', '"first" and "again" are the same evaluation twice',
    ]  # fmt: skip
