"""Where editors and programs come in: HTTP and the language server, both over `gatewise.complete`."""
