"""Data sets that lie on disk, opened without running what they name."""

import json
import re
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow_datasets as tfds
from google.protobuf import json_format

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place

# TFDS imports the modules that a data set names for its fields: these are its own.
_OWN = re.compile(r'tensorflow_datasets\.core\.features\.[a-z_]+\.[A-Za-z]+')
# What TFDS raises over a description that it cannot read.
_UNREADABLE = (json_format.Error, ValueError, TypeError, AttributeError)
_UNREADABLE += (AssertionError, RecursionError)
_KEYS = ('pythonClassName', 'python_class_name', 'type')


def open_stored(path: Place) -> Any:
  """Returns the TFDS builder of a prepared data set.

  Raises:
    UserError: its features.json is damaged, or names classes that are not TFDS's own.
  """
  file = path / 'features.json'
  try:
    content = json.loads(file.read_text(encoding='utf-8'))
  except (OSError, ValueError, RecursionError) as error:
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
  builder = opened(path, lambda: tfds.builder_from_directory(str(path)))
  if not builder.info.features:
    raise _damaged(path, 'features.json names no field')
  return builder


def opened(path: Place, make: Callable[[], Any]) -> Any:
  """Returns the builder that `make` makes, with what is written beside its records.

  Args:
    path: the folder of the data set, which need not be there yet.
    make: opens it by TFDS.

  Raises:
    UserError: TFDS cannot read the description that is there.
  """
  try:
    builder = make()
    if builder.info.metadata is not None:
      builder.info.metadata.keys()  # which are read when they are asked for
    for split in builder.info.splits.values():
      split.file_instructions  # noqa: B018  # which tell how the files are named
    return builder
  except _UNREADABLE as error:
    if isinstance(error, UserError):
      raise
    first = (str(error).splitlines() or [type(error).__name__])[0][:200]
    raise _damaged(path, first) from error


def noted(builder: Any, key: str, kind: type) -> Any:
  """Returns what was written beside a data set under this name.

  Raises:
    UserError: nothing was, or nothing of this kind.
  """
  found = builder.info.metadata
  # What stands there is read with the keys; `in` does not read it.
  value = found[key] if found is not None and key in found.keys() else None
  if not isinstance(value, kind):
    raise _damaged(builder.data_dir, f'its metadata have no {key!r} that can be used')
  return value


def _damaged(path: Any, reason: str) -> UserError:
  return UserError(
    f'the data set {path} is damaged ({reason}); delete this folder and make the data '
    'set again, or copy it again'
  )


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
