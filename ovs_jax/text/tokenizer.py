"""CLIP's tokenizer: text to ids, equal to OpenAI's.

Two backends give the same ids. `instant-clip-tokenizer` is fast and contains the
vocabulary, but has wheels for Python 3.11 and 3.12 only; `bpe.py` runs anywhere and
needs OpenAI's file of merges. `backend='auto'` takes the first that is installed.
"""

import functools
import html
import importlib.util
import re
from collections.abc import Callable, Sequence

import ftfy
import numpy as np
from jaxtyping import Int

from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup

START_ID = 49406
END_ID = 49407
CONTEXT_LENGTH = 77
VOCABULARY_SIZE = 49408

Encode = Callable[[str], list[int]]


def clean(text: str, *, lower: bool = True) -> str:
  """Repairs, unescapes, strips, collapses white space and lower-cases a text.

  The steps and their order are OpenAI's. No lone surrogate is left: they become
  U+FFFD.
  """
  text = html.unescape(html.unescape(ftfy.fix_text(text)))
  text = re.sub(r'\s+', ' ', text.strip()).strip()
  return text.lower() if lower else text


def tokenize(
  texts: Sequence[str],
  *,
  context_length: int = CONTEXT_LENGTH,
  truncate: bool = False,
  backend: str = 'auto',
) -> Int[np.ndarray, 'k t']:
  """Tokenizes texts into rows of start, ids, end and zeros.

  As in OpenAI's tokenizer, a literal '<|startoftext|>' or '<|endoftext|>' in a text
  becomes the special token, and the padding id 0 is also that of '!'.

  Args:
    texts: any strings; may be empty.
    context_length: length of a row, start and end included; at least 2.
    truncate: cut long texts to the first `context_length - 1` ids and the end token
      instead of raising.
    backend: 'instant' (instant-clip-tokenizer), 'bpe' (our own), or 'auto', the first
      that is installed.

  Returns:
    int32 ids in [0, 49407]; 49406 starts a row, 49407 ends the text.

  Raises:
    ValueError: `texts` is one string, a text is too long and `truncate` is false,
      or an argument is out of range.
    FileNotFoundError: the 'bpe' backend finds no file of OpenAI's merges.
  """
  if isinstance(texts, str):
    raise UserError(
      f'texts must be a sequence of strings, got the string {_shorten(texts)!r}. '
      'Put it in a list.'
    )
  if context_length < 2:
    raise UserError(
      f'context_length is {context_length}; it must be at least 2, to hold the start '
      f'and end tokens. CLIP uses {CONTEXT_LENGTH}.'
    )
  encode = load_backend(backend)
  tokens = np.zeros((len(texts), context_length), np.int32)
  for row, text in zip(tokens, texts, strict=True):
    ids = [START_ID, *encode(clean(text)), END_ID]
    if len(ids) > context_length:
      if not truncate:
        raise UserError(
          f'{_shorten(text)!r} has {len(ids)} tokens, start and end included; the '
          f'limit is {context_length}. Shorten it (in Python, truncate=True cuts it).'
        )
      ids = [*ids[: context_length - 1], END_ID]
    row[: len(ids)] = ids
  return tokens


def count_tokens(text: str, *, backend: str = 'auto') -> int:
  """Returns the number of tokens of a text, start and end included."""
  return len(load_backend(backend)(clean(text))) + 2


def load_backend(name: str = 'auto') -> Encode:
  """Returns the function from cleaned text to ids without start and end.

  Raises:
    ValueError: unknown name, or 'instant' where it is not installed.
    FileNotFoundError: 'bpe' where no vocabulary is found.
  """
  installed = importlib.util.find_spec('instant_clip_tokenizer') is not None
  if name == 'auto':
    name = 'instant' if installed else 'bpe'
  if name == 'instant' and not installed:
    raise UserError(
      "the tokenizer backend 'instant' is not installed. On Python 3.11 or 3.12 "
      "`pip install instant-clip-tokenizer`; elsewhere use 'bpe'."
    )
  return lookup(_BACKENDS, name, 'tokenizer backend')()


@functools.cache
def _load_bpe() -> Encode:
  from ovs_jax.text import bpe

  return bpe.default_encoder().encode


@functools.cache
def _load_instant() -> Encode:
  import instant_clip_tokenizer

  encode = instant_clip_tokenizer.Tokenizer().encode
  return lambda text: _encode_exactly(encode, text)


_BACKENDS: dict[str, Callable[[], Encode]] = {
  'instant': _load_instant,
  'bpe': _load_bpe,
}

# Pieces that OpenAI's pattern finds and instant-clip-tokenizer does not, with their
# ids. The third is "'s" with the long s U+017F: apostrophe, C5, final BF, unmerged.
_PIECES = {
  '<|startoftext|>': [START_ID],
  '<|endoftext|>': [END_ID],
  "'\u017f": [6, 129, 379],
}


def _encode_exactly(encode: Encode, text: str) -> list[int]:
  """Encodes as OpenAI's tokenizer does, where instant-clip-tokenizer differs."""
  # The combining iota matches no part of OpenAI's pattern: it only separates.
  text = text.replace('\u0345', ' ')
  if not any(piece in text for piece in _PIECES):
    return encode(text)
  from ovs_jax.text import bpe

  ids, begin = [], 0
  for start, end, piece in bpe.split(text):
    if piece in _PIECES:
      ids += encode(text[begin:start]) + _PIECES[piece]
      begin = end
  return ids + encode(text[begin:])


def _shorten(text: str, limit: int = 60) -> str:
  return text if len(text) <= limit else f'{text[: limit - 3]}...'
