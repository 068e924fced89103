from __future__ import annotations

import pytest

from gatewise.errors import DivergedError
from gatewise.mappings.learner import Batch
from gatewise.train.state import Counters
from gatewise.train.trouble import check_skips


@pytest.mark.parametrize("mixed", [True, False])
def test_float32_is_advised_only_where_something_else_runs(mixed: bool) -> None:
    counters = Counters(step=9, skips_in_a_row=3)
    batch = Batch((), 1, 0, 1, name="rows 0 to 1")
    assert "skipped" in check_skips(counters, 4, batch, "loss nan", mixed)
    with pytest.raises(DivergedError, match="a smaller --lr") as caught:
        check_skips(counters, 3, batch, "loss nan", mixed)
    assert "--clip-norm" in str(caught.value)
    assert ("--dtype float32" in str(caught.value)) == mixed
