"""Vector to sequence: the vector reaches the text both ways; images; steps and whole targets agree; it learns."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

import gatewise as gw
from gatewise.errors import OptionError, ShapeError
from gatewise.generate.conditional import search_beams, write_greedily
from gatewise.mappings.image_encoder import ImageOptions
from gatewise.mappings.vec_to_seq import CaptionConfig, CaptionOptions, VectorToSequence

V, F, BEGIN, END = 7, 5, 0, 1
SMALL = ImageOptions(image_size=16, image_channels=8, image_blocks=1)
FORMS: dict[str, dict[str, Any]] = {
    "state": {},
    "state of layers": {"num_layers": 2, "cell": "gru"},
    "input": {"vector_to": "input", "tied": True},
    "image": {"images": True},
    "regions": {"images": True, "attention": "additive"},
    "regions, fed": {"images": True, "attention": "general", "input_feeding": True},
}
EACH = pytest.mark.parametrize("form", FORMS)


def build(form: str, **more: Any) -> VectorToSequence:
    torch.manual_seed(0)
    values = {"embedding_size": 6, "hidden_size": 8, **FORMS[form], **more}
    images = SMALL if values.pop("images", False) else None
    options = CaptionOptions(**values)
    config = CaptionConfig.from_options(options, images, V, 0 if images else F)
    return VectorToSequence(config).double()


def inputs_of(form: str) -> Tensor:
    if FORMS[form].get("images"):
        return torch.randint(256, (3, 3, 16, 16), dtype=torch.uint8)
    return torch.randn(3, F).double()


@EACH
def test_token_after_token_is_the_whole_target(form: str) -> None:
    model, inputs = build(form), inputs_of(form)
    tokens = torch.randint(V, (4, 3))
    whole = model(inputs, tokens).logits
    assert whole is not None
    writing = model.writing(model.look(inputs))
    for t, row in enumerate(tokens):
        torch.testing.assert_close(writing.step(row), whole[t])


@EACH
def test_columns_do_not_change_each_other(form: str) -> None:
    model, inputs, tokens = build(form), inputs_of(form), torch.randint(V, (4, 3))
    whole = model(inputs, tokens).logits
    assert whole is not None
    for k in range(3):
        alone = model(inputs[k : k + 1], tokens[:, k : k + 1]).logits
        torch.testing.assert_close(whole[:, k : k + 1], alone)
    assert not torch.allclose(whole, model(inputs.flip(0), tokens).logits)


@EACH
def test_every_weight_gets_a_gradient_the_same_on_every_engine(form: str) -> None:
    model, inputs, tokens = build(form), inputs_of(form), torch.randint(V, (4, 3))
    found = []
    for engine in ("reference", "auto"):
        model.zero_grad()
        model.loss(inputs, tokens, tokens, engine=engine)[0].backward()  # type: ignore[no-untyped-call]
        found.append({name: p.grad for name, p in model.named_parameters()})
    for name, grad in found[0].items():
        assert grad is not None, name
        torch.testing.assert_close(grad, found[1][name])


def test_bytes_and_numbers_are_the_same_image() -> None:
    model, images, tokens = build("image"), inputs_of("image"), torch.randint(V, (2, 3))
    torch.testing.assert_close(
        model(images, tokens).logits, model(images.double() / 255, tokens).logits
    )


@EACH
def test_search_always_gives_an_answer(form: str) -> None:
    model = build(form).eval()
    with torch.no_grad():
        assert model.decoder.bias is not None or model.decoder.decoder is not None
        bias = model.decoder.bias if model.decoder.decoder is None else model.decoder.decoder.bias
        bias[END] = -1e9  # it never ends by itself
        seen = model.look(inputs_of(form))
    begin = torch.full((3,), BEGIN)
    for found in search_beams(model.writing(seen), begin, END, [4] * 3, width=3, n_best=2):
        assert [len(one.ids) for one in found] == [4, 4]
        assert not any(one.ended for one in found)
    greedy = write_greedily(model.writing(seen), begin, END, [4] * 3)
    assert all(len(one.ids) == 4 for one in greedy)


def test_what_is_inside_can_be_read_and_set() -> None:
    model, inputs, tokens = (
        build("state", cell="lstm"),
        inputs_of("state"),
        torch.randint(V, (4, 3)),
    )
    out = model(inputs, tokens, record=gw.Record("c", "decoder.layers.0.f"))
    assert set(out.record) == {"decoder.layers.0.c", "decoder.layers.0.f"}
    kept = model(inputs, tokens, record=gw.Record("c"), control=gw.Control.keep())
    c = kept.record["decoder.layers.0.c"]
    assert bool((c == c[0]).all())


def test_it_learns_to_write_what_the_vector_holds() -> None:
    """Two numbers in a vector, to be written as two words."""
    torch.manual_seed(0)
    config = CaptionConfig.from_options(
        CaptionOptions(embedding_size=8, hidden_size=24, vector_to="input"), None, V, 10
    )
    model = VectorToSequence(config)
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)

    def draw(count: int) -> tuple[Tensor, Tensor]:
        digits = torch.randint(5, (2, count))
        vector = torch.cat([torch.nn.functional.one_hot(d, 5) for d in digits], -1).float()
        return vector, digits + 2

    for _ in range(150):
        vector, words = draw(64)
        targets = torch.cat((words, torch.full((1, 64), END)))
        tokens = torch.cat((torch.full((1, 64), BEGIN), words))
        optimizer.zero_grad()
        model.loss(vector, tokens, targets)[0].backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    vector, words = draw(200)
    model.eval()
    with torch.no_grad():
        writing = model.writing(model.look(vector))
    answers = write_greedily(writing, torch.full((200,), BEGIN), END, [5] * 200)
    right = [a.ids == tuple(w) for a, w in zip(answers, words.T.tolist(), strict=True)]
    assert sum(right) > 195


@pytest.mark.parametrize(
    ("form", "options", "said"),
    [
        ("state", {"attention": "dot"}, "--attention: looks at the regions of an image"),
        ("state", {"vector_to": "end"}, "--vector-to: expected one of input, state"),
    ],
)
def test_options_outside_their_range(form: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(OptionError, match=said):
        build(form, **options)


def test_inputs_that_do_not_fit() -> None:
    with pytest.raises(ShapeError, match=r"vectors \(B, 5\), found \(3, 4\)"):
        build("state").look(torch.zeros(3, 4))
    with pytest.raises(ShapeError, match=r"images \(B, 3, H, W\), found \(3, 1, 16, 16\)"):
        build("image").look(torch.zeros(3, 1, 16, 16))
    config = build("image").config
    assert CaptionConfig.from_dict(config.to_dict()) == config
