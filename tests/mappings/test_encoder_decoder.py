"""Encoder and decoder: padding changes nothing, steps and whole targets agree, records, controls, search."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.errors import OptionError, UnknownNameError
from gatewise.generate.conditional import Answer, search_beams, write_greedily
from gatewise.mappings.seq_to_vec_to_seq import (
    EncoderDecoder,
    EncoderDecoderConfig,
    EncoderDecoderOptions,
)
from gatewise.text.batches import PADDING

SOURCE, TARGET, BEGIN, END = 11, 7, 0, 1
FORMS: dict[str, dict[str, Any]] = {
    "vector": {},
    "fed vector": {"feed_vector": True, "bridge": "linear"},
    "two directions": {"bidirectional": True, "num_layers": 2, "reverse_source": True},
    "dot": {"attention": "dot", "bidirectional": True},
    "general": {"attention": "general", "cell": "gru", "bridge": "linear"},
    "additive": {"attention": "additive", "tied": True},
    "input feeding": {"attention": "dot", "input_feeding": True, "tied": True},
}
EACH = pytest.mark.parametrize("form", FORMS)


def build(form: str, **more: Any) -> EncoderDecoder:
    torch.manual_seed(0)
    options = EncoderDecoderOptions(
        **{"embedding_size": 6, "hidden_size": 8, **FORMS[form], **more}
    )
    return EncoderDecoder(EncoderDecoderConfig.from_options(options, SOURCE, TARGET)).double()


def pairs() -> tuple[Tensor, Tensor, Tensor]:
    source = torch.randint(2, SOURCE, (5, 3))
    return source, torch.tensor([5, 2, 3]), torch.randint(2, TARGET, (4, 3))


@EACH
def test_padding_and_other_columns_change_nothing(form: str) -> None:
    model = build(form)
    source, lengths, tokens = pairs()
    whole = model(source, tokens, lengths)
    for column, length in enumerate(lengths.tolist()):
        alone = model(source[:length, column : column + 1], tokens[:, column : column + 1])
        torch.testing.assert_close(whole.logits[:, column], alone.logits[:, 0])
        torch.testing.assert_close(whole.vector[column], alone.vector[0])
        if whole.weights is not None:
            torch.testing.assert_close(whole.weights[:, column, :length], alone.weights[:, 0])
            assert not whole.weights[:, column, length:].any()


@EACH
def test_token_after_token_is_the_whole_target(form: str) -> None:
    model = build(form)
    source, lengths, tokens = pairs()
    whole = model(source, tokens, lengths).logits
    read = model.encode(source, lengths)
    writing = model.writing(read)
    for t, row in enumerate(tokens):
        torch.testing.assert_close(writing.step(row), whole[t], check_dtype=False)
    split = model.write(tokens[:2], read)
    rest = model.write(tokens[2:], read, split.state, start=2)
    torch.testing.assert_close(torch.cat((split.logits, rest.logits)), whole)


@EACH
def test_engines_agree_on_every_gradient(form: str) -> None:
    model = build(form)
    source, lengths, tokens = pairs()
    targets = torch.where(torch.rand(tokens.shape) < 0.2, PADDING, tokens)
    found = []
    for engine in ("reference", "auto"):
        model.zero_grad()
        loss, nats, _ = model.loss(source, lengths, tokens, targets, engine=engine)
        loss.backward()  # type: ignore[no-untyped-call]
        assert torch.equal(loss.detach(), nats)
        found.append([p.grad for p in model.parameters()])
        assert all(g is not None and g.isfinite().all() for g in found[-1])
    for mine, theirs in zip(*found, strict=True):
        torch.testing.assert_close(mine, theirs)


def test_the_cost_is_that_of_the_scores_and_smoothing_is_for_training_alone() -> None:
    model = build("dot", smoothing=0.1)
    source, lengths, tokens = pairs()
    scores = model(source, tokens, lengths).logits.flatten(0, 1)
    plain = torch.nn.functional.cross_entropy(scores, tokens.flatten())
    smooth = torch.nn.functional.cross_entropy(scores, tokens.flatten(), label_smoothing=0.1)
    loss, nats, _ = model.loss(source, lengths, tokens, tokens)
    torch.testing.assert_close((loss.detach(), nats), (smooth, plain))
    loss, nats, _ = model.eval().loss(source, lengths, tokens, tokens)
    torch.testing.assert_close((loss.detach(), nats), (plain, plain))


@EACH
def test_what_is_recorded_in_both_parts(form: str) -> None:
    model = build(form)
    source, lengths, tokens = pairs()
    asked = gw.Record("h", "encoder.layers.0.h.new")
    out = model(source, tokens, lengths, record=asked)
    layers = range(model.config.num_layers)
    sides = ("", "reverse.") if model.config.bidirectional else ("",)
    paths = {f"encoder.layers.{k}.{side}h" for k in layers for side in sides}
    paths |= {f"decoder.layers.{k}.h" for k in layers} | {"encoder.layers.0.h.new"}
    assert set(out.record) == paths
    assert out.record.times_of("encoder.layers.0.h").tolist() == list(range(5))
    assert out.record.times_of("decoder.layers.0.h").tolist() == list(range(4))
    read = model.encode(source, lengths)
    last = f"encoder.layers.{model.config.num_layers - 1}"
    width = read.h.shape[-1] // len(sides)
    torch.testing.assert_close(out.record[f"{last}.h"], read.h[..., :width])


def test_a_control_acts_in_the_part_that_it_names() -> None:
    model = build("dot", cell="lstm")
    source, lengths, tokens = pairs()
    plain = model(source, tokens, lengths)
    off = gw.Control.off("decoder.layers.0.o")
    read = model.encode(source, lengths, control=off)
    torch.testing.assert_close(read.h, model.encode(source, lengths).h)
    changed = model(source, tokens, lengths, control=off, record=gw.Record("decoder.layers.0.h"))
    assert not changed.record["decoder.layers.0.h"].any()
    assert not torch.equal(changed.logits, plain.logits)
    assert (
        not model.encode(source, lengths, control=gw.Control.off("encoder.layers.0.o"))
        .h[:, :, :4]
        .any()
    )
    both = model(source, tokens, lengths, control=gw.Control.keep(), record=gw.Record("h", "c"))
    assert not any(value.any() for value in both.record.values())


def test_names_of_neither_part_are_refused() -> None:
    model = build("vector")
    source, lengths, tokens = pairs()
    for name in ("encoder.layers.0.q", "q", "encoder.layers.7.f"):
        with pytest.raises(UnknownNameError, match="name to record or control"):
            model(source, tokens, lengths, record=gw.Record(name))


@torch.no_grad()
def all_answers(model: EncoderDecoder, source: Tensor, limit: int) -> dict[tuple[int, ...], float]:
    """Every answer of at most `limit` tokens, and its log-probability."""
    found = {}
    words = [t for t in range(TARGET) if t != END]
    for length in range(limit + 1):
        for ids in itertools.product(words, repeat=length):
            tokens = torch.tensor([BEGIN, *ids]).unsqueeze(1)
            logs = model(source, tokens).logits[:, 0].log_softmax(-1)
            written = [logs[k, t] for k, t in enumerate(ids)]
            if length < limit:
                written.append(logs[length, END])
            found[ids] = float(sum(written)) if written else 0.0
    return found


@EACH
def test_a_wide_search_finds_the_most_probable_answer(form: str) -> None:
    model = build(form).eval()
    source = torch.randint(2, SOURCE, (4, 1))
    known = all_answers(model, source, 3)
    best = max(known, key=known.__getitem__)
    with torch.no_grad():
        writing = model.writing(model.encode(source))
    (found,) = search_beams(
        writing, torch.tensor([BEGIN]), END, [3], width=400, n_best=3, alpha=0.0
    )
    assert found[0].ids == best
    for one in found:
        assert math.isclose(one.logprob, known[one.ids], rel_tol=1e-6)
        assert math.isclose(one.logprob, sum(one.token_logprobs), rel_tol=1e-9)


@EACH
@pytest.mark.parametrize("width", [1, 3])
def test_sources_do_not_change_each_other(form: str, width: int) -> None:
    model = build(form).eval()
    source, lengths, _ = pairs()

    def search(source: Tensor, lengths: Tensor) -> list[list[Answer]]:
        with torch.no_grad():
            writing = model.writing(model.encode(source, lengths))
        begin = torch.full((source.shape[1],), BEGIN)
        return search_beams(writing, begin, END, [6] * len(begin), width=width, n_best=width)

    together = search(source, lengths)
    for column, length in enumerate(lengths.tolist()):
        (alone,) = search(source[:length, column : column + 1], lengths[column : column + 1])
        assert [a.ids for a in alone] == [a.ids for a in together[column]]
        assert [a.score for a in alone] == pytest.approx([a.score for a in together[column]])


def test_one_beam_writes_what_greedy_writes() -> None:
    model = build("dot").eval()
    source, lengths, _ = pairs()
    begin = torch.full((3,), BEGIN)
    with torch.no_grad():
        read = model.encode(source, lengths)
    beams = search_beams(model.writing(read), begin, END, [6] * 3, width=1, alpha=0.0)
    greedy = write_greedily(model.writing(read), begin, END, [6] * 3)
    assert [b[0].ids for b in beams] == [g.ids for g in greedy]
    assert [b[0].logprob for b in beams] == pytest.approx([g.logprob for g in greedy])
    short = write_greedily(model.writing(read), begin, END, [1, 2, 3])
    assert [s.ids for s in short] == [g.ids[:k] for k, g in enumerate(greedy, 1)]


def test_scheduled_sampling_reads_own_tokens_but_never_in_evaluation() -> None:
    model = build("dot", scheduled_sampling=0.9)
    source, lengths, tokens = pairs()
    _, noisy, _ = model.loss(source, lengths, tokens, tokens)
    _, clean, _ = model.eval().loss(source, lengths, tokens, tokens)
    assert not torch.equal(noisy, clean)
    assert torch.equal(clean, build("dot").loss(source, lengths, tokens, tokens)[1])


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attention": "all"}, "--attention: expected one of none, additive, general, dot"),
        ({"input_feeding": True}, "--input-feeding: needs --attention"),
        ({"bidirectional": True, "hidden_size": 7}, "odd --hidden-size 7"),
        ({"bridge": "none"}, "--bridge: expected one of copy, linear"),
        ({"shared": True}, "--shared: expected one vocabulary, found 11 and 7"),
        ({"smoothing": 1.0}, "--smoothing"),
    ],
)
def test_options_outside_their_range(options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        build("vector", **options)


def test_the_config_goes_through_json() -> None:
    config = build("additive").config
    assert EncoderDecoderConfig.from_dict(config.to_dict()) == config
    for broken in ({"hidden_size": "8"}, {"width": 3}):
        with pytest.raises((OptionError, UnknownNameError)):
            EncoderDecoderConfig.from_dict(config.to_dict() | broken)
