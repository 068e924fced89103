"""A cell's equations as CUDA C: printed, compiled at run time, launched step by step."""
