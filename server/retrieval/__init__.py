"""From a question to the events that answer it: what kind of question, which plan, what it finds, and why."""
