"""One process that runs it all: the embedded database, the schema upgrade, the HTTP server or several of them.

supervisor.py  the order of things, from the port to the last stop
sockets.py     the listening socket
postgres.py    keeps the embedded database running
http.py        one HTTP server, in this process
transport.py   one system call for each answer
workers.py     several, each in a process of its own
worker.py      what such a process runs
signals.py     Ctrl-C once and twice
"""
