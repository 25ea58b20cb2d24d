"""Rebuild the bundled corpus and its tokenizer: `apt-get install bible-kjv`, then run this.

Both outputs are deterministic: a second run gives the same bytes. They are committed, so nobody needs to run
this to train; it documents where the data comes from. Where it writes can be changed with `--output` (a data
folder).
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

DATA_DIR = Path(__file__).resolve().parents[1] / "src" / "aios" / "data"

VERSES = "gen1:1-judg21:25"
"""Genesis to the end of Judges, the book boundary nearest to one million bytes."""

VOCAB_SIZE = 2048
END_OF_TEXT = "<|endoftext|>"
PAD = "<|pad|>"

_LABEL = re.compile(r"^[0-9]?[A-Za-z]+[0-9]+:[0-9]+ ")


def strip_labels(printed: str) -> str:
    """Drop the leading `Ge1:1 ` from every line of `bible` output; one verse per line stays.

    Raises ValueError at a line without a label, because then the output is not what we think it is.
    """
    verses = []
    for number, line in enumerate(printed.splitlines(), start=1):
        label = _LABEL.match(line)
        if label is None:
            raise ValueError(f"line {number} of the output of `bible` has no verse label: {line[:60]!r}")
        verses.append(line[label.end() :].strip())
    return "\n".join(verses) + "\n"


def print_bible(verses: str = VERSES) -> str:
    """Run Debian's `bible`: `-f` gives one labelled verse per line, `-p` says where its data is."""
    command = ["bible", "-f", "-p", "/usr/lib", verses]
    return subprocess.run(command, check=True, capture_output=True, encoding="ascii").stdout


def train_tokenizer(text: str) -> Tokenizer:
    """Byte-level BPE (Sennrich et al. 2016): all 256 bytes are tokens, so nothing is unknown."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[END_OF_TEXT, PAD],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text.splitlines(keepends=True), trainer)
    return tokenizer


def write_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write the two files `AutoTokenizer.from_pretrained` needs.

    The config is written by hand, not by `save_pretrained`, so that its bytes do not depend on the version of
    transformers, and so that versions 4 and 5 both know the class.
    """
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": END_OF_TEXT,
        "eos_token": END_OF_TEXT,
        "pad_token": PAD,
        "clean_up_tokenization_spaces": False,
        "model_max_length": int(1e30),
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(tokenizer.to_str(pretty=True) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")


def main() -> int:
    """Write `corpus/kjv.txt` and `tokenizer/` below the data folder; exit code 2 when `bible` is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--output", type=Path, default=DATA_DIR, help="data folder to write to")
    output: Path = parser.parse_args().output
    if shutil.which("bible") is None:
        print(
            "The program `bible` is not installed; install it with `apt-get install bible-kjv`.",
            file=sys.stderr,
        )
        return 2
    text = strip_labels(print_bible())
    corpus = output / "corpus" / "kjv.txt"
    corpus.parent.mkdir(parents=True, exist_ok=True)
    corpus.write_bytes(text.encode("ascii"))
    tokenizer = train_tokenizer(text)
    write_tokenizer(tokenizer, output / "tokenizer")
    tokens = len(tokenizer.encode(text).ids)
    print(f"{corpus}: {len(text)} bytes, {tokens} tokens of a vocabulary of {tokenizer.get_vocab_size()}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
