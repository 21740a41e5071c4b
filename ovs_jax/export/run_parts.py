"""What surrounds exported programs: tokens of names, photos resized, tiles of pixels.

Texts are repaired as ftfy does it character by character; what was decoded by a wrong
table before (UTF-8 as Latin-1) stays as it is.
"""

import html
import re
import unicodedata
from typing import Any

import numpy as np

WORDS = re.compile(
  r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d", re.IGNORECASE
)
RUNS = re.compile(r'L+|N|\.+| ')
ANSI = re.compile(r'\x1b\[[\d;]*[a-zA-Z]')  # colours of terminals


class Tokenizer:
  """CLIP's byte-pair encoding, of the artefact's tokenizer.json."""

  def __init__(self, about: dict[str, Any]) -> None:
    """Takes the file's content."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    order = printable + [b for b in range(256) if b not in printable]
    self.letters = {b: chr(b if i < 188 else 68 + i) for i, b in enumerate(order)}
    merges = [tuple(pair.split(' ')) for pair in about['merges']]
    symbols = [self.letters[b] + end for end in ('', '</w>') for b in order]
    symbols += [''.join(pair) for pair in merges]
    self.ids = {symbol: i for i, symbol in enumerate(symbols)}
    self.ranks = {pair: rank for rank, pair in enumerate(merges)}
    self.special = {'<|startoftext|>': about['start'], '<|endoftext|>': about['end']}
    self.about = about
    self.changed = {int(code): text for code, text in about['characters'].items()}

  def clean(self, text: str) -> str:
    """Repairs characters, unescapes, collapses white space and lower-cases."""
    text = ANSI.sub('', html.unescape(text) if '<' not in text else text)
    text = re.sub('[\ud800-\udfff]', '\ufffd', text.translate(self.changed))
    text = html.unescape(html.unescape(unicodedata.normalize('NFC', text)))
    return re.sub(r'\s+', ' ', text.strip()).strip().lower()

  def encode(self, text: str) -> list[int]:
    """Returns the ids of a text, with start and end."""
    text = self.clean(text).replace('\u0345', ' ')
    kinds = [unicodedata.category(c)[0] for c in text]
    kinds = ''.join(
      ' ' if c.isspace() else k if k in 'LN' else '.'
      for c, k in zip(text, kinds, strict=True)
    )
    ids, at = [], 0
    while at < len(text):
      found = WORDS.match(text, at) or RUNS.match(kinds, at)
      piece, at = text[found.start() : found.end()], found.end()
      special = self.special.get(piece)
      ids += self._merged(piece) if special is None else [special]
    ids = [self.about['start'], *ids, self.about['end']]
    if len(ids) > self.about['length']:
      raise ValueError(f'{text!r} has {len(ids)} tokens, more than the model reads')
    return ids

  def _merged(self, piece: str) -> list[int]:
    parts = [self.letters[b] for b in piece.strip().encode()]
    parts = [*parts[:-1], *(last + '</w>' for last in parts[-1:])]
    while pairs := [p for p in zip(parts, parts[1:], strict=False) if p in self.ranks]:
      best, i = min(pairs, key=self.ranks.get), 0
      while i < len(parts) - 1:
        if tuple(parts[i : i + 2]) == best:
          parts[i : i + 2] = [''.join(best)]
        i += 1
    return [self.ids[part] for part in parts]


def resized(photo: np.ndarray, shortest: int, longest: int) -> np.ndarray:
  """Resizes uint8 (h, w, 3) as the bilinear filter of Pillow 13 does, to the bit."""
  sides = [n * (shortest / min(photo.shape[:2])) for n in photo.shape[:2]]
  sides = [n * (longest / max(sides)) if max(sides) > longest else n for n in sides]
  sides = [max(int(n + 0.5), 1) for n in sides]
  less = [n - new for n, new in zip(photo.shape, sides, strict=False)]
  for axis in (0, 1) if less[0] > max(0, 2 * less[1]) else (1, 0):
    size, new = photo.shape[axis], sides[axis]
    table, scale = np.zeros((new, size)), size / new
    reach = max(scale, 1.0)
    for i in range(new):
      low = max(int((i + 0.5) * scale - reach + 0.5), 0)
      places = np.arange(low, min(int((i + 0.5) * scale + reach + 0.5), size))
      near = np.abs((places - (i + 0.5) * scale + 0.5) * (1 / reach))
      weights = np.maximum(1 - near, 0)
      table[i, places] = np.floor(weights / np.cumsum(weights)[-1] * 2**22 + 0.5)
    sums = np.tensordot(table, photo.astype(np.float64), (1, axis))
    photo = np.moveaxis(np.clip((sums + 2**21) // 2**22, 0, 255), 0, axis)
  return photo.astype(np.uint8)


def tiles(inside: int, size: int, full: int, tile: int) -> tuple[np.ndarray, ...]:
  """Returns where tiles of a photo begin in the masks, and weights that resize them."""
  place = np.float32(inside / size) * (np.arange(size, dtype=np.float32) + 0.5) - 0.5
  place = np.maximum(place, 0).astype(np.float32)
  low = np.minimum(np.floor(place).astype(np.int32), inside - 1)
  high, weight = np.minimum(low + 1, inside - 1), (place - low).astype(np.float32)
  at = np.minimum(np.arange(-(-size // tile) * tile), size - 1)
  low, high, weight = low[at], high[at], weight[at]
  first = low.reshape(-1, tile).min(1)
  span = int((high.reshape(-1, tile).max(1) - first).max()) + 1
  span = min(-(-span // 8) * 8, full)
  start = np.minimum(first, full - span).astype(np.int32)
  offset, every = np.repeat(start, tile), np.arange(len(at))
  matrix = np.zeros((len(at), span), np.float32)
  np.add.at(matrix, (every, low - offset), 1 - weight)
  np.add.at(matrix, (every, high - offset), weight)
  return start, matrix.reshape(-1, tile, span)
