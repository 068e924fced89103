from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch

import gatewise as gw
from gatewise.checkpoint import RunFolder
from gatewise.errors import CheckpointError, DataError, OptionError, UnknownNameError
from gatewise.generate import SamplingOptions
from gatewise.mappings import LanguageModel, LanguageModelConfig
from gatewise.run import MAPPINGS, LanguageRun
from gatewise.run.language import COMPLETION
from gatewise.text.tokenizers import Tokenizer, build_tokenizer
from tolerances import assert_close

# torch notes once which functions a device context acts on: before they are wrapped (conftest.py)
with torch.device("meta"):
    torch.zeros(0)

TEXT = "def read_file(path):\n    return open(path).read()\n"
CHARS = build_tokenizer("char", [TEXT])


def save(folder: Path, tokenizer: Tokenizer = CHARS, **changes: Any) -> Path:
    """A run of two checkpoints; the first is the best."""
    sizes = {"embedding_size": 6, "hidden_size": 8, "num_layers": 2, "dropout": 0.4}
    config = LanguageModelConfig(vocab_size=tokenizer.vocab_size, **sizes | changes)
    with RunFolder.create(folder) as run:
        for step in (1, 2):
            torch.manual_seed(step)
            run.save(
                step,
                config={"mapping": "lm", "model": config.to_dict()},
                tensors=LanguageModel(config).state_dict(),
                tokenizer_json=tokenizer.to_json(),
                best=step == 1,
            )
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> LanguageRun:
    found = gw.load(save(tmp_path_factory.mktemp("runs") / "mine"))
    assert isinstance(found, LanguageRun)
    return found


def test_best_latest_and_single_checkpoints(tmp_path: Path) -> None:
    folder = save(tmp_path / "mine")
    best, latest = gw.load(folder), gw.load(folder, "latest")
    assert (best.step, latest.step) == (1, 2)
    assert gw.load(latest.path).step == 2
    for found in (best, latest):
        torch.manual_seed(found.step)
        original = LanguageModel(LanguageModelConfig.from_dict(found.config["model"]))
        for name, weight in original.state_dict().items():
            assert torch.equal(found.model.state_dict()[name], weight)
        assert not found.model.training
    assert "LanguageRun" in repr(best)
    assert "parameters" in repr(best)


def test_loading_leaves_the_global_random_state_alone(tmp_path: Path) -> None:
    folder = save(tmp_path / "mine")
    before = torch.get_rng_state()
    gw.load(folder)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    "changes",
    [
        {"tied": True},
        {"cell": "gru", "tied": True, "embedding_size": 8},
        {"softmax": "adaptive", "cutoffs": (5,)},
        {"learned_state": True, "decoder": "tanh"},
        {"hidden_sizes": (4, 6), "cell": "lstm_layer_norm"},
        {"cell": "mingru"},
        {"cell": "mogrifier", "hidden_sizes": (4, 6)},
    ],
    ids=str,
)
def test_every_shape_of_model_comes_back(changes: dict[str, Any], tmp_path: Path) -> None:
    found = gw.load(save(tmp_path / "mine", **changes))
    torch.manual_seed(1)
    original = LanguageModel(LanguageModelConfig.from_dict(found.config["model"])).eval()
    tokens = torch.randint(found.tokenizer.vocab_size, (5, 2))
    assert torch.equal(found.model(tokens).logits, original(tokens).logits)
    assert found.complete("def", max_tokens=5, seed=1)


def test_device_and_dtype(tmp_path: Path) -> None:
    folder = save(tmp_path / "mine")
    for dtype in ("float64", torch.float64):
        found = gw.load(folder, device="cpu", dtype=dtype)
        assert next(found.model.parameters()).dtype == torch.float64
        assert found.complete("def", max_tokens=3)
    for wrong in ({"dtype": "float8"}, {"device": "nowhere"}):
        with pytest.raises(OptionError, match="expected"):
            gw.load(folder, **wrong)
    with pytest.raises(UnknownNameError):
        gw.load(folder, "newest")  # type: ignore[arg-type]


