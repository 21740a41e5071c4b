"""Tokenizers of a tokenizer.json: what CLIPs other than OpenAI's were trained with.

The file comes with the checkpoint and is kept in it (`core.attached`). The package
`tokenizers` reads it; what surrounds the ids, and how texts are cleaned before, stands
in the checkpoint's configuration and not in the file.
"""

import functools
import re
import string
from collections.abc import Callable, Sequence

import numpy as np
from jaxtyping import Int

from ovs_jax.core.attached import content
from ovs_jax.core.errors import UserError
from ovs_jax.core.lookup import lookup
from ovs_jax.text.tokenizer import clean

_PUNCTUATION = str.maketrans('', '', string.punctuation)


def _spaced(text: str) -> str:
  return re.sub(r'\s+', ' ', text).strip()


def _unpunctuated(text: str) -> str:
  return _spaced(text.lower().translate(_PUNCTUATION))


# What texts go through before they are tokenized.
CLEANINGS: dict[str, Callable[[str], str]] = {
  'none': lambda text: text,
  # Of SigLIP 2.
  'lower': str.lower,
  # Of SigLIP: lower case without punctuation. That of open_clip is first OpenAI's, and
  # underscores are blanks in it.
  'unpunctuated': _unpunctuated,
  'canonical': lambda text: _unpunctuated(clean(text).replace('_', ' ')),
  # Of open_clip, where a model says nothing else: OpenAI's, but upper case stays.
  'whitespace': lambda text: clean(text, lower=False),
  'clip': clean,
}


class TrainedTokenizer:
  """The ids of a tokenizer.json."""

  def __init__(self, data: bytes) -> None:
    """Reads the file.

    Raises:
      ValueError: the package is not installed, or cannot read the file.
    """
    try:
      import tokenizers
    except ImportError as error:
      raise UserError(
        'this CLIP has a tokenizer.json, which the package tokenizers reads; it is not '
        'installed: pip install tokenizers'
      ) from error
    try:
      self._tokenizer = tokenizers.Tokenizer.from_str(data.decode('utf-8'))
    except Exception as error:  # the package raises nothing narrower
      raise UserError(
        f'the tokenizer.json cannot be read ({str(error)[:200]}); download it again, '
        'or install a newer version of the package tokenizers'
      ) from error
    padding = self._tokenizer.padding
    self._padding: int | None = padding['pad_id'] if padding else None
    self._tokenizer.no_padding()
    self._tokenizer.no_truncation()

  @property
  def size(self) -> int:
    """Returns the number of ids."""
    return self._tokenizer.get_vocab_size(with_added_tokens=True)

  def id_of(self, token: str) -> int | None:
    """Returns the id of a token as the file writes it, or None."""
    return self._tokenizer.token_to_id(token)

  def token_of(self, number: int) -> str | None:
    """Returns the token with an id, or None."""
    return self._tokenizer.id_to_token(number)

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a cleaned text, with nothing around them."""
    return self._tokenizer.encode(text, add_special_tokens=False).ids

  @property
  def padding(self) -> int | None:
    """Returns the id that the file itself fills up with, or None."""
    return self._padding

  def around(self) -> tuple[list[int], list[int]]:
    """Returns the ids that the file itself puts before and after a text."""
    bare, full = self.encode('a'), self._tokenizer.encode('a').ids
    for start in range(len(full) - len(bare) + 1):
      if full[start : start + len(bare)] == bare:
        return full[:start], full[start + len(bare) :]
    raise UserError('the tokenizer.json changes texts by what it puts around them')

  def tokenize(
    self,
    texts: Sequence[str],
    *,
    cleaning: str,
    special: tuple[int, int, int],
    context_length: int,
    truncate: bool = False,
  ) -> Int[np.ndarray, 'k t']:
    """Tokenizes texts into rows of start, ids, end and padding.

    Args:
      texts: any strings; may be empty.
      cleaning: what they go through before, of `CLEANINGS`.
      special: ids of start, end and padding; -1: there is no start, or no end.
      context_length: of a row.
      truncate: cut long texts, and let the end follow, instead of raising.

    Raises:
      ValueError: a text is too long and `truncate` is false.
    """
    start, end, pad = special
    before, after = ([x] if x >= 0 else [] for x in (start, end))
    cleaned = lookup(CLEANINGS, cleaning, 'cleaning')
    rows = np.full((len(texts), context_length), pad, np.int32)
    room = context_length - len(before) - len(after)
    for row, text in zip(rows, texts, strict=True):
      ids = self.encode(cleaned(text))
      if len(ids) > room and not truncate:
        raise UserError(
          f'{text[:60]!r} has {len(ids) + context_length - room} tokens, start and end '
          f'included; the limit is {context_length}. Shorten it'
        )
      ids = [*before, *ids[:room], *after]
      row[: len(ids)] = ids
    return rows


@functools.lru_cache(maxsize=4)
def load_tokenizer(digest: str) -> TrainedTokenizer:
  """Returns the tokenizer with this sha256, of a checkpoint that was read."""
  return TrainedTokenizer(content(digest))
