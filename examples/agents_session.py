"""The session of OpenAI's Agents SDK on Turnstone: set OPENAI_BASE_URL and OPENAI_API_KEY, and nothing else changes.

Hand it to a runner as ever: ``await Runner.run(agent, "What did I just say?", session=session)``.
"""

import asyncio

from agents.memory import OpenAIConversationsSession


async def main() -> None:
    session = OpenAIConversationsSession()
    await session.add_items(
        [
            {"role": "user", "content": "I prefer trains. Never book me a flight."},
            {"role": "assistant", "content": "Trains it is. Where to?"},
            {"role": "user", "content": "Lisbom, in May."},
        ]
    )
    await session.pop_item()  # a slip of the pen
    await session.add_items([{"role": "user", "content": "Lisbon, in May."}])

    elsewhere = OpenAIConversationsSession(conversation_id=session.session_id)
    for item in await elsewhere.get_items(limit=2):
        print(f"{item['role']}: {item['content'][0]['text']}")
    await session.clear_session()


asyncio.run(main())
