"""Data sets, generated and read: programs to execute, pairs, captions, series, names.

The names are imported from the modules themselves: `gatewise.tasks.programs.sample`, ...
"""
