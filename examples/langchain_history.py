"""An adapter: LangChain's chat history as items of one conversation, through the OpenAI SDK."""

from json import dumps, loads

from langchain_core.chat_history import BaseChatMessageHistory
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.messages.tool import tool_call


class TurnstoneHistory(BaseChatMessageHistory):
    def __init__(self, client, conversation):
        self.items, self.conversation = client.conversations.items, conversation

    def add_messages(self, messages):
        for m in messages:
            new = [{"role": {"human": "user", "ai": "assistant"}.get(m.type, "system"), "content": m.text}]
            if isinstance(m, ToolMessage):
                new = [{"type": "function_call_output", "call_id": m.tool_call_id, "output": m.text}]
            for c in getattr(m, "tool_calls", []):
                new += [{"type": "function_call", "call_id": c["id"], "name": c["name"], "arguments": dumps(c["args"])}]
            self.items.create(self.conversation, items=new)

    @property
    def messages(self):
        found, kinds = [], {"user": HumanMessage, "assistant": AIMessage, "system": SystemMessage}
        for item in self.items.list(self.conversation, order="asc", limit=100):
            if item.type == "message":
                found.append(kinds[item.role](item.content[0].text))
            elif item.type == "function_call":
                found[-1].tool_calls += [tool_call(name=item.name, args=loads(item.arguments), id=item.call_id)]
            else:
                found.append(ToolMessage(item.output, tool_call_id=item.call_id))
        return found

    def clear(self):
        for item in self.items.list(self.conversation, limit=100):
            self.items.delete(item.id, conversation_id=self.conversation)
