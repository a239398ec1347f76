"""The OpenAI SDK on Turnstone: set OPENAI_BASE_URL and OPENAI_API_KEY, and nothing else changes."""

from openai import OpenAI

client = OpenAI()
conversation = client.conversations.create(
    metadata={"topic": "weather"}, items=[{"role": "user", "content": "What is the weather in Lisbon?"}]
)
created = client.conversations.items.create(
    conversation.id,
    items=[
        {"type": "function_call", "call_id": "call_1", "name": "weather", "arguments": '{"city": "Lisbon"}'},
        {"type": "function_call_output", "call_id": "call_1", "output": "21 °C, clear"},
        {"role": "assistant", "content": "21 °C and rain."},
    ],
)
client.conversations.items.delete(created.last_id, conversation_id=conversation.id)
client.conversations.items.create(conversation.id, items=[{"role": "assistant", "content": "21 °C and clear."}])

for item in client.conversations.items.list(conversation.id, order="asc"):
    match item.type:
        case "message":
            print(f"{item.role}: {item.content[0].text}")
        case "function_call":
            print(f"{item.name}({item.arguments})")
        case "function_call_output":
            print(f"-> {item.output}")
client.conversations.delete(conversation.id)
