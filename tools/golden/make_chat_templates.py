"""Makes tests/golden/chat/cases.json: conversations and what transformers makes of them with the templates beside it.

Needs transformers and jinja2. With folders or files as arguments it checks `lowp`'s renderer on other templates instead; see
tests/interop/chat_template_check.py.
"""
import json
from pathlib import Path

from transformers.utils import chat_template_utils

FOLDER = Path(__file__).resolve().parents[2] / "tests" / "golden" / "chat"
NOW = "2024-11-05"
VARIABLES = {"bos_token": "<s>", "eos_token": "</s>"}
TOOLS = [
    {"type": "function", "function": {"name": "weather", "description": "The weather of a place.", "parameters": {
        "type": "object", "properties": {"place": {"type": "string", "description": "A town"},
                                         "unit": {"type": "string", "enum": ["C", "F"], "default": "C"},
                                         "days": {"type": "array", "items": {"type": "integer"}}}, "required": ["place"]}}},
    {"type": "function", "function": {"name": "now", "description": "The time, <\"&'> é.", "parameters": {"type": "object", "properties": {}}}},
    {"type": "function", "function": {"name": "store", "description": "Keeps a thing.", "parameters": {
        "type": "object", "properties": {"thing": {"type": "object", "properties": {"size": {"type": "number"}, "tags": {"type": ["string", "null"]}}},
                                         "sure": {"type": "boolean", "default": False},
                                         "how": {"oneOf": [{"type": "string", "description": "in words"}, {"type": "integer"}]}}}}},
]


def call(name, arguments, id="abcdefghi"):
    return {"type": "function", "id": id, "function": {"name": name, "arguments": arguments}}


def conversations():
    """Messages, tools and variables of 30 conversations; some do not fit some templates, which then must refuse them."""
    user, system = {"role": "user", "content": " What is 2+2? \n"}, {"role": "system", "content": "Answer  in rhyme.\n"}
    said = {"role": "assistant", "content": "\nFour.\n\n"}
    again = {"role": "user", "content": "Ünïcödé 😀 \"quotes\" \\ back\tslash {{ not a tag }} {% nor this %}"}
    thought = {"role": "assistant", "content": "<think>\nHm.\n</think>\n\nFive."}
    reasoned = {"role": "assistant", "content": "Six.", "reasoning_content": "Ah.", "thinking": "Ah."}
    asks = {"role": "assistant", "content": "", "tool_calls": [call("weather", {"place": "Köln", "days": [1, 2]})]}
    asks_two = {"role": "assistant", "content": "Both.", "tool_calls": [call("weather", {"place": "Rome"}), call("now", {}, "ihgfedcba")]}
    answer = {"role": "tool", "content": "{\"degrees\": 21.5}", "tool_call_id": "abcdefghi"}
    bases = [
        [user], [system, user], [user, said, again], [system, user, said, again], [user, said], [system, user, thought, again],
        [user, thought], [user, reasoned], [user, reasoned, again, said, user], [again, {"role": "assistant", "content": "x" * 500}, again],
        [user, user], [said], [system], [user, {"role": "critic", "content": "No."}], [system, user, said, again, reasoned, user],
        [{"role": "user", "content": ""}], [{"role": "developer", "content": "Obey."}, user],
    ]
    for messages in bases:
        yield messages, None, {}
    for messages in ([user], [system, user], [user, asks, answer], [user, asks, answer, said, again], [system, user, asks_two, answer, answer],
                     [user, asks_two, answer], [user, said, again, asks], [user, asks, answer, reasoned]):
        yield messages, TOOLS, {}
    yield [user], TOOLS[:1], {"functions_first": False}
    yield [user], None, {"enable_thinking": False}
    yield [user], None, {"enable_thinking": True, "reasoning_effort": "high"}
    yield [user, said, again], None, {"add_generation_prompt": False}
    yield [user, reasoned], None, {"add_generation_prompt": False, "today": "1 Jan"}


def expected(source, messages, tools, variables):
    """The text, or None where the template refuses."""
    variables = dict({"add_generation_prompt": True, **VARIABLES}, **variables)
    try:
        template = chat_template_utils._compile_jinja_template(source)
        import datetime
        fixed = datetime.datetime.fromisoformat(NOW + "T12:00:00")
        template.globals["strftime_now"] = lambda form: fixed.strftime(form)
        return template.render(messages=messages, tools=tools, documents=None, **variables)
    except Exception:
        return None


def main():
    cases = [{"messages": m, "tools": t, "variables": v,
              "texts": {p.stem: expected(p.read_text(), m, t, v) for p in sorted(FOLDER.glob("*.jinja"))}}
             for m, t, v in conversations()]
    (FOLDER / "cases.json").write_text(json.dumps(cases, ensure_ascii=False, indent=0) + "\n")
    for p in sorted(FOLDER.glob("*.jinja")):
        made = sum(c["texts"][p.stem] is not None for c in cases)
        print(f"{p.stem}: {made} texts, {len(cases) - made} refusals")


if __name__ == "__main__":
    main()
