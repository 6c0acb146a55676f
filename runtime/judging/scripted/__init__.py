"""A judge that costs nothing: a server on this machine that speaks the protocols of the real ones.

Anthropic's Messages, Message Batches and models, and OpenAI's chat completions. What it answers is scripted,
and so are the faults on the way.

>>> from epc.runtime.judging.scripted import rules
>>> from epc.runtime.judging.scripted.server import ScriptedServer
>>> with ScriptedServer(rules.automatic([{"aligned": "0..100"}]), faults={"429": 0.05}) as server:
...     os.environ["ANTHROPIC_BASE_URL"] = server.url
"""
