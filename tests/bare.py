"""As much of a loaded run as `gatewise.insight` needs: a small model of the letters a to z, not trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from gatewise.mappings import LanguageModel, LanguageModelConfig


class BareRun:
    """Two layers of six units, in float64, unless options of the model say else; it is its own tokenizer."""

    def __init__(self, **options: Any) -> None:
        torch.manual_seed(3)
        chosen = {"hidden_size": 6, "embedding_size": 4, "num_layers": 2} | options
        config = LanguageModelConfig(vocab_size=26, **chosen)
        self.model = LanguageModel(config).double().eval()
        self.tokenizer = self
        self.tokens = [chr(97 + k) for k in range(26)]

    def encode(self, text: str) -> Any:
        """A number a letter."""
        return np.array([ord(char) - 97 for char in text])
