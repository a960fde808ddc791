"""The same networks on a GPU (section `gpu` of benchmarks/models.py); without one it measures nothing and says so."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import models_decoding, models_synthesizer
from benchmarks.report import Measurement, median_s
from models.loading.bases import load_base
from models.text2semantic.decoding import Decoder
from models.text2semantic.kv_cache import DenseMemory

UPSTREAM_RTF = 0.014  # published for an RTX 4090
NEW_TOKENS, SECONDS = models_decoding.NEW_TOKENS, 10
BASE = "gpt-sovits-v2proplus"


def measure(repeats: int) -> list[Measurement]:
    if not torch.cuda.is_available():
        print("no GPU: nothing measured")
        return []
    torch.cuda.reset_peak_memory_stats()
    found = [*decoding(repeats), waveform(repeats)]
    peak_mb = round(torch.cuda.max_memory_allocated() / 1e6)
    return [*found, Measurement("peak memory of the GPU", peak_mb, "MB")]


def decoding(repeats: int) -> list[Measurement]:
    network = models_decoding.build().cuda()
    found = []
    for kind in ("f32", "bf16"):
        decoder = Decoder(network, kind)
        for rows in (1, 8):
            steps = StaticSteps(decoder, rows)
            graph = steps.capture()
            asked = models_decoding.requests(rows)

            def sampled(decoder: Decoder = decoder, asked: list[models_decoding.Request] = asked) -> None:
                decoder.generate(asked, models_decoding.exactly(NEW_TOKENS))

            def replayed(steps: StaticSteps = steps, graph: torch.cuda.CUDAGraph = graph) -> None:
                steps.restart()
                for _ in range(NEW_TOKENS):
                    graph.replay()
                torch.cuda.synchronize()

            for name, work in (("sampled, prefill included", sampled), ("CUDA graph, best token", replayed)):
                median, detail = median_s(work, repeats)
                rate = round(rows * NEW_TOKENS / median, 1)
                told = f"decoding, batch {rows}, {kind}, {name}"
                found.append(Measurement(told, rate, "tokens/s", better="higher", detail=detail))
    return found


def waveform(repeats: int) -> Measurement:
    network = models_synthesizer.build(BASE).remove_weight_norm().cuda()
    given = {
        name: value if value is None else value.cuda()
        for name, value in models_synthesizer.inputs(network, SECONDS).items()
    }

    def work() -> None:
        models_synthesizer.speak(network, given)
        torch.cuda.synchronize()

    median, detail = median_s(work, repeats)
    rate_hz = load_base(BASE).sample_rate_hz
    name = f"{BASE}, {SECONDS} s at {rate_hz // 1000} kHz, float32"
    return Measurement(name, round(median / SECONDS, 5), "RTF", UPSTREAM_RTF, detail=detail)


class StaticSteps:
    """Decoding in which no shape and no address changes from token to token, as a CUDA graph needs it.

    Takes the best token each time, and attends over the full memory with the columns to come masked.
    """

    def __init__(self, decoder: Decoder, rows: int) -> None:
        self.decoder = decoder
        with torch.no_grad():
            batch, logits = decoder._prefill(models_decoding.requests(rows))
        memory = batch.memory
        assert isinstance(memory, DenseMemory)
        self.prefill = memory.columns
        capacity = self.prefill + NEW_TOKENS
        self.layers = [F.pad(x[:, :, :, : self.prefill], (0, 0, 0, NEW_TOKENS)) for x in memory.layers]
        self.first, self.start = logits.argmax(-1), batch.positions.clone()
        self.token, self.positions = self.first.clone(), self.start.clone()
        self.column = torch.empty(1, dtype=torch.long, device=decoder.device)
        self.bias = torch.empty(1, capacity, device=decoder.device)
        decoder.network.ar_audio_position.rows(0, capacity)
        self.restart()

    def restart(self) -> None:
        self.token.copy_(self.first)
        self.positions.copy_(self.start)
        self.column.fill_(self.prefill)
        self.bias.fill_(-torch.inf)[:, : self.prefill] = 0

    def capture(self) -> torch.cuda.CUDAGraph:
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):  # lazy set-up happens outside the graph
            for _ in range(3):
                self.step()
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            self.step()
        self.restart()
        return graph

    @torch.no_grad()
    def step(self) -> None:
        network = self.decoder.network
        position = network.ar_audio_position
        x = network.ar_audio_embedding.word_embeddings(self.token) + position.alpha * position.table[self.positions]
        self.bias.index_fill_(1, self.column, 0)
        for layer, memory in zip(self.decoder.layers, self.layers, strict=True):
            attended = self._attend(memory, layer.qkv(x))
            x = F.layer_norm(x + layer.out(attended), x.shape[-1:], *layer.norm1)
            x = F.layer_norm(x + layer.down(layer.up(x).relu_()), x.shape[-1:], *layer.norm2)
        self.token.copy_(self.decoder.predict(x).argmax(-1))
        self.column += 1
        self.positions += 1

    def _attend(self, memory: Tensor, qkv: Tensor) -> Tensor:
        split = qkv.unflatten(-1, (3, memory.shape[2], -1)).transpose(0, 1)  # (3, B, H, d)
        memory.index_copy_(3, self.column, split[1:, :, :, None])
        return F.scaled_dot_product_attention(split[0][:, :, None], memory[0], memory[1], self.bias).flatten(1)
