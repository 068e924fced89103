"""What is measured: sums of costs, and the scores of classes, numbers, texts, captions and raters.

`Tally` is what language models need. The rest is imported from the modules themselves:
`gatewise.metrics.classes.ClassTally`, `gatewise.metrics.captions.score_captions`, ...
"""

from gatewise.metrics.tally import Tally, perplexity

__all__ = ["Tally", "perplexity"]
