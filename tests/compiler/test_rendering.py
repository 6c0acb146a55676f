"""Facts about chat templates, held against the templates of published models that TRL ships."""

from __future__ import annotations

from importlib import resources
from importlib.util import find_spec
from pathlib import Path

import pytest

from epc.compiler import tokenizer
from epc.compiler.rendering import TemplateFacts, facts, render
from epc.compiler.resolve import BUILT_IN_TEMPLATES
from epc.compiler.templates import template

FOUND = find_spec("trl")
TRL = Path(str(resources.files("trl") / "chat_templates")) if FOUND else Path()

STOCK = {
    "qwen2_5": "hub:Qwen/Qwen2.5-7B-Instruct",
    "qwen3": "hub:Qwen/Qwen3-8B",
    "llama3": "hub:meta-llama/Meta-Llama-3-8B-Instruct",
    "gemma": "hub:google/gemma-2-9b-it",
    "phi3": "hub:microsoft/Phi-3-mini-4k-instruct",
}
TALK = [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yes."}]


@pytest.mark.parametrize("name", BUILT_IN_TEMPLATES)
def test_what_is_said_of_our_own_templates_is_so(name: str) -> None:
    assert facts(template(f"chat/{name}.jinja"), {}) == tokenizer.BUILT_IN


@pytest.mark.skipif(FOUND is None, reason="the templates come with TRL")
@pytest.mark.parametrize(("name", "model"), STOCK.items())
def test_what_the_table_says_of_a_model_is_what_its_template_does(name: str, model: str) -> None:
    known = tokenizer._stock(model)
    assert known is not None
    text = (TRL / f"{name}.jinja").read_text(encoding="utf-8")
    assert facts(text, {"bos_token": "<s>", "eos_token": "</s>"}) == known.facts


@pytest.mark.skipif(FOUND is None, reason="the templates come with TRL")
@pytest.mark.parametrize("name", ["cohere", "deepseekv3", "gemma", "glm4moe", "llama3", "phi3", "qwen2_5", "qwen3"])
def test_training_templates_of_trl_are_marked_and_train_the_end_of_turn(name: str) -> None:
    plain = facts((TRL / f"{name}.jinja").read_text(encoding="utf-8"), {})
    training = facts((TRL / f"{name}_training.jinja").read_text(encoding="utf-8"), {})
    assert plain is not None
    assert training is not None
    assert (plain.marked, plain.end_of_turn) == (False, "unmarked")
    assert (training.marked, training.end_of_turn) == (True, "trained")
    assert training.default_system == plain.default_system


@pytest.mark.skipif(FOUND is None, reason="the templates come with TRL")
def test_a_system_block_without_a_text_of_its_own_is_found() -> None:
    found = facts((TRL / "llama3_1.jinja").read_text(encoding="utf-8"), {"bos_token": "<|begin_of_text|>"})
    assert found is not None
    assert found.default_system == "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024"


@pytest.mark.parametrize(
    ("text", "system"),
    [
        ("{{ bos_token }}{% for m in messages %}[INST] {{ m.content }} [/INST]{% endfor %}", None),
        ("{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", None),
        ("<|begin_of_text|>{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|eot_id|>{% endfor %}", None),
        ("[gMASK]<sop>{% for m in messages %}<|{{ m.role }}|>\n{{ m.content }}{% endfor %}", None),
        ("SYSTEM: Be kind.\n{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}", "Be kind."),
    ],
)
def test_what_stands_before_the_first_turn(text: str, system: str | None) -> None:
    assert facts(text, {"bos_token": "BOS"}) == TemplateFacts(marked=False, default_system=system, end_of_turn="unmarked")  # fmt: skip


@pytest.mark.skipif(FOUND is None, reason="transformers comes with TRL")
def test_a_conversation_is_rendered_as_transformers_renders_it() -> None:
    from transformers.utils.chat_template_utils import render_jinja_template

    for name in ("qwen2_5_training", "llama3", "phi3", "gemma"):
        text = (TRL / f"{name}.jinja").read_text(encoding="utf-8")
        expected, _ = render_jinja_template([TALK], chat_template=text, bos_token="<s>", eos_token="</s>")
        assert render(text, TALK, {"bos_token": "<s>", "eos_token": "</s>"}) == expected[0]


@pytest.mark.parametrize("text", ["{{ messages.append(1) }}", "{{ ''.__class__.__mro__ }}{{ 1 / 0 }}", "{% bad %}"])
def test_a_template_that_fails_gives_nothing(text: str) -> None:
    assert render(text, TALK, {}) is None
    assert facts(text, {}) is None
