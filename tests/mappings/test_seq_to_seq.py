"""The language model against the same net written by hand, and its parts one by one."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gatewise.errors import DataError, OptionError, ShapeError, UnknownNameError
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.types import detach, state_tensors
from tolerances import assert_close

V, T, B = 11, 6, 3


def make(**options: object) -> LanguageModel:
    values: dict[str, object] = {"vocab_size": V, "embedding_size": 5, "hidden_size": 7}
    return LanguageModel(LanguageModelConfig(**(values | options)))  # type: ignore[arg-type]


def chunk(seed: int = 0, length: int = T) -> tuple[Tensor, Tensor]:
    ids = torch.randint(V, (length + 1, B), generator=torch.Generator().manual_seed(seed))
    return ids[:-1], ids[1:]


class ByHand(nn.Module):
    """word_language_model's network from torch.nn, made in the same order."""

    def __init__(self, layers: int = 1) -> None:
        super().__init__()
        self.embedding = nn.Embedding(V, 5)
        self.rnn = nn.LSTM(5, 7, layers)
        self.decoder = nn.Linear(7, V)
        nn.init.uniform_(self.embedding.weight, -0.1, 0.1)
        nn.init.zeros_(self.decoder.bias)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(
        self, x: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        h, state = self.rnn(self.embedding(x), state)
        return self.decoder(h), state


def test_the_same_seed_gives_the_reference_programs_weights() -> None:
    torch.manual_seed(7)
    ours = make(num_layers=2)
    torch.manual_seed(7)
    theirs = ByHand(layers=2)
    assert torch.equal(ours.embedding.weight, theirs.embedding.weight)
    assert torch.equal(ours.stack.weight_hh_l1, theirs.rnn.weight_hh_l1)
    assert ours.decoder is not None
    assert torch.equal(ours.decoder.weight, theirs.decoder.weight)


def test_truncated_bptt_equals_torch_by_hand() -> None:
    torch.manual_seed(3)
    ours = make()
    torch.manual_seed(3)
    theirs = ByHand()
    state, by_hand = None, None
    for seed in range(3):
        x, y = chunk(seed)
        ours.zero_grad()
        theirs.zero_grad()
        out = ours.loss(x, y, detach(state), start=seed * T)
        logits, by_hand = theirs(x, None if by_hand is None else tuple(s.detach() for s in by_hand))
        loss = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        out.loss.backward()
        loss.backward()
        state = out.state
        assert_close(out.nats, loss.detach())
        assert ours.decoder is not None
        assert_close(ours.stack.weight_hh_l0.grad, theirs.rnn.weight_hh_l0.grad)
        assert_close(ours.embedding.weight.grad, theirs.embedding.weight.grad)
        assert_close(ours.decoder.weight.grad, theirs.decoder.weight.grad)
        assert_close(ours.decoder.bias.grad, theirs.decoder.bias.grad)


def test_gradients_stop_at_the_chunks_border() -> None:
    model = make()
    x, y = chunk()
    start = model.loss(x, y).state
    detached = detach(start)
    assert all(not part.requires_grad for part in state_tensors(detached))
    assert any(part.requires_grad for part in state_tensors(start))


def test_loss_is_the_cross_entropy_of_forwards_logits() -> None:
    for options in (
        {},
        {"tied": True},
        {"tied": True, "hidden_sizes": (9, 5)},
        {"decoder": "tanh"},
        {"cell": "gru", "decoder": "sigmoid"},
        {"proj_size": 4},
        {"softmax": "adaptive", "cutoffs": (3, 6), "hidden_size": 32},
    ):
        model = make(**options).eval()
        x, y = chunk()
        logits = model(x, engine="reference").logits
        assert logits is not None
        assert logits.dtype == torch.float32
        expected = F.cross_entropy(logits.flatten(0, 1), y.flatten())
        assert_close(model.loss(x, y, engine="reference").nats, expected.detach())


def test_adaptive_scores_are_log_probabilities_and_counts_order_the_clusters() -> None:
    counts = torch.arange(V)
    model = LanguageModel(
        LanguageModelConfig(vocab_size=V, embedding_size=5, hidden_size=32, softmax="adaptive"),
        counts,
    ).eval()
    logits = model(chunk()[0]).logits
    assert logits is not None
    assert_close(logits.exp().sum(-1), torch.ones(T, B))
    assert model.softmax is not None
    assert int(model.softmax.rank[V - 1]) == 0
    again = LanguageModel(LanguageModelConfig.from_dict(model.config.to_dict()))
    again.load_state_dict(model.state_dict())
    assert torch.equal(again.eval()(chunk()[0]).logits, logits)


def test_tied_weights_are_one_and_the_projection_joins_other_sizes() -> None:
    joined = make(tied=True)
    assert joined.projection is not None
    assert joined.decoder is None
    assert set(dict(joined.named_parameters())) & {"decoder.weight"} == set()
    equal = make(tied=True, hidden_sizes=(9, 5))
    assert equal.projection is None
    assert equal.stack.output_size == 5


def test_logits_last_and_none() -> None:
    model = make().eval()
    x, _ = chunk()
    everything = model(x)
    assert everything.logits is not None
    last = model(x, logits="last").logits
    assert last is not None
    assert_close(last, everything.logits[-1:])
    assert model(x, logits="none").logits is None
    lengths = torch.tensor([2, 6, 1])
    ragged = model(x, logits="last", lengths=lengths).logits
    assert ragged is not None
    expected = torch.stack([everything.logits[n - 1, b] for b, n in enumerate(lengths)])
    assert_close(ragged[0], expected)


def test_chunks_give_what_the_whole_gives() -> None:
    model = make(num_layers=2).eval()
    x, _ = chunk()
    whole = model(x)
    first = model(x[:2])
    second = model(x[2:], first.state, start=2)
    assert whole.logits is not None
    assert first.logits is not None
    assert second.logits is not None
    assert_close(torch.cat((first.logits, second.logits)), whole.logits)


NOISY: dict[str, object] = {
    "num_layers": 2,
    "dropout": 0.4,
    "dropout_input": 0.3,
    "dropout_hidden": 0.2,
    "dropout_embedding": 0.1,
    "weight_drop": 0.5,
    "zoneout": 0.1,
}


@pytest.mark.parametrize("locked", [False, True])
def test_noise_follows_torchs_seed_and_is_absent_in_eval_mode(locked: bool) -> None:
    model = make(**NOISY, locked_dropout=locked)
    x, y = chunk()
    torch.manual_seed(1)
    first = model.loss(x, y).nats
    torch.manual_seed(1)
    assert torch.equal(first, model.loss(x, y).nats)
    assert not torch.equal(first, model.loss(x, y).nats)
    model.eval()
    before = torch.get_rng_state()
    assert torch.equal(model.loss(x, y).nats, model.loss(x, y).nats)
    assert torch.equal(before, torch.get_rng_state())


def test_dropout_masks_are_where_the_options_say() -> None:
    x = torch.arange(V)[:, None].expand(V, 4)  # every token once per column
    with torch.no_grad():
        rows = make(dropout_embedding=0.5)._embed(x)
        dropped = (rows == 0).all(-1)
        assert 0 < int(dropped[:, 0].sum()) < V
        assert bool((dropped == dropped[:, :1]).all())  # a token is gone in every column
        locked = make(dropout_input=0.5, locked_dropout=True)._embed(x) == 0
        assert bool((locked == locked[:1]).all())
        assert bool(locked.any())
        free = make(dropout_input=0.5)._embed(x) == 0
        assert not bool((free == free[:1]).all())


def test_penalties_are_added_to_the_loss_alone() -> None:
    torch.manual_seed(2)
    model = make(activation_penalty=2.0, temporal_penalty=1.0)
    out = model.loss(*chunk())
    h = out.h
    expected = out.nats + 2 * h.square().mean() + (h[1:] - h[:-1]).square().mean()
    assert_close(out.loss, expected)


def test_bfloat16_autocast_keeps_float32_weights_and_losses() -> None:
    model = make()
    with torch.autocast("cpu", torch.bfloat16):
        # torch's own kernel exists in bfloat16 on some processors only
        out = model.loss(*chunk(), engine="reference")
        scores = model(chunk()[0], engine="reference").logits
    out.loss.backward()
    assert scores is not None
    assert scores.dtype == torch.float32
    assert out.nats.dtype == torch.float32
    assert all(
        p.dtype == p.grad.dtype == torch.float32 for p in model.parameters() if p.grad is not None
    )
    assert math.isclose(out.nats.item(), model.loss(*chunk()).nats.item(), rel_tol=0.02)


def test_config_survives_json() -> None:
    config = LanguageModelConfig(vocab_size=9, hidden_sizes=(4, 3), dropout_input=0.5, tied=True)
    text = json.dumps(config.to_dict())
    assert LanguageModelConfig.from_dict(json.loads(text)) == config


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"hidden_size": 0}, "--hidden-size"),
        ({"hidden_size": -3}, "--hidden-size"),
        ({"hidden_size": 10**12}, "--hidden-size"),
        ({"hidden_size": True}, "--hidden-size"),
        ({"hidden_sizes": (4, 0)}, "--hidden-sizes"),
        ({"num_layers": 10**6}, "--num-layers"),
        ({"dropout": 1.0}, "--dropout"),
        ({"dropout_input": math.nan}, "--dropout-input"),
        ({"weight_drop": -0.1}, "--weight-drop"),
        ({"temporal_penalty": math.inf}, "--temporal-penalty"),
        ({"decoder": "softplus"}, "--decoder"),
        ({"softmax": "adaptive", "tied": True}, "--softmax"),
        ({"cutoffs": (5, 2)}, "--cutoffs"),
        ({"vocab_size": 0}, "--vocab-size"),
        ({"embedding_size": "5"}, "--embedding-size"),
    ],
)
def test_options_outside_their_range_are_named(values: dict[str, object], named: str) -> None:
    config = LanguageModelConfig(**({"vocab_size": 9} | values))  # type: ignore[arg-type]
    with pytest.raises(OptionError, match=named) as error:
        LanguageModel(config)
    assert "\n" not in str(error.value)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="lstm"):
        make(cell="lsmt")
    with pytest.raises(UnknownNameError, match="dropuot"):
        LanguageModelConfig.from_dict({"vocab_size": 3, "dropuot": 0.1})
    with pytest.raises(OptionError, match="vocab_size"):
        LanguageModelConfig.from_dict({})
    with pytest.raises(OptionError, match="hidden-sizes"):
        LanguageModelConfig.from_dict({"vocab_size": 3, "hidden_sizes": [1.5]})


