"""What a model should see, in the messages of its API: of OpenAI's Chat Completions, and of Anthropic's Messages."""

from os import environ

from server.client import Turnstone

SAID = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "What is the weather in Lisbon?"},
    {"type": "tool_call", "call_id": "call_1", "name": "weather", "content": {"city": "Lisbon"}},
    {"type": "tool_result", "call_id": "call_1", "content": "21 °C, clear"},
]

url = environ["OPENAI_BASE_URL"].removesuffix("/v1")
with Turnstone(url, environ["OPENAI_API_KEY"]) as memory:
    conversation = memory.create_conversation(user="ada").id
    memory.append(conversation, SAID)

    # OpenAI(...).chat.completions.create(messages=prompt.messages, ...)
    prompt = memory.prompt(conversation, "openai", budget_tokens=2000)
    for message, sources in zip(prompt.messages, prompt.sources, strict=True):
        print([source.seq for source in sources], message)

    # Anthropic(...).messages.create(system=prompt.system, messages=prompt.messages, ...)
    prompt = memory.prompt(conversation, "anthropic", budget_tokens=2000)
    print("system:", prompt.system)
    for message in prompt.messages:
        print(message)
