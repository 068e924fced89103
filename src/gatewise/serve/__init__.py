"""Completion over HTTP: one process, one port, the protocols that editors' clients already speak.

Every module here translates between a protocol and `gatewise.complete`; none of them knows how a model runs. All of
it needs the extra `serve`: `gatewise.serve.app` and its neighbours are imported when a server is started.
"""