def test_complete_and_generate(run: LanguageRun) -> None:
    completions = run.complete("def read_", n=3, seed=1, max_tokens=9)
    assert 1 <= len(completions) <= 3
    assert completions == run.complete("def read_", n=3, seed=1, max_tokens=9)
    assert completions == sorted(completions, key=lambda c: -c.logprob)
    assert run.complete("def read_", n=2, beams=4, max_tokens=4)
    (whole,) = run.generate("def ☃", seed=5, max_tokens=30).run()
    pieces = run.generate("def ☃", seed=5, max_tokens=30)
    assert "".join(delta.text for delta in pieces) == whole.text
    assert len(pieces.notes) == 1
    assert run.generate(seed=1, max_tokens=4).run()[0].tokens == 4
    with pytest.raises(UnknownNameError, match="did you mean 'temperature'"):
        run.complete("a", temprature=1)
    with pytest.raises(OptionError, match="top_p"):
        run.complete("a", top_p=7)


def test_generation_equals_a_stream_fed_by_hand(run: LanguageRun) -> None:
    control = gw.Control.off("o", layer=0, time=slice(12, 18))
    options = {"temperature": 0, "max_tokens": 12}
    (sample,) = run.generate("def read_", control=control, **options).run()
    stream = run.stream(control=control)
    logits, text = stream.push("def read_"), ""
    for _ in range(12):
        token = int(logits[-1, 0, : CHARS.unknown_id].argmax())
        text += CHARS.decode([token])
        logits = stream.push(token)
    assert sample.text == text
    with run.controlled(control):
        assert run.generate("def read_", **options).run()[0].text == text


def test_reading(run: LanguageRun) -> None:
    text = (TEXT * 12)[:530]  # more than two chunks
    reading = run.read(text, record=gw.Record("f", every=2))
    ids = torch.tensor(reading.ids)
    scores = run.model(ids.unsqueeze(1)).logits[:-1, 0].double().log_softmax(-1)
    expected = -scores.gather(1, ids[1:].unsqueeze(1)).squeeze(1).detach()
    assert torch.isnan(reading.nats[0])
    torch.testing.assert_close(reading.nats[1:], expected, rtol=1e-4, atol=1e-4)
    assert reading.record is not None
    assert reading.record["layers.1.f"].shape == (265, 1, 8)
    assert reading.record.times.tolist() == list(range(0, 530, 2))
    whole = run.model(ids.unsqueeze(1), record=gw.Record("f", every=2)).record
    assert_close(reading.record["layers.0.f"], whole["layers.0.f"].detach())
    assert reading.tokens[:4] == ["d", "e", "f", " "]
    assert reading.nats_per_token == pytest.approx(float(expected.mean()), abs=1e-4)
    assert run.read("d").nats.isnan().tolist() == [True]
    assert run.read("☃d").notes
    with pytest.raises(DataError, match="at least one token"):
        run.read("")


def test_evaluation(run: LanguageRun) -> None:
    reading, found = run.read(TEXT * 8), run.evaluate(TEXT * 8)
    assert found.nats == pytest.approx(float(reading.nats[1:].sum()), rel=1e-5)
    assert (found.tokens, found.characters) == (len(TEXT) * 8 - 1,) * 2
    assert run.evaluate(TEXT * 8, batch_size=4).nats_per_token == pytest.approx(
        found.nats_per_token, rel=0.05
    )
    with pytest.raises(DataError):
        run.evaluate("d")


@pytest.mark.parametrize("wrong", [-1, 1.5, True])
def test_beams_and_batches_that_are_no_counts(run: LanguageRun, wrong: Any) -> None:
    with pytest.raises(OptionError, match="beams: expected a whole number of 0 or more"):
        run.complete("a", beams=wrong)
    with pytest.raises(OptionError, match="batch_size: expected a whole number of 1 or more"):
        run.evaluate("abab", batch_size=wrong)
    with pytest.raises(OptionError, match="found 2 beams for 3"):
        run.complete("a", beams=2)


