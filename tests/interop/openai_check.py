#!/usr/bin/env python3
"""Drives `lowp serve` with the openai package: sync, async, streams, log-probabilities, schemas, tools, errors; then over TLS.

    python tests/interop/openai_check.py LOWP MODEL

Needs openai; without it prints 'skipped' and exits with 0. The server is started with `--chat-template plain`. Exit code 1 at
the first difference.
"""
import asyncio
import json
import pathlib
import sys
import tempfile

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[1] / "e2e"))
import lowp_cli  # noqa: E402
from serve_client import Server, certificate  # noqa: E402

MESSAGES = [{"role": "user", "content": "Tell me about the sea."}]
SCHEMA = {"type": "object", "properties": {"name": {"type": "string", "maxLength": 20}, "age": {"type": "integer", "minimum": 0},
                                           "tags": {"type": "array", "items": {"enum": ["a", "b"]}, "maxItems": 3}},
          "required": ["name", "age"], "additionalProperties": False}
TOOL = {"type": "function", "function": {"name": "weather", "parameters": {
    "type": "object", "properties": {"place": {"type": "string", "maxLength": 12}, "unit": {"enum": ["C", "F"]}}, "required": ["place", "unit"]}}}


def check(what, holds):
    if not holds:
        sys.exit(f"{what}: failed")
    print(f"{what}: ok")


def sync_checks(client, openai):
    model = client.models.list().data[0].id
    whole = client.completions.create(model=model, prompt="It was", max_tokens=20, temperature=0, logprobs=2)
    parts = list(client.completions.create(model=model, prompt="It was", max_tokens=20, temperature=0, stream=True,
                                           stream_options={"include_usage": True}))
    check("completions, stream and not", "".join(p.choices[0].text for p in parts if p.choices) == whole.choices[0].text)
    check("usage in the stream", parts[-1].usage.completion_tokens == whole.usage.completion_tokens)
    check("logprobs", len(whole.choices[0].logprobs.tokens) == whole.usage.completion_tokens)

    chat = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=20, temperature=0, logprobs=True, top_logprobs=3, n=2, seed=1)
    check("chat", len(chat.choices) == 2 and chat.choices[0].message.role == "assistant")
    check("chat logprobs", len(chat.choices[0].logprobs.content[0].top_logprobs) == 3)
    stream = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=20, temperature=0, stream=True)
    text = "".join(p.choices[0].delta.content or "" for p in stream)
    check("chat stream", text == chat.choices[0].message.content)

    answer = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=200, temperature=1, seed=3, response_format={
        "type": "json_schema", "json_schema": {"name": "person", "schema": SCHEMA, "strict": True}})
    if answer.choices[0].finish_reason == "stop":
        person = json.loads(answer.choices[0].message.content)
        check("json_schema", set(person) <= {"name", "age", "tags"} and isinstance(person["age"], int))
    called = client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=200, temperature=1, seed=4, tools=[TOOL], tool_choice="required")
    call = called.choices[0].message.tool_calls[0]
    check("tools", call.function.name == "weather" and json.loads(call.function.arguments)["unit"] in ("C", "F"))
    check("finish_reason of calls", called.choices[0].finish_reason == "tool_calls")
    with client.chat.completions.stream(model=model, messages=MESSAGES, max_tokens=200, temperature=1, seed=4, tools=[TOOL], tool_choice="required") as events:
        final = events.get_final_completion()
    check("tools in a stream", final.choices[0].message.tool_calls[0].function.arguments == call.function.arguments)
    again = client.chat.completions.create(model=model, max_tokens=5, messages=[*MESSAGES, called.choices[0].message.model_dump(exclude_none=True),
                                                                               {"role": "tool", "tool_call_id": call.id, "content": "sunny"}])
    check("the answer of a tool", again.choices[0].message.role == "assistant")
    for wrong, kind in (({"temperature": -1}, openai.BadRequestError), ({"model": "other"}, openai.NotFoundError),
                        ({"max_tokens": 10**6}, openai.BadRequestError)):
        try:
            client.completions.create(**{"model": model, "prompt": "x", **wrong})
            check(f"{wrong} is refused", False)
        except kind as e:
            check(f"{wrong} is refused", bool(e.body["message"]))


async def async_checks(client):
    model = (await client.models.list()).data[0].id
    async def one(i):
        return await client.completions.create(model=model, prompt=f"Chapter {i}", max_tokens=16, temperature=0)
    alone = [(await one(i)).choices[0].text for i in range(8)]
    together = [a.choices[0].text for a in await asyncio.gather(*[one(i) for i in range(8)])]
    check("async, together as alone", alone == together)
    stream = await client.chat.completions.create(model=model, messages=MESSAGES, max_tokens=50, stream=True)
    async for _ in stream:
        break
    await stream.close()


def drive(openai, tls=None):
    """Everything, with one server. `tls`: the paths of its certificate and key."""
    files = ("--ssl-certfile", tls[0], "--ssl-keyfile", tls[1]) if tls else ()
    server = Server(sys.argv[2], "--chat-template", "plain", "--api-key", "secret", *files, certificate=tls and tls[0])
    try:
        options = {"base_url": f"{'https' if tls else 'http'}://127.0.0.1:{server.port}/v1", "api_key": "secret", "max_retries": 0}
        verify = server.tls or True
        client = openai.OpenAI(**options, http_client=openai.DefaultHttpxClient(verify=verify))
        sync_checks(client, openai)
        asyncio.run(async_checks(openai.AsyncOpenAI(**options, http_client=openai.DefaultAsyncHttpxClient(verify=verify))))
        try:
            client.with_options(api_key="wrong").models.list()
            check("a wrong key is refused", False)
        except openai.AuthenticationError:
            check("a wrong key is refused", True)
    finally:
        check("the server ends", server.stop() == 0)


def main():
    try:
        import openai
    except ImportError:
        print("skipped: openai is not installed")
        return
    lowp_cli.lowp_path = str(pathlib.Path(sys.argv[1]).resolve())
    drive(openai)
    with tempfile.TemporaryDirectory(prefix="lowp-openai-") as folder:
        print("over TLS:")
        drive(openai, certificate(pathlib.Path(folder), "own"))


if __name__ == "__main__":
    main()
