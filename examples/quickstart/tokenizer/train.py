"""Trains the quickstart's tokenizer on the quickstart's data: a byte-level BPE of 4,096 entries that splits text as the
tokenizers of Qwen2 and Qwen3 do. Not needed to run anything; kept to say where tokenizer.json comes from.

usage: pip install tokenizers==0.23.3 && python train.py
"""

import json
import pathlib

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors, trainers

VOCABULARY = 4096
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
# The pattern of Qwen2: contractions, letters with one leading sign, single digits, signs, line ends, spaces.
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)

here = pathlib.Path(__file__).resolve().parent


def texts():
    for path in sorted((here.parent / "data").glob("*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines():
            for message in json.loads(line)["messages"]:
                yield f"{message['role']}\n{message['content']}"


byte_level = dict(add_prefix_space=False, trim_offsets=False, use_regex=False)
tokenizer = Tokenizer(models.BPE())
tokenizer.normalizer = normalizers.NFC()
tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
    pre_tokenizers.Split(Regex(PATTERN), behavior="isolated"),
    pre_tokenizers.ByteLevel(add_prefix_space=False, trim_offsets=False, use_regex=False),
])
tokenizer.decoder = decoders.ByteLevel(**byte_level)
tokenizer.post_processor = processors.ByteLevel(**byte_level)
trainer = trainers.BpeTrainer(
    vocab_size=VOCABULARY - len(SPECIAL),
    initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    show_progress=False,
)
tokenizer.train_from_iterator(texts(), trainer)
# Behind the merges, as in Qwen's own vocabularies.
tokenizer.add_special_tokens(SPECIAL)
assert tokenizer.get_vocab_size() == VOCABULARY
tokenizer.save(str(here / "tokenizer.json"))
