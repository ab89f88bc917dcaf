"""Stand-ins for the tiny models and tokenizers that diffusers' own tests take from the hub: nothing is downloaded."""

from __future__ import annotations

from typing import Any

import diffusers
import transformers
from tokenizers import Tokenizer, models, pre_tokenizers, processors

T5 = {"vocab_size": 1103, "d_model": 32, "d_ff": 37, "d_kv": 8, "num_layers": 2, "num_heads": 4}
CLIP_TEXT = {"vocab_size": 1000, "hidden_size": 32, "intermediate_size": 37, "num_attention_heads": 4}
CLIP_TEXT |= {"num_hidden_layers": 2, "projection_dim": 32, "max_position_embeddings": 77}
CONFIGS: dict[str, Any] = {
    "t5": lambda: transformers.T5Config(**T5),
    "umt5": lambda: transformers.UMT5Config(**T5),
    "clip": lambda: transformers.CLIPTextConfig(**CLIP_TEXT),
    "gemma": lambda: transformers.Gemma2Config(
        vocab_size=1000,
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        num_key_value_heads=1,
        head_dim=8,
    ),
    "bert": lambda: transformers.BertConfig(
        vocab_size=1124, hidden_size=32, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4
    ),
    "llama": lambda: transformers.LlamaConfig(
        vocab_size=1000, hidden_size=16, intermediate_size=37, num_hidden_layers=2, num_attention_heads=4
    ),
}
"""Configs of text models, by a part of their name on the hub."""


TOKENIZERS = ("t5", "clip", "gemma", "bert", "llama", "stable-diffusion", "qwen", "hunyaun", "glm")
"""Parts of names on the hub: the tokenizers that ``tokenizer`` stands in for."""


class AbsentError(RuntimeError):
    """A model on the hub for which there is no stand-in."""


def tokenizer(length: int = 77) -> Any:
    """A tokenizer with one token for each letter, in place of any kind."""
    special = ["<pad>", "</s>", "<s>", "<unk>"]
    vocabulary = {token: i for i, token in enumerate([*special, *map(chr, range(32, 127))])}
    letters = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    letters.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    letters.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    names = dict(zip(("pad_token", "eos_token", "bos_token", "unk_token"), special, strict=True))
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=letters, model_max_length=length, **names)
    fast.chat_template = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    return fast


def config(name: str) -> Any:
    """The tiny config of a model on the hub."""
    for part in ("umt5", "t5", "clip", "gemma", "bert", "llama"):
        if part in name.lower():
            return CONFIGS[part]()
    raise AbsentError(name)


def stand_in() -> None:
    """Patch ``from_pretrained`` of tokenizers and text models to return stand-ins, for the rest of the process."""

    def tokenized(_: Any, name: Any, *_args: Any, **__: Any) -> Any:
        if not any(part in str(name).lower() for part in TOKENIZERS):
            raise AbsentError(str(name))
        return tokenizer(77 if "clip" in str(name).lower() else 512)

    def built(cls: Any, name: Any, *_args: Any, **kwargs: Any) -> Any:
        settings = kwargs.get("config") or config(str(name))
        wanted = getattr(cls, "config_class", None)
        if wanted is not None and not isinstance(settings, wanted):
            raise AbsentError(str(name))
        return cls(settings)

    def missing(_: Any, name: Any, *_args: Any, **__: Any) -> Any:
        raise AbsentError(str(name))

    base = transformers.PreTrainedTokenizerBase
    for kind in (base, transformers.AutoTokenizer):
        kind.from_pretrained = classmethod(tokenized)
    transformers.PreTrainedModel.from_pretrained = classmethod(built)
    transformers.AutoConfig.from_pretrained = classmethod(lambda _, name, *_args, **__: config(str(name)))
    for kind in (transformers.AutoProcessor, transformers.ProcessorMixin, transformers.AutoImageProcessor):
        kind.from_pretrained = classmethod(missing)
    for kind in (diffusers.ModelMixin, diffusers.DiffusionPipeline):
        kind.from_pretrained = classmethod(missing)
