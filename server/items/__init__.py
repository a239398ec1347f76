"""Items of OpenAI's Conversations API, as events of the log and back: pure, no SQL, no HTTP.

An item is an event seen by another name. What both know (role, content, call id, name, text of a call or its output)
stands in the event's own fields, so that native readers and the working set see it; what only items have (a status, a
phase, fields of tomorrow) stands in the event's metadata under ``openai``, verbatim. An item of a kind that has no
event of its own is kept whole as content.
"""
