"""CLIP's tokenizer as one JSON file: merges, and what becomes of odd characters."""

import gzip
from typing import Any

import ftfy
import ftfy.chardata

from ovs_jax.text import bpe
from ovs_jax.text.tokenizer import END_ID, START_ID

# Ligatures, wide letters, quotes, ends of lines and control characters.
_ODD = (
  *ftfy.chardata.LIGATURES,
  *ftfy.chardata.WIDTH_MAP,
  *ftfy.chardata.CONTROL_CHARS,
  *range(0x80, 0xA0),
  *(0x2BC, *range(0x2018, 0x2020), 0x2028, 0x2029),
)


def tokenizer_table(length: int) -> dict[str, Any]:
  """Returns all that OpenAI's tokenizer consists of.

  Args:
    length: the most tokens of a text, start and end included.

  Returns:
    `merges` by rank, `start` and `end` ids, `length`, and `characters`: what ftfy makes
    of single ones, by code point.

  Raises:
    FileNotFoundError: the list of merges is nowhere (`text.bpe.find_vocabulary`).
  """
  with gzip.open(bpe.find_vocabulary(), 'rt', encoding='utf-8') as file:
    lines = file.read().split('\n')
  return {
    'merges': [line for line in lines[1 : 1 + bpe.NUM_MERGES] if line],
    'start': START_ID,
    'end': END_ID,
    'length': length,
    'characters': {str(code): ftfy.fix_text(chr(code)) for code in sorted(set(_ODD))},
  }
