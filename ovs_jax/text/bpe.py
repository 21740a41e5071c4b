"""CLIP's byte-pair encoding, from the list of merges that OpenAI published.

The facts are those of Radford et al., "Learning Transferable Visual Models From
Natural Language Supervision" (2021), and of the published file. Only the list of
merges is read; it is not part of this package: `find_vocabulary` looks for it.
"""

import functools
import gzip
import hashlib
import http.client
import importlib.util
import os
import pathlib
import tempfile
import urllib.request
from collections.abc import Iterator, Sequence

import regex

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local

FILE_NAME = 'bpe_simple_vocab_16e6.txt.gz'
SHA256 = '924691ac288e54409236115652ad4aa250f48203de50a9e4722a6ecd48d6804a'
URLS = (
  f'https://openaipublic.azureedge.net/clip/{FILE_NAME}',
  f'https://raw.githubusercontent.com/openai/CLIP/main/clip/{FILE_NAME}',
)
VARIABLE = 'OVS_CLIP_VOCABULARY'
PACKAGES = ('open_clip', 'clip')
NUM_MERGES = 48894  # 49408 ids less 2 x 256 bytes and 2 special tokens
START, END = '<|startoftext|>', '<|endoftext|>'
WORD_END = '</w>'

# Letters run together, every digit stands alone. Text is in lower case, but ignoring
# case still matters: the long s U+017F counts as s, and U+0345 matches nothing. The
# published weights were trained with that.
PIECE = regex.compile(
  r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d"
  r'|\p{L}+|\p{N}|[^\s\p{L}\p{N}]+',
  regex.IGNORECASE,
)


def split(text: str) -> Iterator[tuple[int, int, str]]:
  """Yields (start, end, piece) for every piece of `text` that is encoded alone."""
  for match in PIECE.finditer(text):
    yield match.start(), match.end(), match.group()


def byte_characters() -> tuple[list[int], dict[int, str]]:
  """Returns the bytes in id order and the printable character that stands for each.

  Printable Latin-1 stands for itself and comes first; the other 68 bytes follow, as
  U+0100 and up.
  """
  printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
  others = [byte for byte in range(256) if byte not in printable]
  characters = {byte: chr(byte) for byte in printable}
  characters |= {byte: chr(0x100 + i) for i, byte in enumerate(others)}
  return printable + others, characters


class BytePairEncoder:
  """Encodes cleaned text by applying merges, the earliest in the list first."""

  def __init__(self, merges: Sequence[tuple[str, str]]):
    """Builds the ids: 256 bytes, 256 word-final bytes, merges, start, end.

    Args:
      merges: pairs of symbols in the alphabet of `byte_characters`, in rank order.
    """
    order, self._characters = byte_characters()
    letters = [self._characters[byte] for byte in order]
    symbols = [*letters, *(letter + WORD_END for letter in letters)]
    symbols += [left + right for left, right in merges]
    symbols += [START, END]
    self._ids = {symbol: i for i, symbol in enumerate(symbols)}
    self._ranks = {pair: rank for rank, pair in enumerate(merges)}

  @classmethod
  def from_file(cls, path: str | os.PathLike[str]) -> 'BytePairEncoder':
    """Reads OpenAI's file: gzip, a version line, then one merge a line."""
    with gzip.open(path, 'rt', encoding='utf-8') as lines:
      next(lines)
      pairs = (line.split() for line, _ in zip(lines, range(NUM_MERGES), strict=False))
      return cls([(left, right) for left, right in pairs])

  def encode(self, text: str) -> list[int]:
    """Returns ids without start and end; text must have been cleaned."""
    ids = []
    for _, _, piece in split(text):
      if piece in (START, END):
        ids.append(self._ids[piece])
      else:
        ids += [self._ids[symbol] for symbol in self._merge(piece)]
    return ids

  def _merge(self, piece: str) -> list[str]:
    symbols = [self._characters[byte] for byte in piece.encode('utf-8')]
    symbols[-1] += WORD_END
    while len(symbols) > 1:
      pairs = set(zip(symbols[:-1], symbols[1:], strict=True))
      best = min(pairs, key=lambda pair: self._ranks.get(pair, NUM_MERGES))
      if best not in self._ranks:
        break
      merged, i = [], 0
      while i < len(symbols):
        width = 2 if tuple(symbols[i : i + 2]) == best else 1
        merged.append(''.join(symbols[i : i + width]))
        i += width
      symbols = merged
    return symbols


