"""Text: reading it, tokenizing it, and laying it out in streams.

The names are imported from the modules themselves: `gatewise.text.corpora.build_corpus`, ...
"""
