"""Where editors and programs come in: HTTP, the language server, and learning from what is written meanwhile.

Every protocol's module translates between it and `gatewise.complete`; none of them knows how a model runs. HTTP
(`gatewise.serve.app` and its neighbours) needs the extra `serve`, the language server (`gatewise.serve.lsp` and the
modules named lsp_...) the extra `lsp`: they are imported when they are started.
"""
