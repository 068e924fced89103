"""One whole training step of a language model: embedding, layers, decoder, cost, clipping, update.

Beside the same network from torch.nn, with the same weights and torch's own optimizer for both.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from gatewise.bench.contestants import Contestant
from gatewise.bench.sizes import Size
from gatewise.mappings import LanguageModel, LanguageModelConfig

BASE = "torch"
_RATE, _CLIP = 1e-3, 0.25  # a rate so low that the weights stay what they are


class Network(nn.Module):
    """Embedding, nn.LSTM, nn.Linear.

    Args:
        size: T, B, H, L; the embedding is as wide as the layers.
        vocabulary: number of tokens.
    """

    def __init__(self, size: Size, vocabulary: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, size.hidden)
        self.lstm = nn.LSTM(size.hidden, size.hidden, size.layers)
        self.decoder = nn.Linear(size.hidden, vocabulary)

    def forward(self, tokens: Tensor) -> Tensor:
        """Scores (T, B, V)."""
        h, _ = self.lstm(self.embedding(tokens))
        scores: Tensor = self.decoder(h)
        return scores

    def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
        """Mean cross entropy."""
        return nn.functional.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


@dataclass(frozen=True, eq=False)
class Task:
    """A batch of tokens and a network whose weights everybody has."""

    size: Size
    vocabulary: int
    theirs: Network
    tokens: Tensor
    targets: Tensor


@dataclass(frozen=True, eq=False)
class Entry:
    """Somebody who is ready.

    Args:
        loss: the cost of a batch of tokens and targets.
        weights: in torch's order.
        optimizer: of these weights.
        ran: filled with the name of the engine.
    """

    loss: Callable[[Tensor, Tensor], Tensor]
    weights: list[nn.Parameter]
    optimizer: torch.optim.Optimizer
    ran: list[str] = field(default_factory=list)


def make_task(size: Size, vocabulary: int, *, seed: int = 0) -> Task:
    """A task with weights and tokens drawn from a seed."""
    generator = torch.Generator().manual_seed(seed)
    theirs = Network(size, vocabulary)
    with torch.no_grad():
        for weight in theirs.parameters():
            weight.uniform_(-(size.hidden**-0.5), size.hidden**-0.5, generator=generator)
    shape = (2, size.steps, size.batch)
    tokens, targets = torch.randint(vocabulary, shape, generator=generator).unbind()
    return Task(size, vocabulary, theirs, tokens, targets)


def operations(task: Task) -> float:
    """Multiplications and additions of the matrix products, forward and backward."""
    size = task.size
    return size.operations(4) + 3.0 * 2 * size.tokens * size.hidden * task.vocabulary


def truth(task: Task) -> list[Tensor]:
    """The loss and the gradients, by torch in float64."""
    exact = Network(task.size, task.vocabulary).double()
    exact.load_state_dict(task.theirs.state_dict())
    return results(_entry(exact, exact.loss), task, "float64")


def results(entry: Entry, task: Task, dtype: str) -> list[Tensor]:
    """The loss and the gradient of every weight; nothing is updated."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = entry.loss(task.tokens, task.targets)
    return [loss.detach(), *torch.autograd.grad(loss, entry.weights)]


def step(entry: Entry, task: Task, dtype: str) -> None:
    """One whole step."""
    with torch.autocast("cpu", torch.bfloat16, enabled=dtype == "bfloat16"):
        loss = entry.loss(task.tokens, task.targets)
    loss.backward()  # type: ignore[no-untyped-call]
    nn.utils.clip_grad_norm_(entry.weights, _CLIP)
    entry.optimizer.step()
    entry.optimizer.zero_grad()


def _entry(
    net: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], ran: list[str] | None = None
) -> Entry:
    weights = list(net.parameters())
    return Entry(loss, weights, torch.optim.SGD(weights, lr=_RATE), [] if ran is None else ran)


def from_torch(task: Task) -> Entry:
    """The network of torch.nn."""
    own = Network(task.size, task.vocabulary)
    own.load_state_dict(task.theirs.state_dict())
    return _entry(own, own.loss)


def model_of(theirs: Network) -> LanguageModel:
    """Our language model with the weights of a network."""
    lstm = theirs.lstm
    model = LanguageModel(
        LanguageModelConfig(
            vocab_size=theirs.embedding.num_embeddings,
            embedding_size=theirs.embedding.embedding_dim,
            hidden_size=lstm.hidden_size,
            num_layers=lstm.num_layers,
        )
    )
    assert model.decoder is not None
    with torch.no_grad():
        model.embedding.weight.copy_(theirs.embedding.weight)
    model.decoder.load_state_dict(theirs.decoder.state_dict())
    model.stack.load_state_dict(lstm.state_dict())
    return model


def ours(task: Task) -> Entry:
    """gatewise's model and its own cost."""
    model = model_of(task.theirs)
    ran: list[str] = []

    def loss(tokens: Tensor, targets: Tensor) -> Tensor:
        out = model.loss(tokens, targets)
        ran[:] = [out.engine]
        return out.loss

    return _entry(model, loss, ran)


CONTESTANTS: Mapping[str, Contestant[Task, Entry]] = {
    "torch": Contestant("torch.nn", "float32", from_torch),
    "torch-bf16": Contestant("torch.nn, autocast", "bfloat16", from_torch),
    "gatewise": Contestant("gatewise", "float32", ours, ours=True),
    "gatewise-bf16": Contestant("gatewise, autocast", "bfloat16", ours, ours=True),
}
"""Name -> contestant."""
