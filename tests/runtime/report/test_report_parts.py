"""What the parts of a report say: sensitivity, operating characteristics, note, accepted warnings, sources of numbers."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import html5lib
import pytest
from markdown_it import MarkdownIt
from tests.support import report_cases

from epc.compiler.contract.decision import AnalysisSensitivity, Decision
from epc.compiler.contract.manifest import Gate
from epc.runtime import report
from epc.runtime.decide import decide, read
from epc.runtime.errors import Fault
from epc.runtime.report import numbers
from epc.runtime.report.figures.regions import Region, regions
from epc.runtime.report.files import LONGEST_NOTE, material, write
from epc.runtime.simulate.command import text_of

NAMES = ["success", "invalid", "rehearsal", "empty", "whole", "several", "issue147", "elsewhere"]
NUMBER = re.compile(r"\d+(?:,\d{3})*(?:\.\d+)?|\.\d+")


@pytest.fixture(scope="module")
def decisions(cases: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Decision, Any]]:
    """Every decision with its report."""
    folder = tmp_path_factory.mktemp("reports")
    own = report_cases.elsewhere(folder / "own")
    decided = decide(own)
    lab = report_cases.issue147(folder / "issue147")
    made = {name: (case.decision, case.render()) for name, case in cases.items()}
    return {**made, "issue147": (lab.decision, lab.render()), "elsewhere": (decided, report.rendered(own, decided))}


@pytest.fixture(scope="module")
def all_reports(decisions: dict[str, tuple[Decision, Any]]) -> dict[str, Any]:
    return {name: made for name, (_, made) in decisions.items()}


@cache
def parsed(source: str) -> ElementTree.Element:
    """The page as a browser reads it. Fails on anything that HTML calls a parse error."""
    parser = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False)
    page: ElementTree.Element = parser.parse(source)
    return page


def words(element: ElementTree.Element) -> str:
    return " ".join(" ".join(element.itertext()).split())


def plain(markdown: str) -> str:
    """Markdown without its escapes and marks."""
    text = re.sub(r"\\([^\w\s])", r"\1", markdown.replace("<!-- -->", "").replace("<br>", " "))
    return " ".join(text.replace("`", "").replace("**", "").split())


@pytest.mark.parametrize("name", NAMES)
def test_the_page_is_valid_html(all_reports: dict[str, Any], name: str) -> None:
    page = parsed(all_reports[name].html)
    ids = [element.get("id") for element in page.iter() if element.get("id")]
    assert len(ids) == len(set(ids))
    assert {element.get("href", "#").removeprefix("#") for element in page.iter("a")} <= set(ids) | {""}
    for table in page.iter("table"):
        assert all(heading.get("scope") in ("col", "row", "rowgroup") for heading in table.iter("th"))
        for row in table.iterfind("tbody/tr"):
            assert row.find("th") is not None or row.get("class") == "definition"
    levels = [int(element.tag[1]) for element in page.iter() if re.fullmatch("h[1-6]", str(element.tag))]
    assert levels[0] == levels.count(1) == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert all(image.get("aria-label") or image.get("aria-hidden") for image in page.findall(".//svg[@class]"))
    assert not list(page.iter("script"))
    assert len(all_reports[name].html.encode()) < 3_000_000


def cells(page: ElementTree.Element) -> list[str]:
    """What stands in tables and lists of facts."""
    found = [cell for table in page.iter("table") for tag in ("td", "th") for cell in table.iter(tag)]
    return [words(cell) for cell in (*found, *(cell for listed in page.iter("dl") for cell in listed.iter("dd")))]


@pytest.mark.parametrize("name", NAMES)
def test_both_files_hold_the_same_numbers(all_reports: dict[str, Any], name: str) -> None:
    """Those of tables and lists of facts; a number of either is somewhere in the other."""
    page = parsed(all_reports[name].html)
    markdown = as_github(all_reports[name].md)
    for here, there in ((cells(page), words(markdown)), (cells(markdown), words(page))):
        told = set(NUMBER.findall(there))
        assert here
        assert [cell for cell in here if not set(NUMBER.findall(cell)) <= told] == []
        assert [cell for cell in here if not cell and here is cells(page)] == []


@cache
def as_github(markdown: str) -> ElementTree.Element:
    return parsed(
        f"<!doctype html><title>t</title>{MarkdownIt('commonmark', {'html': True}).enable('table').render(markdown)}"
    )


@pytest.mark.parametrize("name", NAMES)
def test_the_markdown_has_whole_tables(all_reports: dict[str, Any], name: str) -> None:
    """A row with a cell too many or too few, or a bar that is not escaped, is no row of the table any more."""
    source = all_reports[name].md
    page = as_github(source)
    tables = list(page.iter("table"))
    assert len(tables) == len(re.findall(r"^\|(?: ?:?-+:? ?\|)+$", source, re.MULTILINE))
    for table in tables:
        (head,) = table.findall("thead/tr")
        for row in table.findall("tbody/tr"):
            assert [words(cell) for cell in row.findall("td") if not words(cell)] == []
            assert len(row.findall("td")) == len(head.findall("th"))
    for line in re.findall(r"^\|.*$", source, re.MULTILINE):
        assert re.search(r"(?<!\\)\|$", line)
    assert [text for text in page.iter("p") if words(text).startswith("|")] == []
    fences = [line for line in source.splitlines() if re.match("`{3}", line)]
    assert len(fences) % 2 == 0


SAID_OTHERWISE = {
    "mode": "a rehearsal is stamped, and what is real is not",
    "analyses.*.method": "the definition names it with its source",
    "analyses.*.arms.*.n": "kept and dropped ones are counted together",
    "deviations.*.kind": "its heading is a sentence",
    "steps.*.facts.sha256.base-s0": "its first digits",
}
"""What no report prints as it is in decision.json, and why."""
OPERATORS = {"==": "is true", "<=": "≤", ">=": "≥"}


def leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from leaves(inner, (*path, key))
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from leaves(inner, (*path, "*"))
    elif value not in (None, True, False, ""):
        yield ".".join(path), value


def ways_to_print(path: str, value: Any) -> set[str]:
    if isinstance(value, str):
        return {" ".join(value.split()), value.replace("_", "-"), value.replace("_", " "), OPERATORS.get(value, value)}
    if isinstance(value, int):
        return {f"{value:,}"}
    size = abs(value)
    if path.endswith(".seconds"):
        return {numbers.seconds(value)}
    if path.endswith(("level", ".power")):
        return {numbers.percent_level(size), numbers.compact(size)}
    if path.rpartition(".")[2].startswith("p"):
        return {numbers.p_value(size, level) for level in (None, 0.025, 0.02449999)}
    return {f"{size:.{digits}f}" for digits in range(2, 7)} | {numbers.compact(size)}


@pytest.mark.parametrize("name", NAMES)
def test_everything_in_the_decision_is_in_both_files(decisions: dict[str, tuple[Decision, Any]], name: str) -> None:
    decision, made = decisions[name]
    texts = [words(parsed(made.html)).lower(), words(as_github(made.md)).lower()]
    told = list(leaves(decision.model_dump(exclude={"schema_version"})))
    assert len(told) > 20
    lacking = [
        (path, value)
        for path, value in told
        if path not in SAID_OTHERWISE
        if not all(any(way.lower() in text for way in ways_to_print(path, value)) for text in texts)
    ]
    assert lacking == []


@pytest.mark.parametrize("name", ["success", "whole", "several", "issue147", "elsewhere"])
def test_every_row_of_results_leads_to_its_stored_rows(all_reports: dict[str, Any], name: str) -> None:
    """In one step, or over the analysis that a gate or an alternative is of."""
    page = parsed(all_reports[name].html)
    sections = {section.get("id", ""): section for section in page.iter("section")}
    hashed = {row.get("id"): words(row.findall("td")[-1]) for row in sections["rows"].iterfind(".//tr[@id]")}
    assert all(re.fullmatch("[0-9a-f]{64}", sha256) for sha256 in hashed.values())

    def links(element: ElementTree.Element) -> set[str]:
        return {link.get("href", "").removeprefix("#") for link in element.iter("a")}

    analyses = {body.get("id", ""): links(body) & hashed.keys() for body in sections["analyses"].iter("tbody")}
    analyses |= {row.get("id", ""): links(row) & hashed.keys() for row in page.iter("tr") if row.get("id")}
    assert all(analyses[anchor] for anchor in analyses if anchor.startswith("analysis-"))
    for section in ("arms", "missing"):
        for table in sections[section].findall("table"):
            if table.findall("caption/a"):  # replies of a judge, counted by its step
                assert [anchor for anchor in links(table) if page.find(f".//tr[@id='{anchor}']") is None] == []
                continue
            for row in table.findall("tbody/tr"):
                assert links(row) <= hashed.keys()
                assert len(links(row)) == 1
    for row in sections["gates"].findall(".//table[1]/tbody/tr"):
        if row.findall(".//*[@class='atom good']"):
            assert links(row)
            assert all(analyses[anchor] for anchor in links(row))
    for figure in sections["figures"].iter("figure"):
        for strip in figure.findall(".//div[@class='strip']"):
            assert links(strip) <= hashed.keys() | analyses.keys()
            assert links(strip)
        assert links(figure) & hashed.keys() or links(figure) <= analyses.keys()
    for panel in sections["sensitivity"].iter("details"):
        assert links(panel) & hashed.keys()
    for link in page.iter("a"):
        if link.get("class") == "ref":
            assert hashed[link.get("href", "").removeprefix("#")].startswith(words(link))


def sha256_of(rows: Any) -> str:
    """Of the lines that a step writes, sorted."""
    return report_cases.sha256_text("".join(sorted(row.model_dump_json() + "\n" for row in rows)))


def test_a_hash_is_that_of_its_rows(cases: dict[str, Any]) -> None:
    case = cases["success"]
    by_cell = defaultdict(list)
    for row in case.measurements:
        by_cell[row.metric, row.condition].append(row)
    result = case.render()
    for (metric, condition), rows in by_cell.items():
        line = f"| `{metric}` in `{condition}` | {len(rows)} rows | `{case.file}` | `{sha256_of(rows)}` |"
        assert line in result.md
        assert sha256_of(rows) in result.html
    other = replace(
        case, measurements=(case.measurements[0].model_copy(update={"n_missing": 1}), *case.measurements[1:])
    )
    assert other.render().md.count(sha256_of(by_cell["reset_rate", "base"])) == 0


@pytest.mark.parametrize("characters", [1, 2_000, 20_000])
def test_a_report_of_issue_147_can_be_mailed(tmp_path: Path, characters: int) -> None:
    """6 arms x 48 prompts x 50 completions of any length: at most 3 MB, and a prompt is never left out for it."""
    case = report_cases.issue147(tmp_path)
    long = tuple(row.model_copy(update={"text": ("<&>" * characters)[:characters]}) for row in case.samples)
    made = replace(case, samples=long).render()
    assert len(made.html.encode()) < 3_000_000
    assert len(made.md.encode()) < 3_000_000
    assert len(re.findall('id="prompt-headline-[0-9]+"', made.html)) == 48
    assert ("more characters are in the stored rows" in made.html) == (characters > 2_000)


# ----------------------------------------------------------- families and looks


@pytest.mark.parametrize(
    ("p_of_change", "rows"),
    [
        (0.0249949, ["attack_effect .0125 .02499 rejected", "capability_change .02499 .02499 rejected"]),
        (0.03, ["attack_effect .0125 .02499 rejected", "capability_change .0300 .0300 not rejected"]),
        (
            None,
            [
                "attack_effect .0125 unknown: it depends on a p that is unknown rejected",
                "capability_change unknown: not recorded unknown: it depends on a p that is unknown unknown whether rejected",
            ],
        ),
    ],
)  # fmt: skip
def test_a_family_has_a_table(p_of_change: float | None, rows: list[str]) -> None:
    """With the decimals that a comparison needs: .02499 is below .025."""
    made = report_cases.several(p_of_change).render()
    page = parsed(made.html)
    table = page.find(".//table[@id='family-1']")
    assert table is not None
    assert words(table).startswith("Family primary , α = 0.025. Holm's rule")
    assert [words(row) for row in table.findall("tbody/tr")] == rows
    assert {link.get("href") for link in table.iter("a")} == {"#analysis-attack_effect", "#analysis-capability_change"}
    told = words(as_github(made.md))
    assert all(row in told for row in rows)


def test_planned_looks_have_a_table_and_their_level(all_reports: dict[str, Any]) -> None:
    page = parsed(all_reports["several"].html)
    table = page.find(".//table[@id='looks']")
    assert table is not None
    assert [words(row) for row in table.findall("tbody/tr")] == [
        "1 of 2 50% of the units 0.001525323", "2 of 2 100% of the units 0.02449999",
    ]  # fmt: skip
    for text in (words(page), words(as_github(all_reports["several"].md))):
        assert "α = 0.025, at the last look p below 0.02449999" in text
        assert "rejected (p = .0244998)" in text
        assert "2 looks at the confirmatory test were registered, with α spent after O'Brien and Fleming" in text
    for name in ("success", "issue147"):
        assert "confirmatory test" not in all_reports[name].html
        assert "Adjusted p" not in all_reports[name].html


# ---------------------------------------------------------------- sensitivity


def test_fragile_is_loud_and_only_where_it_is(cases: dict[str, Any], reports: dict[str, Any]) -> None:
    line = "headline: at α = 0.025, percentile p = .0123, studentized p = .0001, paired t p < .0001 reject; shift p = .0311 do not"
    page = parsed(reports["whole"].html)
    alert = page.find(".//*[@id='fragile']")
    assert alert is not None
    assert line in words(alert)
    assert line in plain(reports["whole"].md)
    assert "> **FRAGILE**" in reports["whole"].md
    case = cases["success"]
    calm = case.decision.model_copy(update={"sensitivity": (report_cases.panel(fragile=False),)})
    result = replace(case, decision=calm).render()
    assert 'id="fragile"' not in result.html
    assert "FRAGILE" not in result.md
    assert "all with the same verdict; 24 units left out one at a time, all with the same verdict" in result.md


def test_where_nothing_could_be_tried_nothing_is_claimed(cases: dict[str, Any]) -> None:
    """0 ways with the same verdict would read as a result."""
    case = cases["invalid"]
    unknown = AnalysisSensitivity(
        analysis="headline", confirmatory=True, side="greater", alpha=0.025, unknown_because="3 prompts have no score"
    )
    made = replace(case, decision=case.decision.model_copy(update={"sensitivity": (unknown,)})).render()
    for text in (words(parsed(made.html)), words(as_github(made.md))):
        assert "nothing could be computed in another way" in text
        assert "unknown: 3 prompts have no score" in text
        assert "same verdict" not in text


@pytest.mark.parametrize(
    "fact",
    [
        "7 other ways to compute, 1 of them with another verdict; 24 units left out one at a time, 1 of them with another verdict",
        "Definitions of p, 10,000 draws each, seed 1", "does not reject", "INCONCLUSIVE", "unknown: nothing is left",
        "between +0.401 (+40.1 pp) (without heldout-03) and +0.444 (+44.4 pp) (without heldout-11)", "between .0001 and .0277",
        "without heldout-03 it is INCONCLUSIVE (estimate +0.401 (+40.1 pp), p = .0277)", "0 of 10,000 draws at least as extreme",
        "95% interval < .0001 to .0004, which excludes alpha", "0.148 with power 80%", "nothing varies", "+0.3220", "+6.29",
        "training seed 43", "every sample weighs the same",
    ],
)  # fmt: skip
def test_the_panel_is_in_both_files(reports: dict[str, Any], fact: str) -> None:
    assert fact in words(parsed(reports["whole"].html))
    assert fact in plain(reports["whole"].md)


def test_an_alternative_that_changes_the_verdict_is_marked(reports: dict[str, Any]) -> None:
    rows = [words(row) for row in parsed(reports["whole"].html).iter("tr")]
    assert [row for row in rows if "CHANGES" in row] == [
        "shift +0.427 (+42.7 pp) .0311 does not reject 24 prompts INCONCLUSIVE CHANGES"
    ]


# ---------------------------------------------------- operating characteristics


@pytest.mark.parametrize(
    "fact",
    [
        "2,000 simulated experiments under each truth, seed 3, with 500 resamples instead", "standard error of at most 1.1%",
        "the reflex survives in 30% of the samples", "SUCCESS was expected in at least 80.0%: 87.0%, met",
        "SUCCESS was expected in at least 80.0%: 40.0%, NOT met", "never decides", "41.1%", "none possible: it deserves one",
        "Smallest effect with power 80.0%: +0.213", "31 units, 90.3%", "none found", "bisection, verified with 2,000 experiments",
        "capability is taken as it is at the null", "attacked 0.020 (2.0%), reflex_attacked 0.320 (32.0%)", "holm", "2.5%",
    ],
)  # fmt: skip
def test_operating_characteristics_are_in_both_files(reports: dict[str, Any], fact: str) -> None:
    page = words(parsed(reports["whole"].html))
    if fact.startswith("Smallest"):
        assert "Smallest effect with that power: +0.213" in page
    else:
        assert fact in page
    assert fact in plain(reports["whole"].md)


def test_a_simulation_of_another_registration_is_not_shown(cases: dict[str, Any]) -> None:
    case = cases["success"]
    result = replace(case, simulation=report_cases.simulation("f" * 64)).render()
    for text in (result.html, result.md):
        assert "report/simulation.json is of registration ffffffffffff" in text
        assert "41.1%" not in text
    none = case.render()
    assert "Not simulated: epc simulate generated/quickstart" in none.html


# -------------------------------------------------------------------- regions


@pytest.mark.parametrize(
    ("role", "text", "found"),
    [
        ("kill", "headline.delta < 0.05", [("kill", 0.0, 52.5)]),
        ("success", "headline.reject and headline.delta >= 0.15", [("success", 57.5, 42.5)]),
        ("guardrail", "headline.lower > -0.5 and headline.upper < 0.5", [("required", 25.0, 50.0)]),
        ("override", "headline.delta > 0.2 or headline.delta < -0.2", [("kill", 0.0, 40.0), ("kill", 60.0, 40.0)]),
        ("guardrail", "not headline.delta < -0.1", [("required", 45.0, 55.0)]),
        ("success", "headline.p < 0.05", []), ("success", "other.delta > 0.5", []), ("prediction", "headline.delta > 0.5", []),
        ("guardrail", "headline.delta > -0.5 or other.delta > 0", []), ("kill", "headline.delta < -5", []),
    ],
)  # fmt: skip
def test_a_region_is_where_a_gate_can_hold(role: Any, text: str, found: list[Any]) -> None:
    gate = Gate(name="g", role=role, text=text, predicate=report_cases.predicate(text))
    drawn = regions("headline", [gate], (-1.0, 1.0))
    assert [(region.kind, region.x, region.width) for region in drawn] == found


def test_an_equivalence_margin_has_a_region() -> None:
    (region,) = regions("headline", [], (-1.0, 1.0), margin=0.1)
    assert region == Region(kind="equivalence", x=45.0, width=10.0, title="equivalence: both bounds within ±0.1")


# ----------------------------------------------------------------------- note


def test_a_note_is_taken_up_as_plain_text_and_said_to_be_one(
    bundle_of: Callable[[str], Path], cases: dict[str, Any]
) -> None:
    bundle, decision = bundle_of("success"), cases["success"].decision
    before = report.rendered(bundle, decision)
    (bundle / "report").mkdir()
    note = bundle / "report/note.md"
    note.write_text("The rate rose by <b>32.8</b> points.\n\n# [Seeds](https://x.example) follow.\n", encoding="utf-8")
    result = report.rendered(bundle, decision)
    assert "The rate rose by &lt;b&gt;32.8&lt;/b&gt; points." in result.html
    assert r"\# \[Seeds](https<!-- -->://x.example) follow." in result.md
    for text in (result.html, result.md):
        assert "Written by hand and held to the reporting policy; it decides nothing." in text
        assert "but for the researcher" in text
    note.write_text(" \n", encoding="utf-8")
    assert report.rendered(bundle, decision) == before


@pytest.mark.parametrize(
    ("text", "line", "code", "fact"),
    [
        ("Fine.\n\nThis is a large effect.\n", 3, "R0603", '"large effect" is effect-size language'),
        ("Cohen's d was computed.\n", 1, "R0603", '"Cohen\'s d"'),
        ("One.\nWe saw a strong\neffect here.\n", 2, "R0603", '"strong effect"'),
        ("x" * (LONGEST_NOTE + 1), None, "R0604", "a report takes 20,000"),
    ],
)  # fmt: skip
def test_a_note_that_breaks_the_policy_is_refused_with_its_line(
    bundle_of: Callable[[str], Path], cases: dict[str, Any], text: str, line: int | None, code: str, fact: str
) -> None:
    bundle = bundle_of("success")
    (bundle / "report").mkdir()
    note = bundle / "report/note.md"
    note.write_text(text, encoding="utf-8")
    with pytest.raises(Fault) as caught:
        write(bundle, cases["success"].decision)
    assert (caught.value.code, caught.value.place) == (code, str(note) if line is None else f"{note}:{line}")
    assert fact in caught.value.fact
    assert not (bundle / "report/report.html").exists()


def test_a_policy_that_allows_effect_sizes_allows_them_in_the_note(
    bundle_of: Callable[[str], Path], cases: dict[str, Any]
) -> None:
    bundle, decision = bundle_of("success"), cases["success"].decision
    (bundle / "report").mkdir()
    (bundle / "report/note.md").write_text("This is a large effect.", encoding="utf-8")
    lock = (bundle / "spec.lock.yaml").read_text(encoding="utf-8").replace("forbidden", "allowed")
    (bundle / "spec.lock.yaml").write_text(lock, encoding="utf-8")
    with pytest.raises(Fault, match="effect-size language"):  # another lock than the decision's says nothing
        report.rendered(bundle, decision)
    renamed = decision.model_copy(update={"lock_sha256": report_cases.sha256_text(lock)})
    assert "This is a large effect." in report.rendered(bundle, renamed).md


def test_a_note_in_another_encoding_is_refused(bundle_of: Callable[[str], Path], cases: dict[str, Any]) -> None:
    bundle = bundle_of("success")
    (bundle / "report").mkdir()
    (bundle / "report/note.md").write_bytes("größer".encode("latin-1"))
    with pytest.raises(Fault) as caught:
        report.rendered(bundle, cases["success"].decision)
    assert (caught.value.code, caught.value.fact) == ("R0604", "the note cannot be read: it is not UTF-8 text")


# ------------------------------------------------------------- what lies around


def test_accepted_warnings_come_from_the_registered_lock_alone(
    bundle_of: Callable[[str], Path], cases: dict[str, Any]
) -> None:
    bundle, decision = bundle_of("success"), cases["success"].decision
    assert material(bundle, decision).registered == report_cases.REGISTERED
    result = report.rendered(bundle, decision)
    assert "| W0910 | `gates.dead` | the points are compared as the source does |" in result.md
    assert "| W0718 | anywhere in the spec |" in result.md
    (bundle / "spec.lock.yaml").write_text("allow: [{code: W1, reason: another lock, at: null}]", encoding="utf-8")
    for changed in (report.rendered(bundle, decision), replace(cases["success"], registered=None).render()):
        assert "another lock" not in changed.md
        assert "unknown: spec.lock.yaml is not there, or is not the registration that was decided" in changed.md


def test_a_stored_simulation_is_read_and_a_broken_one_named(
    bundle_of: Callable[[str], Path], cases: dict[str, Any]
) -> None:
    bundle, decision = bundle_of("success"), cases["success"].decision
    (bundle / "report").mkdir()
    file = bundle / "report/simulation.json"
    file.write_text(text_of(report_cases.simulation(decision.lock_sha256)), encoding="utf-8")
    assert "41.1%" in report.rendered(bundle, decision).html
    file.write_text('{"schema_version": 1}', encoding="utf-8")
    with pytest.raises(Fault) as caught:
        report.rendered(bundle, decision)
    assert (caught.value.code, caught.value.place) == ("R0605", str(file))
    assert "this is no simulation" in caught.value.fact


def test_results_from_elsewhere_name_their_files_and_hashes(all_reports: dict[str, Any], tmp_path: Path) -> None:
    bundle = report_cases.elsewhere(tmp_path)
    decision = decide(bundle)
    result = report.rendered(bundle, decision)
    assert result == all_reports["elsewhere"]
    (read,) = decision.results
    for text in (words(parsed(result.html)), result.md.replace("`", "")):
        assert read.sha256 in text
        assert "The experiment has no step of its own: it decides on results from elsewhere." in text
        assert "the scores come from elsewhere, and no completion is stored with them" in text
        assert "no: this hash was not in the registration" in text
        assert "no seed in the results" in text
        assert "epc run" not in text
    points = re.findall(r'<a class="column" href="#(figure-2-unit-\d+)"', result.html)
    assert len(points) == 40
    assert all(f'<tr id="{anchor}">' in result.html for anchor in points)


def test_results_are_read_where_the_decision_read_them(tmp_path: Path) -> None:
    bundle = report_cases.elsewhere(tmp_path)
    here = report.rendered(bundle, decide(bundle))
    moved = tmp_path / "moved"
    (tmp_path / "specs").rename(moved)
    inputs = read(bundle, results=moved)
    decision = decide(bundle, inputs=inputs)
    assert report.rendered(bundle, decision, inputs) == here
    with pytest.raises(Fault, match="R1601"):
        report.rendered(bundle, decision)
