"""Networks in the exact layout of the real ones with the smallest numbers that work, as a base.yaml says them."""

from __future__ import annotations

from typing import Any

SYNTHESIZER: dict[str, Any] = {
    "ssl_dim": 8,
    "codebook_size": 10,
    "inter_channels": 8,
    "hidden_channels": 8,
    "filter_channels": 12,
    "n_layers": 2,
    "mrte_hidden": 8,
    "style_hidden": 8,
    "gin_channels": 8,
    "decoder": {
        "kind": "hifigan",
        "upsample_initial_channel": 32,
        "resblock_kernel_sizes": [3],
        "resblock_dilation_sizes": [[1, 3]],
    },
}
PRO: dict[str, Any] = {**SYNTHESIZER, "gin_channels": 12, "speaker_dim": 6}
TEXT2SEMANTIC: dict[str, Any] = {
    "phoneme_vocab_size": 20,
    "vocab_size": 12,
    "hidden_dim": 8,
    "heads": 2,
    "layers": 2,
}
DIT: dict[str, Any] = {
    "mel_channels": 6,
    "condition_channels": 8,
    "dim": 16,
    "depth": 2,
    "heads": 2,
    "head_dim": 8,
    "position_groups": 4,
}
