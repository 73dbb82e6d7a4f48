"""The Python side of the benchmark: what a user of `datasets` and `transformers` writes. See README.md beside this file.

usage: peer.py WAY ROWS.jsonl MODEL-FOLDER CACHE-FOLDER NUM_PROC
       peer.py check SAMPLES.parquet CACHE-FOLDER
"""

import glob
import json
import os
import sys

MAX_LENGTH = 384


def transformers_way(rows, model, batched):
    """`apply_chat_template`, then the tokenizer."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model)

    def one(row):
        text = tokenizer.apply_chat_template(row["messages"], tokenize=False)
        ids = tokenizer(text, add_special_tokens=False, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        return {"input_ids": ids, "labels": ids}

    def many(batch):
        texts = tokenizer.apply_chat_template(batch["messages"], tokenize=False)
        ids = tokenizer(texts, add_special_tokens=False, truncation=True, max_length=MAX_LENGTH)["input_ids"]
        return {"input_ids": ids, "labels": ids}

    return many if batched else one


class Raw:
    """Jinja2 and `tokenizers` without what stands around them. Every process of `map` compiles its own template."""

    def __init__(self, model):
        self.model = model
        self.parts = None

    def __getstate__(self):
        return {"model": self.model, "parts": None}

    def load(self):
        from jinja2.ext import loopcontrols
        from jinja2.sandbox import ImmutableSandboxedEnvironment
        from tokenizers import Tokenizer

        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
        with open(os.path.join(self.model, "tokenizer_config.json"), encoding="utf-8") as file:
            template = environment.from_string(json.load(file)["chat_template"])
        tokenizer = Tokenizer.from_file(os.path.join(self.model, "tokenizer.json"))
        tokenizer.enable_truncation(MAX_LENGTH)
        self.parts = template, tokenizer

    def __call__(self, batch):
        if self.parts is None:
            self.load()
        template, tokenizer = self.parts
        texts = [template.render(messages=messages, tools=None) for messages in batch["messages"]]
        ids = [encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)]
        return {"input_ids": ids, "labels": ids}


def run(way, rows, model, cache, num_proc):
    """Rows to ids in the cache of `datasets`."""
    from datasets import disable_progress_bars, load_dataset

    disable_progress_bars()
    data = load_dataset("json", data_files=rows, split="train", cache_dir=os.path.join(cache, "rows"))
    batched = way != "plain"
    function = Raw(model) if way == "raw" else transformers_way(rows, model, batched)
    tokens = data.map(
        function, batched=batched, num_proc=num_proc if num_proc > 1 else None, remove_columns=data.column_names,
        cache_file_name=os.path.join(cache, "tokens.arrow"),
    )
    assert tokens.num_rows == data.num_rows


def check(samples, cache):
    """Whether both wrote the same ids."""
    import pyarrow.parquet as parquet
    from datasets import Dataset, concatenate_datasets

    parts = sorted(glob.glob(os.path.join(cache, "tokens*.arrow")))
    theirs = concatenate_datasets([Dataset.from_file(part) for part in parts]).data["input_ids"]
    ours = parquet.read_table(samples, columns=["input_ids"])["input_ids"]
    rows = len(ours)
    assert rows == len(theirs), f"{rows} rows and {len(theirs)}"
    tokens = 0
    for start in range(0, rows, 4096):
        a, b = ours.slice(start, 4096).to_pylist(), theirs.slice(start, 4096).to_pylist()
        for row, (own, other) in enumerate(zip(a, b)):
            assert own == other, f"row {start + row} differs: {own[:20]} and {other[:20]}"
            tokens += len(own)
    print(json.dumps({"rows": rows, "tokens": tokens}))


if __name__ == "__main__":
    if sys.argv[1] == "check":
        check(*sys.argv[2:])
    else:
        run(*sys.argv[1:5], int(sys.argv[5]))
