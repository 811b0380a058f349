"""A CLIP tokenizer in which every word of every caption is one token, and any other text falls into pieces."""

from __future__ import annotations

import json

from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import CLIPTokenizer

from publisher_emoji.captions import all_captions
from publisher_emoji.concepts import Vocabulary
from publisher_emoji.training.config import TokenizerConfig

START, END = "<|startoftext|>", "<|endoftext|>"


def build_tokenizer(words: Vocabulary, config: TokenizerConfig) -> CLIPTokenizer:
    """Learn merges from all captions (also of a concept that a retraining leaves out: the tokenizer is kept).

    The vocabulary is laid out as CLIP's: 256 bytes, 256 bytes that end a word, the merges, start and end of text.
    """
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    symbols = [*alphabet, *(symbol + "</w>" for symbol in alphabet)]
    learner = Tokenizer(models.BPE(end_of_word_suffix="</w>"))
    learner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Whitespace(), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size - 2,
        end_of_word_suffix="</w>",
        special_tokens=symbols,  # fixes the numbers of all symbols; without it ties break at random from run to run
        show_progress=False,
    )
    learner.train_from_iterator(all_captions(words), trainer)
    model = json.loads(learner.to_str())["model"]
    vocabulary = model["vocab"] | {START: len(model["vocab"]), END: len(model["vocab"]) + 1}
    merges = [tuple(pair) for pair in model["merges"]]
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=config.max_length)
