"""The benchmarks' own files, drawn: what `ovs_jax.data.prepare` is given to read.

Folders, names and formats are the published ones: COCO 2017 with its captions, its
instances and the maps of COCO-Stuff; ADE20K's challenge and its full release; Pascal
Context; and VOC 2012.
"""

import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ovs_jax.data.rehearsal_pictures import Drawer, Picture, label_values
from ovs_jax.data.sources import encode_png, ordered_map

# Numbers of COCO's photographs are below, each once in both of its splits.
_NUMBERS = 581_930
_SCENES = ('urban/street', 'home_or_hotel/bedroom', 'nature_landscape/coast')
_UNLABELLED = 255  # of COCO-Stuff


def write_layouts(
  root: pathlib.Path, drawer: Drawer, *, images: int, val_images: int
) -> None:
  """Writes the files of all benchmarks below a folder.

  Args:
    root: the folder.
    drawer: of the pictures.
    images: of COCO's train2017.
    val_images: of COCO's val2017 and of the splits `val` of the others.
  """
  rng = np.random.default_rng(drawer.seed)
  numbers = rng.choice(_NUMBERS, images + val_images, replace=False) + 1
  _coco(root, 'val2017', drawer, sorted(numbers[:val_images].tolist()))
  _coco(root, 'train2017', drawer, sorted(numbers[val_images:].tolist()))
  for write in (_ade20k, _ade20k_full, _context, _voc):
    write(root, drawer, val_images)


def _write(path: pathlib.Path, content: bytes) -> None:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_bytes(content)


def _each(function: Callable[[int], Any], count: int) -> list[Any]:
  return list(ordered_map(function, range(count)))


def _coco(
  root: pathlib.Path, split: str, drawer: Drawer, numbers: Sequence[int]
) -> None:
  top, values = root / 'coco', label_values('coco_stuff_171', _UNLABELLED)
  first = (
    len(numbers) if split == 'train2017' else 0
  )  # other pictures than those of val
  for folder in (top / split, top / 'stuffthingmaps' / split):
    folder.mkdir(parents=True, exist_ok=True)

  def write(i: int) -> Picture:
    picture = drawer('coco', first + i)
    name = f'{numbers[i]:012d}'
    (top / split / f'{name}.jpg').write_bytes(picture.jpeg)
    maps = top / 'stuffthingmaps' / split
    (maps / f'{name}.png').write_bytes(picture.png(values))
    return picture

  captions: dict[str, list[Any]] = {'images': [], 'annotations': []}
  instances: list[Any] = []
  for i, picture in enumerate(ordered_map(write, range(len(numbers)))):
    height, width = picture.label.shape
    size = {'height': height, 'width': width}
    name = f'{numbers[i]:012d}.jpg'
    captions['images'].append({'id': numbers[i], 'file_name': name, **size})
    for text in picture.captions:
      number = len(captions['annotations']) + 1
      captions['annotations'].append(
        {'image_id': numbers[i], 'id': number, 'caption': text}
      )
    instances += _instances(picture, numbers[i], len(instances), values)
  folder = top / 'annotations'
  folder.mkdir(exist_ok=True)
  categories = [{'id': k + 1, 'name': str(k + 1)} for k in range(90)]
  for kind, annotations in (
    ('captions', captions['annotations']),
    ('instances', instances),
  ):
    content = {'info': {}, 'licenses': [], 'images': captions['images']}
    content |= {'annotations': annotations, 'categories': categories}
    text = json.dumps(content)
    (folder / f'{kind}_{split}.json').write_text(text, encoding='utf-8')


def _instances(
  picture: Picture, number: int, count: int, values: np.ndarray
) -> list[dict[str, Any]]:
  """Boxes and rough outlines of the things that are among COCO's 80."""
  found = []
  for train_id, (x, y, w, h) in picture.things:
    if values[train_id] < 91:
      corners = [x, y, x + w, y, x + w, y + h, x, y + h]
      thing = {'image_id': number, 'id': count + len(found) + 1, 'iscrowd': 0}
      thing |= {'bbox': [x, y, w, h], 'area': w * h, 'segmentation': [corners]}
      found.append({**thing, 'category_id': int(values[train_id]) + 1})
  return found


def _ade20k(root: pathlib.Path, drawer: Drawer, count: int) -> None:
  top, values = root / 'ADEChallengeData2016', label_values('ade20k_150', 0)

  def write(i: int) -> None:
    picture, name = drawer('ade20k', i), f'ADE_val_{i + 1:08d}'
    _write(top / 'images' / 'validation' / f'{name}.jpg', picture.jpeg)
    _write(top / 'annotations' / 'validation' / f'{name}.png', picture.png(values))

  _each(write, count)


def _ade20k_full(root: pathlib.Path, drawer: Drawer, count: int) -> None:
  top = root / 'ADE20K_2021_17_01' / 'images' / 'ADE' / 'validation'
  values = label_values('ade20k_847', 0).astype(np.uint16)

  def write(i: int) -> None:
    picture, name = drawer('ade20k_full', i), f'ADE_val_{i + 1:08d}'
    folder, ids = top / _SCENES[i % len(_SCENES)], values[picture.label]
    # Red holds the upper byte times 10, blue the number of the instance.
    colours = np.stack([ids // 256 * 10, ids % 256, ids * 0 + 1], axis=-1)
    _write(folder / f'{name}.jpg', picture.jpeg)
    _write(folder / f'{name}_seg.png', encode_png(colours.astype(np.uint8)))

  _each(write, count)


def _names(count: int) -> list[str]:
  """Names of VOC's photographs."""
  return [f'{2007 + i % 5}_{2 + 7 * i:06d}' for i in range(count)]


def _context(root: pathlib.Path, drawer: Drawer, count: int) -> None:
  import scipy.io  # slow to import; comes with JAX

  top, values = root / 'VOCdevkit' / 'VOC2010', label_values('pascal_context_459', 0)
  names = _names(count)
  (top / 'trainval').mkdir(parents=True)
  for i, name in enumerate(names):
    picture = drawer('voc', i)
    _write(top / 'JPEGImages' / f'{name}.jpg', picture.jpeg)
    found = {'LabelMap': values.astype(np.uint16)[picture.label]}
    with open(top / 'trainval' / f'{name}.mat', 'wb') as file:
      scipy.io.savemat(file, found, do_compression=True)
  _write(top / 'pascalcontext_val.txt', ''.join(f'{n}\n' for n in names).encode())


def _voc(root: pathlib.Path, drawer: Drawer, count: int) -> None:
  top = root / 'VOCdevkit' / 'VOC2012'
  values = label_values('voc_20', 0, stuff=False)
  palette = np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes()
  names = _names(count)

  def write(i: int) -> None:
    picture = drawer('voc', i)
    _write(top / 'JPEGImages' / f'{names[i]}.jpg', picture.jpeg)
    maps = top / 'SegmentationClass'
    _write(maps / f'{names[i]}.png', picture.png(values, palette))

  _each(write, count)
  listing = ''.join(f'{n}\n' for n in names).encode()
  _write(top / 'ImageSets' / 'Segmentation' / 'val.txt', listing)
