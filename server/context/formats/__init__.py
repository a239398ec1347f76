"""Contexts in the messages of model APIs: pure rules from what is shown to what such an API takes.

``turns`` reads the messages of a context as what was said and what tools were called, ``parts`` their contents; each
further module writes them in one API's words. Whatever the format: an event's texts take no more tokens than it is
charged (a mark, as ``Summary:``, is paid by its frame), each message names the events that it is made of, and the same
messages give the same bytes in any process.
"""
