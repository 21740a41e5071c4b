"""Real files in their official layouts, from the directory $OVS_JAX_SAMPLES.

Run with `OVS_JAX_SAMPLES=DIR pytest -m samples tests/data`.
"""

import json
import os
import pathlib
from typing import Any

import numpy as np
import pytest
from PIL import Image

from ovs_jax.data import (
  class_table,
  layouts,
  load_dataset,
  pipeline,
  prepare,
  shrink,
  sources,
)
from ovs_jax.settings import Dataset
from ovs_jax.text import vocabulary

pytestmark = pytest.mark.samples

COUNTS = {
  'coco_stuff_171': {'train': 13, 'val': 4},
  'coco_80': {'val': 4},
  'ade20k_150': {'val': 3},
  'voc_20': {'val': 30},
  'voc_20b': {'val': 30},
  'voc_21': {'val': 30},
}


@pytest.fixture(scope='module')
def samples() -> pathlib.Path:
  if 'OVS_JAX_SAMPLES' not in os.environ:
    pytest.fail('set OVS_JAX_SAMPLES to a directory with the official layouts')
  return pathlib.Path(os.environ['OVS_JAX_SAMPLES'])


def raw(path: pathlib.Path) -> np.ndarray:
  with Image.open(path) as image:
    return np.asarray(image)


@pytest.mark.parametrize('name', sorted(COUNTS))
def test_every_pixel(name: str, samples: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """Names of classes in the built data are those that the source values mean."""
  prepare.prepare(name, samples, tmp_path, 'partial')
  dataset, builder = load_dataset(Dataset(name, 'partial', str(tmp_path)))
  layout, names = layouts.LAYOUTS[name], vocabulary.load(dataset.vocabulary)
  means = dict(zip(names.source_values, range(len(names)), strict=True))
  for split, count in COUNTS[name].items():
    files = {pair.image_id: pair for pair in layout.splits[split].pairs(samples)}
    found = list(pipeline.examples(builder, split))
    assert len(found) == count
    for example in found:
      pair = files[example['image_id'].decode()]
      expected = np.full(example['label'].shape, dataset.void)
      values = raw(pair.label)
      for value in np.unique(values):
        expected[values == value] = means.get(int(value), dataset.void)
      np.testing.assert_array_equal(example['label'], expected)
      with Image.open(pair.image) as image:
        np.testing.assert_array_equal(
          example['image'], np.asarray(image.convert('RGB'))
        )


def test_captions(samples: pathlib.Path, tmp_path: pathlib.Path) -> None:
  prepare.prepare('coco_captions_2017', samples, tmp_path, 'partial')
  place = Dataset('coco_captions_2017', 'partial', str(tmp_path))
  _, builder = load_dataset(place)
  for split in builder.info.splits:
    path = samples / f'coco/annotations/captions_{split}2017.json'
    given: dict[int, list[str]] = {}
    for x in json.loads(path.read_text())['annotations']:
      given.setdefault(int(x['image_id']), []).append(' '.join(x['caption'].split()))
    for example in pipeline.examples(builder, split):
      captions = [c.decode() for c in example['captions']]
      assert captions == given[int(example['image_id'])] and len(captions) >= 5


def ade_full(samples: pathlib.Path) -> list[pathlib.Path]:
  found = sorted((samples / 'ADE20K_2021_17_01').rglob('*_seg.png'))
  assert len(found) == 3
  return found


def test_ade_full_names_agree_with_its_own_description(samples: pathlib.Path) -> None:
  names = vocabulary.load('ade20k_847')
  table = class_table.class_table(names.source_values, range(3_689))
  for path in ade_full(samples):
    values = sources.read_ade_full(path)
    train_ids, unknown, _ = table.apply(values)
    assert unknown == []
    text = path.with_name(path.name.replace('_seg.png', '.json')).read_text('latin-1')
    objects: Any = json.loads(text)['annotation']['object']
    told = {x['name_ndx']: x['name'] for x in objects if not x['parts']['part_level']}
    present = set(np.unique(values).tolist()) - {0}
    assert present and present <= set(told)
    for value in present & set(names.source_values):
      [train_id] = np.unique(train_ids[values == value])
      assert names.names[train_id] == told[value]


def test_ade_full_both_sizes(samples: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """The sample has files of the training part alone; here they play validation."""
  folder = tmp_path / 'ADE20K_2021_17_01/images/ADE/validation/urban'
  folder.mkdir(parents=True)
  for path in ade_full(samples):
    base = path.name.removesuffix('_seg.png')
    for suffix in ('.jpg', '_seg.png'):
      name = f'{base}{suffix}'.replace('_train_', '_val_')
      (folder / name).symlink_to(path.with_name(f'{base}{suffix}').resolve())
  expected = np.full(3_689, 2**16 - 1)
  expected[list(vocabulary.load('ade20k_847').source_values)] = np.arange(847)
  for variant, shortest in (('partial', 512), ('partial_original', 1467)):
    builder = prepare.prepare('ade20k_847', tmp_path, tmp_path / 'data', variant)
    found = list(pipeline.examples(builder, 'val'))
    assert len(found) == 3
    assert min(min(e['label'].shape) for e in found) == shortest
    for example in found:
      label, image = example['label'], example['image']
      assert label.dtype == np.uint16 and image.shape[:2] == label.shape
      path = folder / f'{example["image_id"].decode()}_seg.png'
      values = sources.read_ade_full(path)
      values = shrink.resize_nearest(values, *label.shape)
      np.testing.assert_array_equal(label, expected[values])
