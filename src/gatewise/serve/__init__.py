"""Where editors and programs come in: HTTP, the language server, and learning from what is written meanwhile.

Every protocol's module translates between it and `gatewise.complete`; none of them knows how a model runs. HTTP needs the
extra `serve`, the language server the extra `lsp`: their modules are imported when they are started.
"""