def test_controlled_acts_on_everything_inside(run: LanguageRun) -> None:
    plain = run.evaluate(TEXT).nats
    with run.controlled(gw.Control.off("o")):
        assert run.evaluate(TEXT).nats != pytest.approx(plain)
        assert float(run.read("ab", record=gw.Record("h")).record["layers.1.h"].abs().max()) == 0
    assert run.evaluate(TEXT).nats == plain


def test_what_a_run_cannot_do_is_said(run: LanguageRun) -> None:
    run.require("complete")
    with pytest.raises(OptionError, match="'lm' cannot classify: expected one of complete"):
        run.require("classify")
    with pytest.raises(AttributeError, match="'lm' has no 'classify'"):
        run.classify(1)
    assert copy.deepcopy(run).complete("a", seed=1) == run.complete("a", seed=1)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mapping": "mind reading"}, "expected a mapping of lm"),
        ({"mapping": None}, "expected a mapping"),
        ({"mapping": ["lm"]}, "expected a mapping"),
        ({"model": None}, "vocab_size"),
        ({"model": {"vocab_size": 5, "magic": 1}}, "magic"),
        ({"model": {"vocab_size": 1 << 30, "hidden_size": 1 << 20}}, "weights"),
        ({"model": {"vocab_size": 1 << 30, "softmax": "adaptive"}}, "weights"),
        ({"model": {"vocab_size": CHARS.vocab_size, "num_layers": 7}}, "weights"),
    ],
)
def test_folders_that_do_not_fit_together(
    change: dict[str, Any], message: str, tmp_path: Path
) -> None:
    config = LanguageModelConfig(vocab_size=CHARS.vocab_size, embedding_size=4, hidden_size=4)
    settings = {"mapping": "lm", "model": config.to_dict()} | change
    with RunFolder.create(tmp_path / "run") as folder:
        folder.save(
            1,
            config=settings,
            tensors=LanguageModel(config).state_dict(),
            tokenizer_json=CHARS.to_json(),
        )
    with pytest.raises(CheckpointError, match=message) as caught:
        gw.load(tmp_path / "run")
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("tokenizer", [None, "{", json.dumps({"kind": "char"}), "other"])
def test_a_tokenizer_that_is_not_the_models(tokenizer: str | None, tmp_path: Path) -> None:
    if tokenizer == "other":
        tokenizer = build_tokenizer("char", ["abc"]).to_json()
    config = LanguageModelConfig(vocab_size=CHARS.vocab_size, embedding_size=4, hidden_size=4)
    with RunFolder.create(tmp_path / "run") as folder:
        folder.save(
            1,
            config={"mapping": "lm", "model": config.to_dict()},
            tensors=LanguageModel(config).state_dict(),
            tokenizer_json=tokenizer,
        )
    with pytest.raises(CheckpointError, match="tokenizer"):
        gw.load(tmp_path / "run")


def test_the_default_options_of_completion_are_options() -> None:
    assert set(MAPPINGS) >= {"lm"}
    assert SamplingOptions(**COMPLETION).max_tokens == 64  # type: ignore[arg-type]


@pytest.mark.gpu
def test_everything_runs_on_a_gpu(tmp_path: Path) -> None:
    folder = save(tmp_path / "mine")
    found, on_cpu = gw.load(folder, device="cuda"), gw.load(folder)
    assert found.device.type == "cuda"
    options = {"max_tokens": 20, "n": 5, "seed": 1, "repetition_penalty": 1.2}
    options |= {"no_repeat_ngram": 3, "stop": ["\n"], "top_p": 0.9, "bias": {0: 0.5}}
    assert len(found.generate("def ", **options).run()) == 5
    assert found.complete("def ", beams=4, max_tokens=8, repetition_penalty=1.2)
    stream = found.stream(2, record=gw.Record("f"))
    stream.push([[1, 2], [3, 4]])
    stream.reset([1])
    stream.fork([1, 1]).push([[1, 2]])
    stream.from_bytes(stream.to_bytes())
    stream.push([1, 2])
    assert found.read(TEXT).nats_per_token == pytest.approx(on_cpu.read(TEXT).nats_per_token, 1e-3)
    assert found.evaluate(TEXT).nats == pytest.approx(on_cpu.evaluate(TEXT).nats, 1e-3)