def test_tokens_outside_the_vocabulary_and_wrong_shapes() -> None:
    model = make()
    with pytest.raises(DataError, match="another tokenizer"):
        model(torch.full((2, 1), V))
    with pytest.raises(ShapeError, match="whole numbers"):
        model(torch.zeros(2, 1))
    with pytest.raises(ShapeError, match="tokens"):
        model(torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ShapeError, match="targets"):
        model.loss(torch.zeros(2, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int64))


def test_every_option_has_its_help() -> None:
    import ast
    import inspect

    from gatewise.mappings.options import LanguageModelOptions

    body = ast.parse(inspect.getsource(LanguageModelOptions)).body[0]
    assert isinstance(body, ast.ClassDef)
    followed = [
        before.target.id
        for before, after in zip(body.body, body.body[1:], strict=False)
        if isinstance(before, ast.AnnAssign)
        and isinstance(before.target, ast.Name)
        and isinstance(after, ast.Expr)
    ]
    assert followed == [field.name for field in dataclasses.fields(LanguageModelOptions)]


def test_forget_bias_is_where_the_forget_gate_starts() -> None:
    model = LanguageModel(LanguageModelConfig(vocab_size=5, hidden_size=3, forget_bias=1.5))
    both = model.stack.bias_ih_l0[3:6] + model.stack.bias_hh_l0[3:6]
    assert torch.equal(both, torch.full((3,), 1.5))


@pytest.mark.parametrize(
    "options", [{"cell": "gru", "forget_bias": 1.0}, {"forget_bias": math.nan}]
)
def test_a_forget_bias_that_cannot_be_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match="--forget-bias"):
        LanguageModelConfig(vocab_size=5, **options).validate()
