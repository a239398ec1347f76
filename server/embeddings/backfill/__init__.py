"""The backfill: fills a candidate's relation with what was written before it, in a process of its own.

``python -m server.embeddings.backfill`` is one worker; a server keeps one running, and more may run anywhere. What is
left is derived from the log and each conversation's progress, and a batch is written in one transaction with the
progress that it makes, so that a worker may be killed at any time.
"""
