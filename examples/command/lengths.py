"""Writes the lengths of the messages in a .jsonl file of chats, in words: one file a role."""

import collections
import json
import os
import sys

chats, folder = sys.argv[1:]
lengths = collections.defaultdict(list)
with open(chats, encoding="utf-8") as lines:
    for line in lines:
        for message in json.loads(line)["messages"]:
            lengths[message["role"]].append(len(message["content"].split()))

os.mkdir(folder)
for role, words in lengths.items():
    with open(os.path.join(folder, f"{role}.txt"), "w", encoding="utf-8") as file:
        file.writelines(f"{count}\n" for count in words)

# Figures of the stage: `pipe runs show` has them.
with open(os.environ["PIPE_METRICS"], "w", encoding="utf-8") as metrics:
    json.dump({"roles": len(lengths), "messages": sum(map(len, lengths.values()))}, metrics)
