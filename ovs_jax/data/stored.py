"""Data sets that lie on disk, opened without running what they name."""

import json
import re
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place

# TFDS imports the modules that a data set names for its fields: these are its own.
_OWN = re.compile(r'tensorflow_datasets\.core\.features\.[a-z_]+\.[A-Za-z]+')
_KEYS = ('pythonClassName', 'python_class_name', 'type')


def open_stored(path: Place) -> Any:
  """Returns the TFDS builder of a prepared data set.

  Raises:
    UserError: its features.json is damaged, or names classes that are not TFDS's own.
  """
  file = path / 'features.json'
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
  except (OSError, ValueError) as error:
    raise UserError(
      f'{file} cannot be read ({error}); make the data set again, or copy it again'
    ) from error
  foreign = sorted({name for name in _classes(content) if not _OWN.fullmatch(name)})
  if foreign:
    raise UserError(
      f'{file} names {", ".join(foreign)}, which TFDS would import and run; a data set '
      'has fields of tensorflow_datasets.core.features alone. Do not use it unless you '
      'trust who made it'
    )
  return tfds.builder_from_directory(str(path))


def _classes(content: Any) -> Iterator[str]:
  """Yields the names of classes at any depth."""
  if isinstance(content, list):
    for part in content:
      yield from _classes(part)
  if isinstance(content, dict):
    for key, part in content.items():
      if key in _KEYS and isinstance(part, str):
        yield part
      else:
        yield from _classes(part)
