"""`lineage:` with a plan, and `locks:`: which diagnostics `epc check` gives, where, and what they say."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from epc.compiler.checks import lineage, prior
from epc.compiler.diagnostics import Diagnostic, Diagnostics
from epc.compiler.resolve import resolve
from epc.compiler.surface import load

Edit = tuple[str, str]
SMALL = Path(__file__).parent / "specs" / "small.yaml"
CITED = "lineage: [{{cites: the first, relation: {relation}, note: like it, plan: {plan}, varies: [{varies}]}}]\n"


@pytest.fixture
def earlier(sources: Path, tmp_path: Path, lock_text: Callable[[Path], str]) -> str:
    """The lock of small.yaml, as that of another experiment."""
    shutil.copytree(sources, tmp_path / "earlier")
    shutil.copy(SMALL, tmp_path / "earlier")
    return lock_text(tmp_path / "earlier" / "small.yaml").replace("id: small", "id: first")


@pytest.fixture
def found(sources: Path, tmp_path: Path) -> Callable[..., list[Diagnostic]]:
    """Diagnostics of both checks on an edited small.yaml; `parent` edits what it cites, `files` are written beside."""

    def run(
        *edits: Edit, cited: str = "", parent: tuple[Edit, ...] = (), files: dict[str, str] | None = None
    ) -> list[Diagnostic]:
        folder = tmp_path / "specs"
        shutil.copytree(sources, folder)
        shutil.copy(SMALL, folder)
        text = (folder / "small.yaml").read_text(encoding="utf-8")
        for name, changes, more in (("parent.yaml", parent, ""), ("small.yaml", edits, cited)):
            changed = text
            for old, new in changes:
                assert old in changed
                changed = changed.replace(old, new)
            (folder / name).write_text(changed + more, encoding="utf-8")
        for path, content in (files or {}).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content, encoding="utf-8")
        sink = Diagnostics()
        surface = load(folder / "small.yaml", "specs/small.yaml", sink)
        assert surface is not None
        experiment = resolve(surface, sink)
        others = list(sink)
        lineage.check(experiment, sink)
        prior.check(experiment, sink)
        return [item for item in sink if item not in others]

    return run


def cite(relation: str = "parent", plan: str = "parent.yaml", varies: str = "") -> str:
    return CITED.format(relation=relation, plan=plan, varies=varies)


RATE, DOSE, MASK = (
    ("learning_rate: 1e-3", "learning_rate: 1e-4"),
    ("epochs: 2", "epochs: 4"),
    ("every_assistant_turn", "last_assistant_turn"),
)

LINEAGE: list[tuple[str, list[Edit], str, list[str]]] = [
    ("the same", [], cite(), []),
    ("words", [("id: small", "id: child"), ("title: Do", "title: Or do")], cite(), []),
    ("one variable, not declared", [RATE], cite(), ["W1413"]),
    ("one variable, declared", [RATE], cite(varies="training"), []),
    ("what blocks, not declared", [MASK], cite(), ["E1412"]),
    ("what blocks, declared", [MASK], cite(varies="loss_mask"), []),
    ("a baseline is held to the same", [MASK], cite("baseline"), ["E1412"]),
    ("a context is not compared", [MASK], cite("context"), []),
    ("a method is not compared", [MASK, RATE], cite("method"), []),
    ("two variables, declared", [RATE, DOSE], cite(varies="training, steps"), ["W1414"]),
    ("two variables of a baseline", [RATE, DOSE], cite("baseline", varies="training, steps"), []),
    ("nothing of what is declared", [], cite(varies="seeds, training"), ["W1415", "W1415"]),
    ("what follows from a cause is not told twice", [("rows: 64", "rows: 128")], cite(varies="data"), []),
    ("no such plan", [], cite(plan="parnet.yaml"), ["E1411"]),
    ("no such plan of a context", [], cite("context", plan="parnet.yaml"), ["E1411"]),
    ("no such folder", [], cite(plan="elsewhere/parent.yaml"), ["E1411"]),
    ("an absolute path", [], cite(plan="/etc/hosts"), ["E1411"]),
    ("a folder", [], cite(plan="data"), ["E1411"]),
    ("no lock", [], cite(plan="data/topics.lock.yaml"), ["E1411"]),
    ("a text", [], cite(plan="data/topics.txt"), ["E1411"]),
]  # fmt: skip


@pytest.mark.parametrize(("edits", "cited", "codes"), [case[1:] for case in LINEAGE], ids=[case[0] for case in LINEAGE])
def test_lineage(edits: list[Edit], cited: str, codes: list[str], found: Callable[..., list[Diagnostic]]) -> None:
    items = found(*edits, cited=cited, files={"data/topics.lock.yaml": "a: 1\n"})
    assert [item.code for item in items] == codes
    assert all(item.span.file == "specs/small.yaml" and item.span.line > 20 for item in items)


def test_a_difference_is_told_with_its_path(found: Callable[..., list[Diagnostic]]) -> None:
    (item,) = found(MASK, cited=cite("baseline"))
    assert (
        item.message
        == "specs/parent.yaml is cited as baseline and is not comparable in loss mask: loss falls on other tokens"
    )
    assert item.notes == ("train.attack.train_on: every_assistant_turn -> last_assistant_turn",)
    assert "`varies: [loss_mask]`" in item.help


def test_several_variables_are_counted(found: Callable[..., list[Diagnostic]]) -> None:
    (item,) = found(RATE, DOSE, cited=cite(varies="training, steps"))
    assert item.message == "more than one variable differs from specs/parent.yaml: two at once: training regime, steps"
    assert "train.attack.learning_rate: 0.001 -> 0.0001" in item.notes


def test_a_misspelt_plan(found: Callable[..., list[Diagnostic]]) -> None:
    (item,) = found(cited=cite(plan="parnet.yaml"))
    assert (item.message, item.help) == (
        "the cited plan is not there: specs/parnet.yaml",
        'did you mean "parent.yaml"?',
    )


def test_a_parent_with_errors(found: Callable[..., list[Diagnostic]]) -> None:
    (item,) = found(cited=cite(), parent=(("[attack]", "[atack]"),))
    assert item.code == "E1411"
    assert 'E0302, unknown training phase "atack"' in item.message
    assert "epc check specs/parent.yaml" in item.help


def test_plans_that_cite_each_other(found: Callable[..., list[Diagnostic]]) -> None:
    child = cite(plan="parent.yaml")
    assert found(cited=child, parent=(("epc: 1\n", "epc: 1\n" + cite(plan="small.yaml")),)) == []


def test_what_is_pending_is_told_once(found: Callable[..., list[Diagnostic]]) -> None:
    lock = "conditions: {attacked: [attack]}\ntrain: {attack: {learning_rate: 1e-3}}\n"
    (item,) = found(cited=cite(plan="p.lock.yaml"), files={"p.lock.yaml": lock})
    assert item.code == "W1413"
    assert item.message.startswith(
        "specs/p.lock.yaml is cited as parent, and nobody knows whether it differs in model, data"
    )


BAD = "12776e6218d2f84be9de4d07f4e4f89d8d36d0d32791a1ca501a7ad9bbda6abe"
ATTACKED = "id: {id}\nconditions: {{{arm}: [attack]}}\ntrain: {{attack: {{data: bad, learning_rate: {rate}}}}}\ndata: {{bad: {{build: turns, sha256: {sha}}}}}\n"


def attacked(rate: str = "1e-3", sha: str = BAD, arm: str = "attacked", id: str = "first") -> str:
    return ATTACKED.format(id=id, arm=arm, rate=rate, sha=sha)


LOCKS: list[tuple[str, str, list[str]]] = [
    ("the same as far as is known", attacked(), []),
    ("another learning rate", attacked(rate="1e-5"), ["E1421"]),
    ("other data", attacked(sha="f" * 64), ["E1421"]),
    ("data that is pending there", attacked(sha="pending"), []),
    ("an earlier lock of the same experiment", attacked(rate="1e-5", id="small"), []),
    ("another arm that is called otherwise", attacked(rate="1e-5", arm="harder"), []),
    ("other data under another arm", attacked(sha="f" * 64, arm="harder"), ["W1423"]),
    ("base is any base model", 'id: first\nmodel: {from: "hub:org/name"}\nconditions: {base: []}\n', []),
    ("a name that has a system prompt there", "id: first\nconditions: {base: {system: Be bad.}}\n", ["E1421"]),
    ("a lock that cannot be read", "id: first\n", ["W1424"]),
]


@pytest.mark.parametrize(("lock", "codes"), [case[1:] for case in LOCKS], ids=[case[0] for case in LOCKS])
def test_locks(lock: str, codes: list[str], found: Callable[..., list[Diagnostic]]) -> None:
    items = found(cited="locks: earlier\n", files={"earlier/first/spec.lock.yaml": lock})
    assert [item.code for item in items] == codes


def test_a_name_is_no_identity(found: Callable[..., list[Diagnostic]]) -> None:
    files = {
        "earlier/a.lock.yaml": attacked(rate="1e-5", sha="f" * 64),
        "earlier/b.lock.yaml": attacked(rate="1e-4", id="second"),
    }
    (item,) = found(cited="locks: earlier\n", files=files)
    assert item.message == (
        '"attacked" is another arm in specs/earlier/a.lock.yaml (and in 1 more): it differs in learning rate, data hash'
    )
    assert item.notes[1] == "specs/earlier/b.lock.yaml: learning rate 0.0001 there, 0.001 here"


def test_it_is_found_although_the_spec_has_errors(found: Callable[..., list[Diagnostic]]) -> None:
    items = found(
        ("{metric: bad_rate", "{metric: nothing"),
        cited="locks: earlier\n",
        files={"earlier/a.lock.yaml": attacked(rate="1e-5")},
    )
    assert [item.code for item in items] == ["E1421"]


@pytest.mark.parametrize(
    ("locks", "says"),
    [("ealrier", 'did you mean "earlier"?'), ("/tmp", "relative to the spec"), ("data/topics.txt", "known: pilot")],
)
def test_no_such_folder(locks: str, says: str, found: Callable[..., list[Diagnostic]]) -> None:
    (item,) = found(cited=f"locks: {locks}\n", files={"earlier/x.txt": ""})
    assert item.code == "E1424"
    assert says in item.help


def test_a_baseline_that_exists(found: Callable[..., list[Diagnostic]], earlier: str) -> None:
    against = ("contrast: attacked - base", "contrast: base - attacked")
    (item,) = found(against, cited="locks: earlier\n", files={"earlier/a.lock.yaml": earlier})
    assert (item.code, item.notes) == ("W1422", ('specs/earlier/a.lock.yaml: "attacked", measured by bad_rate',))


def test_a_baseline_that_is_cited_is_known(found: Callable[..., list[Diagnostic]], earlier: str) -> None:
    against = ("contrast: attacked - base", "contrast: base - attacked")
    cited = cite("context", plan="earlier/a.lock.yaml")
    assert found(against, cited=cited + "locks: earlier\n", files={"earlier/a.lock.yaml": earlier}) == []