def sha256(path: str | os.PathLike[str]) -> str:
  """Returns the hexadecimal digest of a file."""
  return hashlib.sha256(local(path).read_bytes()).hexdigest()


def cache_path() -> pathlib.Path:
  """Returns where a downloaded copy lives: XDG_CACHE_HOME or ~/.cache."""
  root = os.environ.get('XDG_CACHE_HOME') or pathlib.Path.home() / '.cache'
  return local(root) / 'ovs_jax' / FILE_NAME


def package_paths() -> list[pathlib.Path]:
  """Returns copies inside installed packages, found without importing them."""
  found = []
  for name in PACKAGES:
    spec = importlib.util.find_spec(name)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
      path = local(folder) / FILE_NAME
      if path.is_file():
        found.append(path)
  return found


def find_vocabulary(*, urls: Sequence[str] = URLS) -> pathlib.Path:
  """Returns the path of OpenAI's list of merges, verified by its SHA-256.

  Looked for in $OVS_CLIP_VOCABULARY, the cache, an installed `open_clip` or `clip`
  package, and last on the network, which fills the cache.

  Args:
    urls: where to download from, in order.

  Raises:
    FileNotFoundError: it is nowhere; the message lists what was tried and the ways
      to get it. Or $OVS_CLIP_VOCABULARY names no file.
    ValueError: $OVS_CLIP_VOCABULARY names another file.
  """
  if os.environ.get(VARIABLE):
    return _chosen(local(os.environ[VARIABLE]))
  tried = []
  for path in (cache_path(), *package_paths()):
    if path.is_file() and sha256(path) == SHA256:
      return path
    reason = 'has another SHA-256' if path.is_file() else 'no such file'
    tried.append(f'{path}: {reason}')
  for url in urls:
    try:
      return download(url, cache_path())
    except (OSError, http.client.HTTPException, ValueError) as error:
      tried.append(f'{url}: {error}')
  raise FileNotFoundError(
    f"CLIP's list of merges {FILE_NAME} was not found. Do one of: "
    '`pip install --no-deps open_clip_torch`, which contains it; set '
    f'{VARIABLE} to the path of a copy (SHA-256 {SHA256}); run once with network '
    'access; or use Python 3.11 or 3.12, where `pip install instant-clip-tokenizer` '
    'needs no such file. Tried:\n  ' + '\n  '.join(tried)
  )


def _chosen(path: pathlib.Path) -> pathlib.Path:
  if not path.is_file():
    raise FileNotFoundError(
      f'${VARIABLE} is {str(path)!r}, which is not a file. Set it to a copy of '
      f'{FILE_NAME}, or unset it to search for one.'
    )
  if (digest := sha256(path)) != SHA256:
    raise UserError(
      f'${VARIABLE} is {str(path)!r} with SHA-256 {digest}; expected {SHA256}. '
      f"Set it to an unmodified copy of OpenAI's {FILE_NAME}."
    )
  return path


def download(url: str, target: pathlib.Path, *, timeout: float = 30.0) -> pathlib.Path:
  """Downloads `url` to `target`, which appears complete and verified or not at all.

  Raises:
    OSError, HTTPException: no connection, or an HTTP error.
    ValueError: the content has another SHA-256.
  """
  with urllib.request.urlopen(url, timeout=timeout) as response:
    content = response.read()
  if (digest := hashlib.sha256(content).hexdigest()) != SHA256:
    raise UserError(f'downloaded {len(content)} bytes with SHA-256 {digest}')
  target.parent.mkdir(parents=True, exist_ok=True)
  handle, name = tempfile.mkstemp(dir=target.parent, prefix=target.name)
  try:
    with os.fdopen(handle, 'wb') as file:
      file.write(content)
    os.replace(name, target)
  except OSError:
    os.unlink(name)
    raise
  return target


@functools.cache
def default_encoder() -> BytePairEncoder:
  """Returns the encoder with OpenAI's merges, read once per process."""
  return BytePairEncoder.from_file(find_vocabulary())
