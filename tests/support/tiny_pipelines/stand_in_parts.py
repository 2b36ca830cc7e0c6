"""Stand-ins of parts of a pipeline that are no models of diffusers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tests.support.tiny_pipelines.call_arguments import Arguments


class Config:
    """Settings of a part that a pipeline reads and never runs."""

    def __init__(self, **settings: Any) -> None:
        self.settings = settings

    def __getattr__(self, name: str) -> Any:
        if name == "settings" or name not in self.settings:
            raise AttributeError(name)
        return self.settings[name]

    def get(self, name: str, default: Any = None) -> Any:
        return self.settings.get(name, default)


class Part(nn.Module):
    """A part of a pipeline that is no model of diffusers."""

    device = torch.device("cpu")
    dtype = torch.float32


class Vae(Part):
    """A VAE with the attributes and settings that a pipeline reads; it never runs."""

    def __init__(self, attributes: Arguments | None = None, **config: Any) -> None:
        super().__init__()
        self.config = Config(**config)
        for name, value in (attributes or {}).items():
            setattr(self, name, value)


class SafetyChecker(Part):
    """A safety checker that accepts everything."""

    def to(self, *_args: Any, **_kwargs: Any) -> SafetyChecker:
        return self

    def check_text_safety(self, text: str) -> bool:
        return True

    def check_video_safety(self, video: Any) -> Any:
        return video


class Tokenizer(Part):
    """A tokenizer that makes one token of each character."""

    eos_token_id = 1

    def convert_tokens_to_ids(self, _token: str) -> int:
        return 2

    def apply_chat_template(self, messages: list[dict[str, str]], **_others: Any) -> Config:
        return Config(input_ids=[ord(letter) % 32 for letter in messages[-1]["content"]])


class Connectors(Part):
    """Connectors that give the text unchanged to the video and to the audio."""

    def forward(self, text: Tensor, mask: Tensor, **_others: Any) -> tuple[Tensor, Tensor, Tensor]:
        return text, text, mask
