"""LangChain keeps its chat history on Turnstone: set OPENAI_BASE_URL and OPENAI_API_KEY."""

from langchain_core.messages import AIMessage, HumanMessage
from langchain_history import TurnstoneHistory
from openai import OpenAI

client = OpenAI()
history = TurnstoneHistory(client, client.conversations.create().id)
history.add_messages([HumanMessage("I prefer trains."), AIMessage("Trains it is. Where to?")])
history.add_user_message("Lisbon, in May.")

print(TurnstoneHistory(client, history.conversation))
history.clear()
