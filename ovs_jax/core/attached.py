"""Files that a checkpoint has beside its parameters, known by their sha256.

A configuration names such a file by a key `tokenizer` with the hash as its value. What
is read from a checkpoint is known here from then on, so that whatever is saved with a
configuration that names it has a copy of its own.
"""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place

KEY = 'tokenizer'  # of configurations
FILE = 'tokenizer.json'  # in a checkpoint
_SHA256 = re.compile(r'[0-9a-f]{64}')
_known: dict[str, bytes | Place] = {}


def attach(content: bytes) -> str:
  """Makes a file known; returns its sha256."""
  digest = hashlib.sha256(content).hexdigest()
  _known[digest] = content
  return digest


def offer(directory: Place, config: Mapping[str, Any]) -> None:
  """Makes the files of a checkpoint known, which are read when they are asked for."""
  digest = named(config)
  if digest and not isinstance(_known.get(digest), bytes):
    own, shared = directory / FILE, directory.parent / FILE  # of all steps of a run
    _known[digest] = shared if shared.is_file() and not own.is_file() else own


def named(config: Any) -> str:
  """Returns the hash that a configuration names at any depth; '' if none."""
  if not isinstance(config, Mapping):
    return ''
  own = config.get(KEY)
  if isinstance(own, str) and _SHA256.fullmatch(own):
    return own
  return next(filter(None, map(named, config.values())), '')


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
  if digest := named(config):
    (directory / FILE).write_bytes(content(digest))
