"""The whole kernel: several steps through all layers, decoder and draw, on all threads.

For each step: the token's row or the input is converted to an activation row; each layer's panels are shared by
the threads, who meet at a barrier, and convert the new h for the next layer and the next step; the decoder's
panels likewise; then each row of scores is drawn from by one thread. Activation rows are each thread's own, so
that nobody waits for them. Knows the design and the order of things; no numbers.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache

from llvmlite import ir

from gatewise.engine.cpu import threads
from gatewise.engine.cpu.compiling import Written, load
from gatewise.engine.cpu.kinds import I8, I64
from gatewise.engine.cpu.step.activations import conversion
from gatewise.engine.cpu.step.formats import FORMATS, LINE, Format
from gatewise.engine.cpu.step.layer import LayerKind, emit_layer
from gatewise.engine.cpu.step.linear import emit_linear
from gatewise.engine.cpu.step.panels import PLACE, Routine
from gatewise.engine.cpu.step.sampling import emit_sampler
from gatewise.engine.cpu.step.tiles import Target
from gatewise.engine.cpu.target import current

TABLE, ROWS, REALS = "table", "rows", "reals"
"""What a step reads: a table of pre-activations by token, activation rows by token, or real vectors."""


@dataclass(frozen=True)
class Design:
    """What one kernel is made for; everything else is a number given at the call.

    Args:
        form: name of the weights' format.
        target: the processor.
        layers: each layer's function.
        entry: what a step reads.
        decoder: activation of the scores, or None: there are none.
        projected: a projection stands before the decoder.
    """

    form: str
    target: Target
    layers: tuple[LayerKind, ...]
    entry: str
    decoder: str | None = None
    projected: bool = False

    @property
    def recipe(self) -> str:
        """The same text for the same kernel, in every process."""
        layers = [f"{k.variant} {k.table} {k.law.exact}" for k in self.layers]
        rest = (self.form, self.target, self.entry, self.decoder, self.projected)
        return "\n".join([f"step {rest}", *layers])


@dataclass(frozen=True)
class Block:
    """The arguments of one function, in order."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Made:
    """A compiled kernel.

    Args:
        address: of the function.
        arguments: part ("main", "layer0", "project", "decode", "sample") -> its arguments.
    """

    address: int
    arguments: dict[str, tuple[str, ...]]


@cache
def host() -> Target:
    """This processor."""
    here = current()
    width = here.vector_bytes
    wide = width == 64 or here.has("avx512vl")
    return Target(
        lanes=width // 4,
        dot8=width > 16
        and ((here.has("avx512vnni") and wide) or (here.has("avxvnni") and width == 32)),
        dot16=width > 16 and here.has("avx512bf16") and wide,
        x86=here.architecture == "x86_64",
    )


@cache
def make(design: Design) -> Made:
    """The kernel of a design, compiled at most once."""

    def written() -> Written:
        module = ir.Module()
        parts = _Kernel(module, design).emit()
        return Written(module, ("step",), {name: r.order() for name, r in parts.items()})

    threads.publish()
    found = load(design.recipe, written)
    return Made(found.addresses[0], found.arguments)


