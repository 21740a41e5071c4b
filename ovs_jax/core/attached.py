"""Files that a checkpoint has beside its parameters, known by their sha256.

A configuration names such files by keys `tokenizer` with the hashes as their values.
What is read from a checkpoint is known here from then on, so that whatever is saved
with a configuration that names it has a copy of its own.
"""

import hashlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place

KEY = 'tokenizer'  # of configurations
FILE = 'tokenizer.json'  # in a checkpoint, the first; others have their hash as well
_SHA256 = re.compile(r'[0-9a-f]{64}')
_known: dict[str, bytes | Place] = {}


def attach(content: bytes) -> str:
  """Makes a file known; returns its sha256."""
  digest = hashlib.sha256(content).hexdigest()
  _known[digest] = content
  return digest


def offer(directory: Place, config: Mapping[str, Any]) -> None:
  """Makes the files of a checkpoint known, which are read when they are asked for."""
  for digest, name in files(config).items():
    if not isinstance(_known.get(digest), bytes):
      own, shared = directory / name, directory.parent / name  # of all steps of a run
      _known[digest] = shared if shared.is_file() and not own.is_file() else own


def files(config: Any) -> dict[str, str]:
  """Returns all that a configuration names, by hash the file's name in a checkpoint.

  Args:
    config: names and values, of any depth.
  """
  found = dict.fromkeys(_named(config))
  return {x: FILE if i == 0 else _further(x) for i, x in enumerate(found)}


def _named(config: Any) -> Iterator[str]:
  if isinstance(config, Mapping):
    own = config.get(KEY)
    if isinstance(own, str) and _SHA256.fullmatch(own):
      yield own
  elif isinstance(config, str) or not isinstance(config, Sequence):
    return
  for value in config.values() if isinstance(config, Mapping) else config:
    yield from _named(value)


def _further(digest: str) -> str:
  return f'tokenizer_{digest[:16]}.json'


def is_one(name: str) -> bool:
  """Returns whether a checkpoint's file of this name is one of these."""
  return name == FILE or re.fullmatch(r'tokenizer_[0-9a-f]{16}\.json', name) is not None


def content(digest: str) -> bytes:
  """Returns a file by its hash.

  Raises:
    UserError: no checkpoint that was read has it, or its bytes have changed.
  """
  found = _known.get(digest)
  if isinstance(found, bytes):
    return found
  if found is None or not found.is_file():
    where = found or f'any checkpoint that was read, as {FILE}'
    raise UserError(
      f'the tokenizer with sha256 {digest} is not in {where}; convert the model again, '
      'with the tokenizer.json that its publisher has'
    )
  data = found.read_bytes()
  if hashlib.sha256(data).hexdigest() != digest:
    raise UserError(
      f'{found} is not the file with sha256 {digest} that the model was converted '
      'with; convert it again'
    )
  _known[digest] = data
  return data


def write(directory: Place, config: Mapping[str, Any]) -> None:
  """Copies what a configuration names into the directory of a checkpoint."""
  for digest, name in files(config).items():
    (directory / name).write_bytes(content(digest))
