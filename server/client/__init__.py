"""A thin typed client for Python: ``Turnstone``, and ``AsyncTurnstone`` for asyncio.

    with Turnstone("http://127.0.0.1:8420", key) as memory:
        conversation = memory.create_conversation(user="ada").id
        memory.append(conversation, [{"role": "user", "content": "I moved to Lisbon."}])
        messages = memory.prompt(conversation, "openai", budget_tokens=2000).messages

What is sent again after a lost answer carries the Idempotency-Key of the first try: an append is stored once. It needs
httpx and msgspec, and nothing of the server.
"""

from server.client.asynchronous import AsyncTurnstone
from server.client.calls import Refused
from server.client.synchronous import Turnstone

__all__ = ["AsyncTurnstone", "Refused", "Turnstone"]