class _Kernel:
    """The main function under construction."""

    def __init__(self, module: ir.Module, design: Design) -> None:
        self.design = design
        self.form: Format = FORMATS[design.form]
        self.target = design.target
        self.parts: dict[str, Routine] = {}
        kinds: dict[LayerKind, Routine] = {}
        self.layers = []
        for number, kind in enumerate(design.layers):
            if kind not in kinds:
                kinds[kind] = emit_layer(module, f"layer{number}", kind, self.form, self.target)
            self.layers.append(kinds[kind])
            self.parts[f"layer{number}"] = kinds[kind]
        if design.projected:
            self.parts["project"] = emit_linear(
                module, "project", self.form, self.target, "linear", 0.0
            )
        if design.decoder is not None:
            self.parts["decode"] = emit_linear(
                module, "decode", self.form, self.target, design.decoder, float("-inf")
            )
            self.parts["sample"] = emit_sampler(module, self.target)
        self.convert = conversion(module, self.form, self.target)
        self.p = Routine(module, "step", self.target)
        self.b = self.p.builder

    def emit(self) -> dict[str, Routine]:
        p, b = self.p, self.b
        self.here = b.sext(b.call(p.external("omp_get_thread_num", ir.IntType(32)), []), I64)
        self.threads = b.sext(b.call(p.external("omp_get_num_threads", ir.IntType(32)), []), I64)
        with b.goto_entry_block():
            self.met = b.alloca(I64)
        b.store(I64(0), self.met)
        offset = b.mul(self.here, p.number("own_bytes"))
        self.own = b.gep(p.pointer("work", I8), [offset])
        for number in range(len(self.layers)):
            self._convert_h(number)
        self._meet()  # nobody changes an h before all have converted it
        with p.loop(I64(0), p.number("S"), "step") as s:
            self.s = s
            self._step()
        p.finish()
        return {"main": p, **self.parts}

    def _step(self) -> None:
        p, b, design = self.p, self.b, self.design
        tokens = None
        if design.entry != REALS:
            tokens = b.gep(p.pointer("tokens", I64), [b.mul(self.s, p.number("B"))])
        self._enter(tokens)
        xs = self._rows("x")
        for number, routine in enumerate(self.layers):
            hs = self._rows(f"h{number}")
            with self._shared(p.number(f"panels:{number}")) as (first, end):
                ids = tokens if tokens is not None else ir.Constant(I64.as_pointer(), None)
                args = [p.pointer(f"layer{number}", I64), self.s, first, end, xs, hs, ids]
                b.call(routine.function, args)
            self._convert_h(number)
            xs = hs
        if design.decoder is not None:
            self._after(xs, tokens)
        if design.decoder is None and len(self.layers) == 1:
            self._meet()  # or a thread could change the h that another still converts

    # --- pieces ----------------------------------------------------------------------------------

    def _rows(self, name: str) -> ir.Value:
        """Where this thread's activation rows of that name begin."""
        return self.b.gep(self.own, [self.p.number(f"at:{name}")])

    def _meet(self) -> None:
        b = self.b
        count = b.add(b.load(self.met), self.threads)
        b.store(count, self.met)
        self.p.barrier(count)

    @contextmanager
    def _shared(self, panels: ir.Value) -> Iterator[tuple[ir.Value, ir.Value]]:
        """This thread's panels, always the same ones; then all threads meet."""
        b = self.b
        first = b.sdiv(b.mul(panels, self.here), self.threads)
        end = b.sdiv(b.mul(panels, b.add(self.here, I64(1))), self.threads)
        yield first, end
        self._meet()

    def _convert(self, source: ir.Value, row: ir.Value, name: str) -> None:
        """B float32 vectors, `row` numbers apart, as activation rows."""
        p, b = self.p, self.b
        with p.loop(I64(0), p.number("B"), "convert") as r:
            at = b.gep(self._rows(name), [b.mul(r, p.number(f"bytes:{name}"))])
            vector = b.gep(source, [b.mul(r, row)])
            k, depth, header = (p.number(f"{n}:{name}") for n in ("k", "depth", "header"))
            b.call(self.convert, [vector, k, depth, header, at])

    def _convert_h(self, number: int) -> None:
        self._convert(self.p.pointer(f"h:{number}"), self.p.number("row"), f"h{number}")

    def _enter(self, tokens: ir.Value | None) -> None:
        """The first layer's activation rows."""
        p, b, entry = self.p, self.b, self.design.entry
        if entry == REALS:
            size = b.mul(p.number("B"), p.number("k:x"))
            self._convert(b.gep(p.pointer("x"), [b.mul(self.s, size)]), p.number("k:x"), "x")
        elif entry == ROWS:
            assert tokens is not None
            with p.loop(I64(0), p.number("B"), "look up") as r:
                size = p.number("bytes:x")
                token = b.load(b.gep(tokens, [r]))
                source = b.gep(p.pointer("embedding", I8), [b.mul(token, size)])
                target = b.gep(self._rows("x"), [b.mul(r, size)])
                line = ir.ArrayType(I64, LINE // 8).as_pointer()
                with p.loop(I64(0), b.udiv(size, I64(LINE)), "line") as i:
                    at = [b.mul(i, I64(LINE))]
                    value = b.load(b.bitcast(b.gep(source, at), line), align=LINE)
                    b.store(value, b.bitcast(b.gep(target, at), line), align=LINE)

    def _after(self, xs: ir.Value, tokens: ir.Value | None) -> None:
        """Scores and the next tokens, where this step has them."""
        p, b = self.p, self.b
        following = b.add(self.s, I64(1))
        late = b.icmp_signed(">=", following, p.number("given"))
        every = b.icmp_signed("!=", p.number("every"), I64(0))
        with b.if_else(b.or_(late, every)) as (then, otherwise):
            with then:
                self._decode(xs)
                assert tokens is not None
                drawn = b.and_(late, b.icmp_signed("!=", p.number("draw"), I64(0)))
                with b.if_then(drawn):
                    self._draw(b.gep(tokens, [p.number("B")]))
            with otherwise:
                if len(self.layers) == 1:
                    self._meet()

    def _decode(self, xs: ir.Value) -> None:
        p, b = self.p, self.b
        if self.design.projected:
            with self._shared(p.number("panels:project")) as (first, end):
                out = p.pointer("projected")
                args = [p.pointer("project", I64), first, end, xs, out]
                b.call(self.parts["project"].function, args)
            self._convert(p.pointer("projected"), p.number("row:project"), "y")
            xs = self._rows("y")
        scores = b.gep(p.pointer("logits"), [b.mul(self.s, p.number("logits_t"))])
        with self._shared(p.number("panels:decode")) as (first, end):
            args = [p.pointer("decode", I64), first, end, xs, scores]
            b.call(self.parts["decode"].function, args)

    def _draw(self, tokens: ir.Value) -> None:
        """Each row by one thread."""
        p, b = self.p, self.b
        scores = b.gep(p.pointer("logits"), [b.mul(self.s, p.number("logits_t"))])
        step = b.mul(self.s, p.number("B"))
        logprobs = b.gep(p.pointer("logprobs"), [step])
        with p.loop(I64(0), p.number("B"), "row") as r:
            mine = b.icmp_signed("==", b.srem(r, self.threads), self.here)
            with b.if_then(mine):
                args = [p.pointer("sample", I64), r, tokens, logprobs, scores, self.s]
                b.call(self.parts["sample"].function, args)
        self._meet()


__all__ = ["PLACE", "REALS", "ROWS", "TABLE", "Design", "Made", "host", "make"]
