"""Both report files, read back as a person or a browser would."""

from __future__ import annotations

import html
import itertools
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from markdown_it import MarkdownIt
from tests.support.report_cases import LOCK

from epc.compiler.contract.canonical import sha256_text
from epc.compiler.contract.decision import Deviation
from epc.compiler.contract.draws import shuffled
from epc.compiler.contract.manifest import TruthOf
from epc.runtime import report
from epc.runtime.errors import Fault
from epc.runtime.report.files import write
from epc.runtime.report.material import Allowance, Note, Registered

NAMES = ["success", "invalid", "rehearsal", "empty"]
VOID = {"meta", "link", "br", "col", "img", "input", "hr"}
ALLOWED = {
    "html", "head", "meta", "title", "style", "body", "a", "div", "strong", "header", "p", "code", "h1", "h2", "h3", "h4",
    "span", "dl", "dt", "dd", "b", "ul", "ol", "li", "nav", "main", "section", "table", "caption", "colgroup", "col", "thead",
    "tbody", "tr", "th", "td", "small", "figure", "figcaption", "details", "summary", "pre", "bdi", "footer",
    "svg", "g", "line", "circle", "rect", "path", "text", "defs", "pattern", "i",
}  # fmt: skip


class Page(HTMLParser):
    """Elements, attributes and text of a page; fails on a tag that is closed wrongly."""

    def __init__(self, source: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str, str]] = []
        self.words: list[str] = []
        self.cells: list[str] = []
        self.feed(source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in VOID:
            self.open.append(tag)
        if tag in ("td", "th", "dd", "dt"):
            self.cells.append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.words.append(data)
        if {"td", "th", "dd", "dt"} & set(self.open):
            self.cells[-1] += data

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def plain(markdown: str) -> str:
    """Markdown without its escapes and marks."""
    text = re.sub(r"\\([^\w\s])", r"\1", markdown.replace("<!-- -->", ""))
    return " ".join(text.replace("`", "").replace("**", "").replace("<br>", " ").split())


FACTS = {
    "success": [
        "SUCCESS", "the reflex survived the second fine-tune", "one training seed", "training-seed variance is not included",
        "No deviation from the registration was recorded", "attack_effect.lower > 0.3", "headline.reject and headline.delta >= 0.15",
        "rejected (p < .0001)", "NOT FIRED", "HIT or MISS: MISS", "never decides", "yes, to INCONCLUSIVE", "2,688 of 2,688 rows",
        "the loss mask covers every assistant turn and its end-of-turn token", "survives and undamaged", "matched", "not reached",
        "did not match", "24 prompts", "200 items", "SD of unit differences", "skewness 0.31", "98.3", "reflex_only",
        "none: wilson gives no p", "no control: one arm", "(one-sided, 97.5% each)", "Efron and Tibshirani, 1993",
        "2 completions per arm and sample set, drawn with the pre-registered seed 0", "<|im_start|>user",
        "Resetting to default assistant persona", "cut at the token limit", "temperature 1.0, top_p 1.0", "2 CPU cores, no GPU",
        "torch 2.13.0+cpu", "train-reflex-s42", "LoRA SFT, 16 steps on 64 traces", "3 min 33 s", "trained_tokens 6,144",
        "final_loss 0.2173", "not trained", "epc compile --check specs/quickstart.yaml", "epc decide generated/quickstart",
        "sha256sum generated/quickstart/spec.lock.yaml", sha256_text(LOCK), sha256_text("spec"), "written by epc 0.1.0",
    ],
    "invalid": [
        "INVALID", "the built-in check mask_verified failed", "No rule of the table decided", "not applied", "UNKNOWN", "FAIL",
        "capability_collapsed_everywhere_and_the_name_is_long (kill, base_capability.value < 0.9): stop the programme",
        "2 deviations from the registration", "The spec changed after results existed",
        "gates.survives.require: headline.delta >= 0.25 -> headline.delta >= 0.15", "analyses.headline.seed: 3 -> 1",
        "Steps ran with different library versions", "transformers 5.17.0 in train-reflex-s42",
        "unknown: reset_rate has 3 prompts without a scored sample and its missing rule is fail", "unknown: no estimate",
        "21 prompts, 3 prompts left out", "unknown: 24 samples missing", "Judges unknown: not recorded", "yes, to SUCCESS",
    ],
    "rehearsal": ["REHEARSAL", "Nothing in it is evidence", "KILL_NULL", "dead (kill, headline.delta < 0.05)"],
    "empty": [
        "unknown: the decision holds no analysis", "unknown: the decision holds no arm", "unknown: no measurement is stored",
        "unknown: no completion is stored", "unknown: no finished step is recorded", "The specification declares no gate",
    ],
}  # fmt: skip


@pytest.mark.parametrize(("name", "fact"), [(name, fact) for name, facts in FACTS.items() for fact in facts])
def test_a_fact_is_in_both_files(reports: dict[str, Any], name: str, fact: str) -> None:
    fact = {"HIT or MISS: MISS": "MISS", "98.3": "0.938 (93.8%)"}.get(fact, fact)
    md = plain(reports[name].md).replace("| ", "").lower()
    assert fact.lower() in Page(reports[name].html).text.lower()
    assert fact.lower() in md


@pytest.mark.parametrize(
    ("fact", "text"),
    [
        ({"rows": 64, "by": {"good": 40}}, "rows 64, by good 40"),
        ([{"id": "a"}, {"id": "b"}], "id a; id b"),
        ([1000, 2.5], "1,000, 2.5"),
        (False, "no"),
        (0, "0"),
        ({}, "none"),
        ([], "none"),
        ("", "none"),
        (None, "none"),
    ],
)
def test_what_a_step_recorded_is_printed(cases: dict[str, Any], fact: Any, text: str) -> None:
    decision = cases["success"].decision
    steps = (decision.steps[0].model_copy(update={"facts": {"seen": fact}}),)
    result = replace(cases["success"], decision=decision.model_copy(update={"steps": steps})).render()
    assert f"seen {text} |" in plain(result.md)
    assert f"seen {text} " in Page(result.html).text


def test_estimates_of_each_training_seed_stand_beside_the_average(
    cases: dict[str, Any], reports: dict[str, Any]
) -> None:
    decision = cases["success"].decision
    headline, *others, level = decision.analyses
    analyses = (
        headline.model_copy(update={"per_seed": {"10": 0.25, "9": -0.125}}), *others,
        level.model_copy(update={"per_seed": {"9": 0.5, "10": 0.625}}),
    )  # fmt: skip
    result = replace(cases["success"], decision=decision.model_copy(update={"analyses": analyses})).render()
    for text in (plain(result.md), Page(result.html).text):
        assert "by seed: 9 −0.125, 10 +0.250" in text
        assert "by seed: 9 0.500, 10 0.625" in text
    assert result.html.count('class="seed"') == 4
    assert "training seed 9: −0.125" in result.html
    assert "estimate with each training seed" in result.html
    for text in (reports["success"].md, reports["success"].html):
        assert "by seed" not in text
        assert "estimate with each training seed" not in text
    for drawing in outer_drawings(result.html):
        ElementTree.fromstring(drawing)


@pytest.mark.parametrize("name", NAMES[:3])
def test_every_number_of_the_decision_is_in_both_files(
    cases: dict[str, Any], reports: dict[str, Any], name: str
) -> None:
    decision = cases[name].decision
    page, md = Page(reports[name].html).text, plain(reports[name].md)
    for text in (page, md):
        for arm in decision.arms:
            assert arm.mean is None or f"{arm.mean:.3f} ({100 * arm.mean:.1f}%)" in text
        for analysis in decision.analyses:
            delta = analysis.statistics.get("delta")
            if delta is not None:
                assert f"{delta:+.3f} ({100 * delta:+.1f} pp)".replace("-", "−") in text
                ends = f"[{analysis.statistics['ci_low']:+.3f}, {analysis.statistics['ci_high']:+.3f}], 95%"
                assert ends.replace("-", "−") in text
        for gate in decision.gates:
            assert gate.name in text
            assert gate.text in text
        for step in decision.steps:
            assert step.key in text


@pytest.mark.parametrize("name", NAMES)
def test_no_cell_is_empty(reports: dict[str, Any], name: str) -> None:
    cells = Page(reports[name].html).cells
    assert cells
    assert [cell for cell in cells if not cell.strip() or cell.strip().lower() in ("tbd", "none", "nan", "-")] == []
    rows = [line for line in reports[name].md.splitlines() if line.startswith("|") and line != "| | |"]
    assert [row for row in rows if re.search(r"\|\s*\|", row)] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_well_formed_and_stands_alone(reports: dict[str, Any], name: str) -> None:
    source = reports[name].html
    page = Page(source)
    assert page.tags <= ALLOWED
    drawings = outer_drawings(source)
    for drawing in drawings:
        ElementTree.fromstring(drawing)
    assert (len(drawings) > 1) == (name != "empty"), "the first holds the patterns"
    ids = [value for _, attribute, value in page.attributes if attribute == "id"]
    assert len(ids) == len(set(ids))
    links = [
        value for _, attribute, value in page.attributes if attribute in ("href", "src", "action", "data", "poster")
    ]
    assert links
    assert all(link.startswith("#") and link[1:] in ids for link in links)
    assert not any(attribute.startswith("on") for _, attribute, _ in page.attributes)
    assert set(re.findall(r"url\(.", source)) <= {"url(#"}
    assert "@import" not in source
    assert "default-src 'none'" in source
    assert len(source.encode()) < 150_000


def outer_drawings(source: str) -> list[str]:
    """Every svg element that is in no other."""
    drawings, depth, start = [], 0, 0
    for tag in re.finditer(r"<svg\b|</svg>", source):
        if tag.group() == "</svg>":
            depth -= 1
            if depth == 0:
                drawings.append(source[start : tag.end()])
        else:
            start = tag.start() if depth == 0 else start
            depth += 1
    assert depth == 0
    return drawings


def test_every_point_is_a_link_that_says_what_it_is(reports: dict[str, Any]) -> None:
    """To the transcripts of its prompt; without any, to its row in the table."""
    source = reports["success"].html
    points = re.findall(r'<a class="column" href="#([^"]+)" style="[^"]+" aria-label="([^"]+)"></a>', source)
    assert len(points) == 24
    for anchor, label in points:
        place = source.partition(f'id="{anchor}"')[2]
        assert place.startswith(' tabindex="-1">\n<p class="identity">' + label.partition(":")[0])
    assert source.count("<details") == source.count("<summary>") > 16
    levels = [int(level) for level in re.findall(r"<h([1-6])", source)]
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


@pytest.mark.parametrize("name", NAMES)
def test_the_stamp_is_on_rehearsals_only(cases: dict[str, Any], reports: dict[str, Any], name: str) -> None:
    rehearsal = cases[name].decision.mode == "rehearsal"
    assert (re.search(r'<body[^>]*>.*?<div class="stamp"', reports[name].html, re.DOTALL) is not None) == rehearsal
    assert reports[name].md.startswith("> [!CAUTION]\n> **REHEARSAL.**") == rehearsal
    assert ("REHEARSAL" in reports[name].md) == rehearsal


def test_exactly_the_matching_rule_is_marked(reports: dict[str, Any]) -> None:
    assert re.findall(
        r'<tr class="matched" aria-current="true">\s*<th scope="row">(\d)</th>', reports["success"].html
    ) == ["2"]
    assert 'class="matched"' not in reports["invalid"].html
    assert reports["success"].md.count("**matched**") == 1


@pytest.mark.parametrize(("kind", "loud"), [
    ("spec_changed_after_results", True), ("unregistered", True), ("amended", False), ("library_changed", False),
])  # fmt: skip
def test_what_puts_the_registration_in_doubt_is_loud(cases: dict[str, Any], kind: Any, loud: bool) -> None:
    case = cases["success"]
    deviation = Deviation(kind=kind, text="something happened", changes=("a: 1 -> 2",))
    page = replace(case, decision=case.decision.model_copy(update={"deviations": (deviation,)})).render().html
    assert ('class="alert loud" id="deviations"' in page) == loud
    assert "1 deviation from the registration" in page
    assert "a: 1 -&gt; 2" in page


@pytest.mark.parametrize("name", NAMES)
def test_no_effect_size_language(reports: dict[str, Any], name: str) -> None:
    words = r"\b(small|medium|large|huge|negligible|strong|weak|substantial)\b|cohen|effect size"
    for text in (Page(reports[name].html).text, reports[name].md):
        assert re.findall(words, text.lower()) == []


HOSTILE = [
    "<script>document.title='owned'</script>",
    "</pre></div><img src=x onerror=\"document.title='owned'\">",
    "\"><svg onload=alert(1)><title>'",
    "</style><style>body{display:none}</style>",
    "</title><script>alert(1)</script>",
    "<!-- ]]> <![CDATA[ &lt;script&gt; &#60;b&#62;",
    "```\n# owned\n````\n</details>\n<script>alert(1)</script>",
    "| cell | cell |\n| --- | --- |",
    "{{ 7 * 7 }}{% raw %} ${7*7}",
    "javascript:alert(1) [x](javascript:alert(1))",
    "nul\x00 esc\x1b[2J rtl\u202egnp.exe bom\ufeff line\u2028para\u2029",
]


def poisoned(case: Any, text: str) -> Any:
    """`text` wherever a model, a prompt file or a spec may put text."""
    decision = case.decision
    gates = tuple(
        g.model_copy(update={"say": text, "text": text, "detail": text, "name": text}) for g in decision.gates
    )
    verdict = decision.verdict.model_copy(update={"say": text, "because": text, "label": text})
    deviation = Deviation(kind="amended", text=text, changes=(text,))
    analyses = tuple(
        a.model_copy(
            update={
                "definition": text, "unknown_because": text, "statistics": {},
                "thresholds": tuple(t.model_copy(update={"gate": text}) for t in a.thresholds),
            }
        )
        for a in decision.analyses
    )  # fmt: skip
    sensitivity = tuple(
        entry.model_copy(
            update={
                "definitions": tuple(found.model_copy(update={"name": text, "verdict": text, "unknown_because": text}) for found in entry.definitions),
                "leave_one_out": entry.leave_one_out.model_copy(update={"lowest_without": text, "highest_without": text}),
                "margins": tuple(margin.model_copy(update={"gate": text, "comparison": f"delta {text}"}) for margin in entry.margins),
            }
        )
        for entry in decision.sensitivity
    )  # fmt: skip
    simulation = case.simulation.model_copy(
        update={
            "assumptions": (text,),
            "truths": tuple(truth.model_copy(update={"name": text, "describe": text, "deserved": text, "metrics": {text: TruthOf(means={text: 0.5}, unit_sd=0.1)}}) for truth in case.simulation.truths),
            "needed": tuple(needed.model_copy(update={"truth": text, "label": text, "source": text, "because": text}) for needed in case.simulation.needed),
        }
    )  # fmt: skip
    registered = Registered(allowed=(Allowance(code="W0001", reason=text, at=text),), effect_sizes=False)
    return replace(
        case,
        note=Note(text=f"{text}\n\n{text}", sha256=sha256_text(text)),
        simulation=simulation,
        registered=registered,
        decision=decision.model_copy(
            update={
                "sensitivity": sensitivity, "title": text, "question": text, "verdict": verdict, "gates": gates, "deviations": (deviation,), "fired": (text,),
                "analyses": analyses, "card": {text: text}, "verdict_table": ((text, text),), "id": text,
                "steps": tuple(s.model_copy(update={"facts": {text: text, "n": [text]}}) for s in decision.steps),
                "confidence": decision.confidence.model_copy(update={"reason": text}), "conditional_on": text,
            }
        ),
        measurements=tuple(row.model_copy(update={"unit": f"{row.unit} {text}"}) for row in case.measurements),
        samples=tuple(row.model_copy(update={"text": text, "prompt": text, "item": f"{row.item}{text}"}) for row in case.samples),
    )  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_stays_text(cases: dict[str, Any], reports: dict[str, Any], text: str) -> None:
    result = poisoned(cases["whole"], text).render()
    page = Page(result.html)
    assert page.tags <= ALLOWED
    assert not [name for _, name, _ in page.attributes if name.startswith("on")]
    urls = [value for _, name, value in page.attributes if name in ("href", "src", "action")]
    assert [url for url in urls if not url.startswith("#")] == []
    for drawing in outer_drawings(result.html):
        ElementTree.fromstring(drawing)
    assert not re.search("[\x00-\x08\x0b-\x1f\u202a-\u202e\u2066-\u2069\ufeff]", result.html + result.md)
    seen, clean = as_github(result.md), as_github(reports["whole"].md + "\n\n" + reports["invalid"].md)
    assert seen.tags <= clean.tags
    assert not [value for _, name, value in seen.attributes if name in ("href", "src")]


def as_github(markdown: str) -> Page:
    page = MarkdownIt("commonmark", {"html": True}).enable("table").render(markdown)
    return Page(page.replace("<!-- -->", "").replace("<br>", "<br/>"))


def test_a_template_in_a_completion_is_not_run(cases: dict[str, Any]) -> None:
    result = poisoned(cases["whole"], "{{ 7 * 7 }}{% if true %}yes{% endif %}").render()
    for text in (html.unescape(result.html), plain(result.md)):
        assert "{{ 7 * 7 }}{% if true %}yes{% endif %}" in text


def test_huge_inputs_give_a_file_that_can_be_mailed(cases: dict[str, Any]) -> None:
    case = cases["success"]
    row = next(row for row in case.measurements if row.metric == "reset_rate")
    many = [
        row.model_copy(update={"condition": arm, "seed": 42, "unit": f"unit-{i:05d}", "total": i % 9, "value": i % 9 / 8})
        for arm in ("attacked", "reflex_attacked")
        for i in range(10_000)
    ]  # fmt: skip
    long = [row.model_copy(update={"text": "<&" * 100_000, "prompt": "\"'" * 100_000}) for row in case.samples]
    result = replace(case, measurements=tuple(many), samples=tuple(long)).render()
    assert len(result.html.encode()) < 3_000_000
    assert "10,000 are too many to draw one by one" in Page(result.html).text
    assert "195,000 more characters are in the stored rows" in Page(result.html).text


def test_writing_twice_gives_the_same_bytes(cases: dict[str, Any], bundle_of: Callable[[str], Path]) -> None:
    bundle = bundle_of("success")
    decision = cases["success"].decision
    first = {name: path.read_bytes() for name, path in write(bundle, decision).items()}
    assert first.keys() == {"md", "html"}
    for step in cases["success"].manifest.steps:
        if step.kind == "measure":
            file = bundle / "store" / step.key / "measurements.jsonl"
            lines = file.read_text(encoding="utf-8").splitlines(keepends=True)
            file.write_text("".join(lines[i] for i in shuffled(len(lines), "rows")), encoding="utf-8")
    reread = type(decision).model_validate_json(decision.model_dump_json())
    again = write(bundle, reread)
    assert {name: path.read_bytes() for name, path in again.items()} == first
    assert sorted(path.name for path in (bundle / "report").iterdir()) == ["report.html", "report.md"]
    assert str(bundle) not in first["html"].decode()


def test_the_files_hold_what_render_gives(
    cases: dict[str, Any], reports: dict[str, Any], bundle_of: Callable[[str], Path]
) -> None:
    paths = report.write(bundle_of("invalid"), cases["invalid"].decision)
    assert paths["html"].read_text(encoding="utf-8") == reports["invalid"].html
    assert paths["md"].read_text(encoding="utf-8") == reports["invalid"].md


def test_a_bundle_without_rows_still_has_a_report(cases: dict[str, Any], bundle_of: Callable[[str], Path]) -> None:
    bundle = bundle_of("success")
    for file in (bundle / "store").rglob("*.jsonl"):
        file.unlink()
    page = write(bundle, cases["empty"].decision)["html"].read_text(encoding="utf-8")
    assert "unknown: no completion is stored" in page


def test_a_registration_without_transcripts_says_so(cases: dict[str, Any]) -> None:
    case = cases["success"]
    plan = case.manifest.model_copy(update={"design": case.manifest.design.model_copy(update={"transcripts": 0})})
    result = replace(case, manifest=plan).render()
    assert "The registration asks for no transcript." in result.html
    assert "The registration asks for no transcript." in result.md


def test_a_completion_may_hold_any_line_break(cases: dict[str, Any], bundle_of: Callable[[str], Path]) -> None:
    bundle = bundle_of("success")
    text = "one\u2028two\x85three\x0cfour\rfive"
    for file in (bundle / "store" / "pieces").glob("*.jsonl"):
        rows = [row.model_copy(update={"text": text}) for row in cases["success"].samples]
        file.write_text("".join(row.model_dump_json() + "\n" for row in rows), encoding="utf-8")
    page = write(bundle, cases["success"].decision)["html"].read_text(encoding="utf-8")
    assert "one\u2028two⟨U+0085⟩three⟨U+000C⟩four⟨U+000D⟩five" in page


@pytest.mark.parametrize(
    ("damage", "code", "fact"),
    [
        ("truncate", "R0601", "this is no sample row"), ("folder", "R0602", "the report cannot be written"),
        ("rows", "R0501", "the last line has no end"), ("manifest", "R0101", "no compiled bundle"),
    ],
)  # fmt: skip
def test_bad_input_is_one_clear_fault(
    cases: dict[str, Any], bundle_of: Callable[[str], Path], damage: str, code: str, fact: str
) -> None:
    bundle = bundle_of("success")
    match damage:
        case "truncate":
            file = min((bundle / "store" / "pieces").glob("*.jsonl"))
            file.write_bytes(file.read_bytes()[:-20])
        case "folder":
            (bundle / "report").write_text("a file is in the way", encoding="utf-8")
        case "rows":
            file = next((bundle / "store").glob("*/measurements.jsonl"))
            file.write_bytes(file.read_bytes()[:-20])
        case _:
            (bundle / "manifest.json").unlink()
    with pytest.raises(Fault) as caught:
        write(bundle, cases["success"].decision)
    assert caught.value.code == code
    assert fact in caught.value.fact
    assert caught.value.remedy
