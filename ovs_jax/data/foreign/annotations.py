"""COCO's and Label Studio's JSON files."""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

import numpy as np

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Bool
from ovs_jax.data.foreign.listing import (
  Finder,
  Labels,
  Listing,
  checked,
  id_of,
  painted,
  refuse,
  size_of,
  split_of,
)
from ovs_jax.data.sources import Pair, Problem
from ovs_jax.formats.given import annotation_mask
from ovs_jax.formats.polygons import filled
from ovs_jax.formats.rle import brush_mask


def annotations(path: pathlib.Path) -> Listing:
  """Reads a JSON file: a list is Label Studio's, an object COCO's.

  Raises:
    UserError: it is neither.
  """
  try:
    stored = json.loads(path.read_text(encoding='utf-8-sig'))
  except ValueError as error:
    raise UserError(f'{path} is no JSON in UTF-8 ({error}); export it again') from error
  if isinstance(stored, list) and all(isinstance(x, dict) for x in stored):
    return _labelstudio(path, stored)
  keys = ('images', 'annotations', 'categories')
  if isinstance(stored, dict) and all(isinstance(stored.get(k), list) for k in keys):
    return _coco(path, stored)
  raise UserError(
    f'{path} has no lists {", ".join(keys)} as COCO, and is no list of tasks as Label '
    'Studio; export it again in one of these formats, or name a folder'
  )


def _coco(path: pathlib.Path, stored: Mapping[str, Any]) -> Listing:
  """One file is one split, that of its name if that says one."""
  problems: list[Problem] = []
  categories = sorted(stored['categories'], key=lambda x: x['id'])
  rows = {x['id']: i for i, x in enumerate(categories)}
  names = checked([str(x['name']) for x in categories], path.name)
  shapes: dict[Any, list[Mapping[str, Any]]] = {}
  for entry in stored['annotations']:
    if entry.get('category_id') not in rows:
      what = f'annotation {entry.get("id")} has category {entry.get("category_id")}'
      problems.append(Problem('wrong text', f'{path.name}: {what}, which is not there'))
    shapes.setdefault(entry.get('image_id'), []).append(entry)
  find = Finder(path.parent)
  pairs, found = [], {}
  for image in stored['images']:
    photo = find(str(image.get('file_name', '')), problems)
    if photo is not None:
      pairs.append(Pair(id_of(photo, path.parent), photo, photo))
      found[photo] = (image, shapes.get(image.get('id'), []))
  refuse(path, problems)

  def read(photo: pathlib.Path) -> Labels:
    image, entries = found[photo]
    size = size_of(photo)
    if 'height' in image and 'width' in image:
      size = (int(image['height']), int(image['width']))
    shown = [(rows[x['category_id']], annotation_mask(x, size)) for x in entries]
    return painted(shown, size, names)

  return Listing(names, {split_of(path.stem): pairs}, read, (path,))


def _labelstudio(path: pathlib.Path, tasks: Sequence[Mapping[str, Any]]) -> Listing:
  """Reads brushes and polygons of annotations; of predictions where there are none."""
  problems: list[Problem] = []
  find = Finder(path.parent)
  results: dict[pathlib.Path, list[Mapping[str, Any]]] = {}
  pairs = []
  for task in tasks:
    address = next((str(x) for x in task.get('data', {}).values()), '')
    photo = find(_local(address), problems)
    done = [x for x in task.get('annotations') or [] if not x.get('was_cancelled')]
    made = (done or task.get('predictions') or [{}])[0].get('result') or []
    if photo is not None:
      results[photo] = [x for x in made if _words(x)]
      pairs.append(Pair(id_of(photo, path.parent), photo, photo))
  refuse(path, problems)
  listed = {
    word: None for found in results.values() for x in found for word in _words(x)
  }
  names = checked(sorted(listed), path.name)
  rows = {name: i for i, name in enumerate(names)}

  def read(photo: pathlib.Path) -> Labels:
    size = size_of(photo)
    shown = [(rows[_words(x)[0]], _drawn(x, size)) for x in results[photo]]
    return painted(shown, size, names)

  return Listing(names, {'': pairs}, read, (path,))


def _words(result: Mapping[str, Any]) -> list[str]:
  value = result.get('value', {})
  return value.get('brushlabels') or value.get('polygonlabels') or []


def _drawn(result: Mapping[str, Any], size: tuple[int, int]) -> Bool[np.ndarray, 'h w']:
  value = result['value']
  if 'rle' in value:
    stated = (result.get('original_height'), result.get('original_width'))
    if None not in stated and stated != size:
      raise UserError(f'is {size}, its brush {stated}; export it again')
    return brush_mask(value['rle'], size)
  points = np.array(value['points'], np.float64).reshape(-1, 2) / 100 * size[::-1]
  return filled(points, size)


def _local(address: str) -> str:
  """The path that is in an address of Label Studio."""
  found = urlparse(address)
  if query := parse_qs(found.query).get('d'):
    return '/' + query[0].lstrip('/')
  path = unquote(found.path)
  if '/upload/' in path:  # with a prefix that tells equal names apart
    return re.sub(r'^[0-9a-f]{8}-', '', path.rsplit('/', 1)[-1])
  return path
