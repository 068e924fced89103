"""Completion for editors and programs: over HTTP, and as a language server.

Every module here translates between a protocol and `gatewise.complete`; none of them knows how a model runs. HTTP
(`gatewise.serve.app` and its neighbours) needs the extra `serve`, the language server (`gatewise.serve.lsp` and the
modules named lsp_...) the extra `lsp`; either is imported when it is started.
"""
