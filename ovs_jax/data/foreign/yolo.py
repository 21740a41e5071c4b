"""YOLO's text files of polygons, and the YAML file that tells where they are."""

import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import local
from ovs_jax.core.types import Bool, Num
from ovs_jax.data.foreign.listing import (
  IMAGES,
  Labels,
  Listing,
  Shape,
  checked,
  id_of,
  painted,
  refuse,
  shown,
  size_of,
)
from ovs_jax.data.sources import Pair, Problem


def yolo(path: pathlib.Path) -> Listing:
  """Reads the polygons of text files, which the YAML file tells of.

  Raises:
    SourceError: something is missing.
  """
  file = path if path.is_file() else yaml_of(path)
  assert file is not None
  stored = _yaml(file)
  given = stored['names']
  pairs_of = given.items() if isinstance(given, dict) else enumerate(given)
  listed = sorted((int(k), str(v)) for k, v in pairs_of)
  rows = {number: i for i, (number, _) in enumerate(listed)}
  names = checked([name for _, name in listed], file.name)
  root = file.parent / str(stored.get('path') or '')
  root = root if root.is_dir() else file.parent
  problems: list[Problem] = []
  photos: dict[pathlib.Path, str] = {}
  for key in ('train', 'val', 'test'):
    places = stored.get(key) or []
    for place in [places] if isinstance(places, str) else places:
      for photo in _photos(file.parent, root, str(place), problems):
        # Our own export names one folder for both.
        photos[photo] = key if photos.get(photo, key) == key else ''
  pairs: dict[str, list[Pair]] = {}
  labels: dict[pathlib.Path, pathlib.Path] = {}
  for photo, split in photos.items():
    label = _label_of(photo)
    labels[label] = photo
    pairs.setdefault(split, []).append(Pair(id_of(photo, file.parent), photo, label))
  refuse(file, problems)

  def read(label: pathlib.Path) -> Labels:
    size = size_of(labels[label])
    lines = label.read_text(encoding='utf-8').splitlines() if label.exists() else []
    shown = [_yolo_shape(x, rows, size) for x in lines if x.strip()]
    return painted(shown, size, names)

  return Listing(names, pairs, read, (file, *(x for x in labels if x.exists())))


def _yolo_shape(line: str, rows: Mapping[int, int], size: tuple[int, int]) -> Shape:
  number, *rest = line.split()
  try:
    row, values = rows[int(number)], np.array(rest, np.float64)
  except (ValueError, KeyError) as error:
    raise UserError(f'has a line that begins with {line[:40]!r}') from error
  if len(values) == 4:  # a box: centre and size
    x, y, w, h = values
    values = np.array([x - w / 2, y - h / 2, x + w / 2, y - h / 2])
    values = np.append(values, [x + w / 2, y + h / 2, x - w / 2, y + h / 2])
  if len(values) < 6 or len(values) % 2 or not np.isfinite(values).all():
    raise UserError(f'has a polygon of {len(values)} numbers')
  points = values.reshape(-1, 2) * size[::-1]
  return row, outlined(points, size)


def outlined(
  points: Num[np.ndarray, 'p 2'], size: tuple[int, int]
) -> Bool[np.ndarray, 'h w']:
  """Returns the pixels in a polygon, with those that its border goes through.

  As OpenCV fills it, and Ultralytics: corners are the pixels that they lie in.
  """
  corners = np.floor(points).astype(int)
  canvas = Image.new('1', size[::-1])
  ImageDraw.Draw(canvas).polygon(
    [tuple(x) for x in corners.tolist()], fill=1, outline=1
  )
  return np.asarray(canvas)


def _photos(
  base: pathlib.Path, root: pathlib.Path, place: str, problems: list[Problem]
) -> list[pathlib.Path]:
  """The photos of a folder, or of a text file that lists them."""
  for path in (root / place, base / place, base / place.removeprefix('../')):
    if path.is_dir():
      return [p for p in shown(path) if p.suffix.lower() in IMAGES]
    if path.is_file():
      lines = path.read_text(encoding='utf-8').split('\n')
      listed = [path.parent / line.strip() for line in lines if line.strip()]
      missing = [p for p in listed if not p.is_file()]
      problems += [Problem('missing', str(p)) for p in missing]
      return [p for p in listed if p.is_file()]
  problems.append(Problem('missing', place))
  return []


def _label_of(photo: pathlib.Path) -> pathlib.Path:
  """images/a/b.jpg has its polygons in labels/a/b.txt; else they lie beside it."""
  parts = list(photo.parts)
  if 'images' in parts:
    parts[len(parts) - 1 - parts[::-1].index('images')] = 'labels'
  return local('/'.join(parts).replace('//', '/')).with_suffix('.txt')


def yaml_of(path: pathlib.Path) -> pathlib.Path | None:
  """Returns the YAML file of a folder, None if it has none."""
  files = sorted(path.glob('*.yaml')) + sorted(path.glob('*.yml'))
  return next((x for x in files if x.name == 'data.yaml'), (files or [None])[0])


def _yaml(file: pathlib.Path) -> Mapping[str, Any]:
  import yaml  # comes with Flax

  try:
    stored = yaml.safe_load(file.read_text(encoding='utf-8-sig'))
  except (yaml.YAMLError, UnicodeDecodeError) as error:
    raise UserError(f'{file} is no YAML ({str(error).splitlines()[0]})') from error
  if not isinstance(stored, dict) or not isinstance(stored.get('names'), (list, dict)):
    raise UserError(f'{file} has no names, which YOLO lists there')
  return stored
