"""VOC's folders, which CVAT's "Segmentation mask 1.1" are, too."""

import functools
import pathlib
import re
from collections.abc import Mapping

import numpy as np
from PIL import Image

from ovs_jax.core.errors import UserError
from ovs_jax.core.types import Num
from ovs_jax.data.foreign.listing import (
  IMAGES,
  Labels,
  Listing,
  checked,
  dtype_of,
  refuse,
  shown,
  split_of,
  void_of,
)
from ovs_jax.data.sources import Pair, Problem
from ovs_jax.formats.voc import voc_colours
from ovs_jax.text import vocabulary


def voc(path: pathlib.Path) -> Listing:
  """Reads masks in colours, or in values of VOC's palette.

  Raises:
    SourceError: something is missing.
  """
  names, colours = _labelmap(path)
  table = {int(x): i for i, x in enumerate(_packed(colours))}
  problems: list[Problem] = []
  photos = {p.stem: p for p in shown(path / 'JPEGImages') if p.suffix.lower() in IMAGES}
  masks = {p.stem: p for p in shown(path / 'SegmentationClass') if p.suffix == '.png'}
  lists = shown(path / 'ImageSets' / 'Segmentation')
  divided: dict[str, str] = {}
  for file in lists:
    for stem in file.read_text(encoding='utf-8').split():
      divided[stem] = split_of(file.stem)
  splits: dict[str, list[Pair]] = {}
  for stem, mask in masks.items():
    if stem not in photos:
      problems.append(Problem('missing', f'JPEGImages/{stem}.jpg'))
      continue
    pair = Pair(stem, photos[stem], mask)
    splits.setdefault(divided.get(stem, ''), []).append(pair)
  if not masks:
    problems.append(Problem('missing', f'no masks in {path / "SegmentationClass"}'))
  refuse(path, problems)
  read = functools.partial(_read_colours, table=table, count=len(names))
  more = [x for x in (path / 'labelmap.txt', *lists) if x.is_file()]
  return Listing(names, splits, read, (*more, *masks.values()))


def _read_colours(path: pathlib.Path, table: Mapping[int, int], count: int) -> Labels:
  with Image.open(path) as image:
    if image.format == 'JPEG':
      raise UserError('is a JPEG, which blurs labels; expected a PNG')
    colours = np.asarray(image.convert('RGB'), np.int64)
  packed = _packed(colours)
  found, where = np.unique(packed, return_inverse=True)
  void = void_of(count)
  edge = int(_packed(voc_colours()[255:])[0])
  unknown = [x for x in found.tolist() if x not in table and x != edge]
  if unknown:
    shown = ', '.join(f'{x >> 16},{x >> 8 & 255},{x & 255}' for x in unknown[:4])
    raise UserError(f'has colours that labelmap.txt does not have: {shown}')
  values = np.array([table.get(x, void) for x in found.tolist()])
  return values[where].reshape(packed.shape).astype(dtype_of(count))


def _packed(colours: Num[np.ndarray, '*b 3']) -> Num[np.ndarray, '*b']:
  """One number for each colour."""
  red, green, blue = np.moveaxis(np.asarray(colours, np.int64), -1, 0)
  return (red << 16) + (green << 8) + blue


def _labelmap(path: pathlib.Path) -> tuple[tuple[str, ...], Num[np.ndarray, 'k 3']]:
  """Names and their colours: of labelmap.txt, else those of VOC."""
  file = path / 'labelmap.txt'
  if not file.is_file():
    names = vocabulary.load('voc_21').names
    return names, voc_colours()[: len(names)]
  names, colours = [], []
  for line in file.read_text(encoding='utf-8-sig').splitlines():
    if not line.strip() or line.startswith('#'):
      continue
    name, _, rest = line.partition(':')
    colour = re.match(r'\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)', rest)
    if colour is None:
      raise UserError(f'{file} has the line {line!r}; expected NAME:R,G,B::')
    names.append(name.strip())
    colours.append([int(x) for x in colour.groups()])
  return checked(names, file.name), np.array(colours).reshape(-1, 3)
