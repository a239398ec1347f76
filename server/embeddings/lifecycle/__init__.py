"""The rules of an embedding migration: states, routing, figures, gates, pacing, golden sets. No SQL, no HTTP, no clock.

``states.decide`` says what a command would change; ``routing.serve`` which version answers a user; ``gates`` whether a
candidate may; ``figures`` what the gates rest on.
"""
