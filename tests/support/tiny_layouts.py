"""Tiny copies of the benchmarks' official layouts, with labels that are known."""

import json
import pathlib

import numpy as np
import scipy.io
from PIL import Image

HEIGHT, WIDTH = 6, 8


def photo(path: pathlib.Path, *, size: tuple[int, int] = (HEIGHT, WIDTH)) -> None:
  """Writes a JPEG of noise."""
  path.parent.mkdir(parents=True, exist_ok=True)
  rng = np.random.default_rng(len(path.name))
  Image.fromarray(rng.integers(0, 256, (*size, 3)).astype(np.uint8)).save(path)


def values(numbers: list[int], dtype: type = np.uint8) -> np.ndarray:
  """Returns a map whose columns hold the numbers, the last to the right edge."""
  columns = numbers + numbers[-1:] * (WIDTH - len(numbers))
  return np.tile(np.array(columns, dtype), (HEIGHT, 1))


def grey(path: pathlib.Path, label: np.ndarray, *, palette: bool = False) -> None:
  """Writes label values as a PNG, with a palette as VOC has it or without."""
  path.parent.mkdir(parents=True, exist_ok=True)
  image = Image.fromarray(label)
  if palette:
    image = image.convert('P')
    image.putdata(label.reshape(-1).tolist())
    image.putpalette(np.random.default_rng(0).integers(0, 256, 768).tolist())
  image.save(path)


def coco(root: pathlib.Path) -> None:
  """Two images of train, one of them unlabelled, two of val, and captions."""
  maps = {
    'train2017': {'000000000001': [0, 20, 91, 11], '000000000002': [255]},
    'val2017': {'000000000003': [0, 20, 91, 255], '000000000004': [89, 181, 11]},
  }
  for split, found in maps.items():
    captions = {'images': [], 'annotations': []}
    for name, numbers in found.items():
      photo(root / f'coco/{split}/{name}.jpg')
      grey(root / f'coco/stuffthingmaps/{split}/{name}.png', values(numbers))
      captions['images'].append({'id': int(name), 'file_name': f'{name}.jpg'})
      for text in ('a cow ', f'number\n{int(name)}'):
        captions['annotations'].append({'image_id': int(name), 'caption': text})
    path = root / f'coco/annotations/captions_{split}.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(captions))


def ade20k(root: pathlib.Path) -> None:
  """Two images of the scene parsing challenge."""
  top = root / 'ADEChallengeData2016'
  for name, numbers in {'1': [0, 1, 150], '2': [3, 2]}.items():
    photo(top / f'images/validation/ADE_val_{name:0>8}.jpg')
    grey(top / f'annotations/validation/ADE_val_{name:0>8}.png', values(numbers))


def ade20k_full(root: pathlib.Path) -> None:
  """Two images of the full release, and one of its training part."""
  top = root / 'ADE20K_2021_17_01/images/ADE'
  for folder, name, numbers in (
    ('validation/urban/street', 'ADE_val_00000001', [0, 2978, 312, 3688]),
    ('validation/nature/sea', 'ADE_val_00000002', [2264, 1]),
    ('training/nature/sea', 'ADE_train_00000001', [2264]),
  ):
    photo(top / folder / f'{name}.jpg')
    ids = values(numbers, np.uint16)
    # Red holds the upper byte times 10, and in its last digit nothing of interest.
    colours = np.stack([ids // 256 * 10 + 4, ids % 256, ids * 0 + 7], axis=-1)
    Image.fromarray(colours.astype(np.uint8)).save(top / folder / f'{name}_seg.png')


def context(root: pathlib.Path) -> None:
  """Two listed images of Pascal Context, and a third that is not listed."""
  top = root / 'VOCdevkit/VOC2010'
  (top / 'trainval').mkdir(parents=True)
  for name, numbers in {
    '2008_1': [0, 2, 459],
    '2008_2': [23, 1],
    '2008_3': [2],
  }.items():
    photo(top / f'JPEGImages/{name}.jpg')
    scipy.io.savemat(
      top / f'trainval/{name}.mat', {'LabelMap': values(numbers, np.uint16)}
    )
  (top / 'pascalcontext_val.txt').write_text('2008_1\n2008_2\n')


def voc(root: pathlib.Path, *, folder: str = 'SegmentationClassAug') -> None:
  """Two listed images of VOC."""
  top = root / 'VOCdevkit/VOC2012'
  for name, numbers in {'2007_1': [0, 1, 20, 255], '2007_2': [15, 0]}.items():
    photo(top / f'JPEGImages/{name}.jpg')
    grey(top / f'{folder}/{name}.png', values(numbers), palette=True)
  listed = top / 'ImageSets/Segmentation/val.txt'
  listed.parent.mkdir(parents=True)
  listed.write_text('2007_1\n2007_2\n')


def everything(root: pathlib.Path) -> None:
  """Writes all layouts."""
  for write in (coco, ade20k, ade20k_full, context, voc):
    write(root)
