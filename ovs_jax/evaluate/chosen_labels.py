"""The labels that CLIP chose for images (CoSeg without training), as JSON lines.

A line has `image_id`, `labels` (names, the best first) and `cosines` (of the image with
them, -1..1). The mask stage may take them from there in place of asking CLIP again.
"""

import json
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import Place, place, write_text
from ovs_jax.core.types import Float, Int

FILE = 'labels.jsonl'
NOTES = 'labels'  # among the notes of an evaluation, which a stopped one keeps


def line(
  image_id: str,
  names: Sequence[str],
  chosen: Int[np.ndarray, 'n'],
  cosines: Float[np.ndarray, 'k'],
) -> str:
  """Returns what is written of an image.

  Args:
    image_id: of the data set.
    names: of all k classes.
    chosen: the image's labels, the best first.
    cosines: of the image with all classes.
  """
  entry: dict[str, Any] = {
    'image_id': image_id,
    'labels': [names[k] for k in chosen],
    'cosines': [round(float(cosines[k]), 6) for k in chosen],
  }
  return json.dumps(entry, ensure_ascii=False)


def write(path: Place, lines: Iterable[str]) -> None:
  """Writes the lines of all images, sorted."""
  write_text(path, ''.join(f'{text}\n' for text in sorted(lines)))


class Chosen:
  """The labels of a data set's images, read from a file."""

  def __init__(self, path: Place, names: Sequence[str]) -> None:
    """Reads all of the file.

    Args:
      path: of the JSON lines.
      names: of the classes.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: a line is damaged, has a name that is no class, or an image again.
    """
    self._path = path
    self._found: dict[str, Int[np.ndarray, 'n']] = {}
    index = {name: k for k, name in enumerate(names)}
    for number, text in enumerate(path.read_bytes().splitlines(), 1):
      where = f'{path}, line {number}'
      try:
        entry = json.loads(text)
        image_id, labels = entry['image_id'], entry['labels']
        if not (isinstance(labels, list) and {type(x) for x in labels} <= {str}):
          raise TypeError('labels is no list of names')
        hash(image_id)
      except (ValueError, KeyError, TypeError) as error:
        raise UserError(
          f'{where} is damaged ({error}); expected image_id and labels as JSON'
        ) from error
      if wrong := [name for name in labels if name not in index]:
        raise UserError(f'{where} has {wrong[0]!r}, which is no class of this data set')
      if image_id in self._found:
        raise UserError(f'{where} has the image {image_id!r} once more')
      self._found[image_id] = np.array([index[name] for name in labels], np.int64)

  def of(self, image_id: str) -> Int[np.ndarray, 'n']:
    """Returns an image's labels, the best first.

    Raises:
      ValueError: the file has no such image.
    """
    if image_id not in self._found:
      raise UserError(
        f'{self._path} has no labels of the image {image_id!r}; make them with '
        'config.systems.labels and without labels_from, on the same split'
      )
    return self._found[image_id]


def find(directory: str, folder: str, names: Sequence[str]) -> Chosen:
  """Returns the labels that an earlier benchmark has chosen for a data set.

  Args:
    directory: of that benchmark.
    folder: of the data set in it.
    names: of the classes.

  Raises:
    ValueError: there are none; see also `Chosen`.
  """
  path = place(directory) / folder / FILE
  if not path.is_file():
    raise UserError(
      f'{path} was not found: config.systems.labels_from is the directory of a '
      'benchmark of a CLIPSeg with config.systems.labels on the same data set'
    )
  return Chosen(path, names)
