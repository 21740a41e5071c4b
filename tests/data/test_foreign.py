"""What other programs export holds the masks that it was made of."""

import json
import pathlib
from collections.abc import Callable
from typing import Any

import drawn_photos
import numpy as np
import pytest
from PIL import Image

from ovs_jax.data import folder, pipeline, prepare
from ovs_jax.formats.polygons import polygons
from ovs_jax.formats.rle import brush, brush_mask, coco_counts
from ovs_jax.formats.voc import voc_colours

COUNT = 6
Truth = dict[str, np.ndarray]


@pytest.fixture
def photos(tmp_path: pathlib.Path) -> pathlib.Path:
  drawn_photos.write(tmp_path / 'mine', COUNT, side=24)
  return tmp_path / 'mine'


def truth_of(root: pathlib.Path) -> Truth:
  masks = sorted((root / 'masks').iterdir())
  return {path.stem: np.asarray(Image.open(path)) for path in masks}


def shapes(label: np.ndarray) -> list[tuple[int, np.ndarray]]:
  return [(int(k), label == k) for k in np.unique(label)]


def coco(root: pathlib.Path, truth: Truth, *, outlines: bool = False) -> pathlib.Path:
  images, annotations = [], []
  for number, (stem, label) in enumerate(truth.items(), 1):
    h, w = label.shape
    images.append({'id': number, 'file_name': f'{stem}.jpg', 'height': h, 'width': w})
    for k, mask in shapes(label):
      shape = {'size': [h, w], 'counts': coco_counts(mask)}
      if outlines:  # the border of pixels is half a pixel further out
        shape = {'size': [h, w], 'counts': runs_of(mask)}
      annotations.append(
        {
          'id': len(annotations),
          'image_id': number,
          'category_id': 10 * k + 5,
          'segmentation': shape,
        }
      )
  categories = [
    {'id': 10 * k + 5, 'name': name} for k, name in enumerate(drawn_photos.NAMES)
  ]
  whole = {'images': images, 'annotations': annotations, 'categories': categories}
  (root / 'export.json').write_text(json.dumps(whole))
  return root / 'export.json'


def runs_of(mask: np.ndarray) -> list[int]:
  """COCO's uncompressed runs."""
  flat = mask.ravel(order='F')
  edges = np.flatnonzero(np.diff(flat.astype(int))) + 1
  lengths = np.diff([0, *edges, len(flat)]).tolist()
  return [0, *lengths] if flat[0] else lengths


def uncompressed(root: pathlib.Path, truth: Truth) -> pathlib.Path:
  return coco(root, truth, outlines=True)


def yolo(root: pathlib.Path, truth: Truth) -> pathlib.Path:
  (root / 'labels').mkdir()
  for stem, label in truth.items():
    h, w = label.shape
    lines = []
    for k, mask in shapes(label):
      for points in polygons(mask):
        numbers = [f'{(x + 0.25) / w:.7f} {(y + 0.25) / h:.7f}' for x, y in points]
        lines.append(f'{k} {" ".join(numbers)}')
    (root / 'labels' / f'{stem}.txt').write_text('\n'.join(lines) + '\n')
  names = '\n'.join(f'  {k}: "{name}"' for k, name in enumerate(drawn_photos.NAMES))
  (root / 'data.yaml').write_text(f'train: images\nval: images\nnames:\n{names}\n')
  (root / 'names.txt').unlink()
  return root


def cvat(root: pathlib.Path, truth: Truth) -> pathlib.Path:
  (root / 'images').rename(root / 'JPEGImages')
  (root / 'SegmentationClass').mkdir()
  colours = voc_colours()
  for stem, label in truth.items():
    Image.fromarray(colours[label]).save(root / 'SegmentationClass' / f'{stem}.png')
  rows = zip(drawn_photos.NAMES, colours.tolist(), strict=False)
  lines = [f'{name}:{",".join(map(str, colour))}::' for name, colour in rows]
  text = '\n'.join(['# label:color_rgb:parts:actions', *lines])
  (root / 'labelmap.txt').write_text(text + '\n')
  return root


def labelstudio(root: pathlib.Path, truth: Truth) -> pathlib.Path:
  tasks = []
  for stem, label in truth.items():
    h, w = label.shape
    result = [
      {
        'type': 'brushlabels',
        'original_width': w,
        'original_height': h,
        'value': {
          'format': 'rle',
          'rle': brush(mask),
          'brushlabels': [drawn_photos.NAMES[k]],
        },
      }
      for k, mask in shapes(label)
    ]
    address = f'/data/upload/1/0a1b2c3d-{stem}.jpg'
    tasks.append({'data': {'image': address}, 'annotations': [{'result': result}]})
  (root / 'tasks.json').write_text(json.dumps(tasks))
  return root / 'tasks.json'


WRITERS: list[Callable[[pathlib.Path, Truth], pathlib.Path]] = [
  coco,
  uncompressed,
  yolo,
  cvat,
  labelstudio,
]


def names_of(builder: Any) -> dict[str, list[bytes]]:
  """The photos of each split, in their order."""
  return {
    split: [x['image_id'] for x in pipeline.examples(builder, split)]
    for split in builder.info.splits
  }


@pytest.mark.parametrize('write', WRITERS, ids=lambda w: w.__name__)
def test_masks_and_names(
  write: Callable[..., pathlib.Path], photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  truth = truth_of(photos)
  native = names_of(folder.prepare(tmp_path / 'native', photos))
  builder = folder.prepare(tmp_path / 'data', write(photos, truth))
  assert names_of(builder) == native  # divided and in order, too
  names = folder.vocabulary_of(builder).names
  assert set(names) == set(drawn_photos.NAMES)
  found: Truth = {}
  for split in builder.info.splits:
    for example in pipeline.examples(builder, split):
      stem = example['image_id'].decode().rsplit('/', 1)[-1]
      found[stem] = np.asarray(example['label'])
  assert set(found) == set(truth)
  assert set(builder.info.splits) == {'train', 'val'}
  rows = np.array([names.index(name) for name in drawn_photos.NAMES])
  for stem, label in truth.items():
    np.testing.assert_array_equal(found[stem], rows[label], err_msg=stem)


def test_what_no_annotation_covers(
  photos: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  truth = truth_of(photos)
  path = coco(photos, truth)
  stored = json.loads(path.read_text())
  sky = [x for x in stored['annotations'] if x['category_id'] == 5]
  stored['annotations'] = [x for x in stored['annotations'] if x not in sky]
  path.write_text(json.dumps(stored))
  builder = folder.prepare(tmp_path / 'data', path)
  (example, *_) = pipeline.examples(builder, 'val')
  stem = example['image_id'].decode().rsplit('/', 1)[-1]
  np.testing.assert_array_equal(
    example['label'], np.where(truth[stem] == 0, 255, truth[stem])
  )
  stored['categories'].append({'id': 3, 'name': 'Background'})
  path.write_text(json.dumps(stored))
  builder = folder.prepare(tmp_path / 'data', path)
  names = folder.vocabulary_of(builder).names
  assert names[0] == 'Background'
  (example, *_) = pipeline.examples(builder, 'val')
  assert set(np.unique(example['label'])) <= {0, 2, 3, 4}


@pytest.mark.parametrize(
  ('content', 'said'),
  [
    ('{"images": []}', 'has no lists images, annotations, categories as COCO'),
    ('{"images"', 'is no JSON in UTF-8'),
    (
      '{"images": [{"id": 1, "file_name": "no.jpg"}], "annotations": [], '
      '"categories": [{"id": 1, "name": "a"}]}',
      'missing: no.jpg',
    ),
    ('[{"data": {"image": "/data/upload/x.jpg"}}]', 'missing: x.jpg'),
    ('{"images": [], "annotations": [], "categories": []}', 'no names of classes'),
  ],
)
def test_mistakes_are_one_message(
  content: str, said: str, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  path = tmp_path / 'export.json'
  path.write_text(content)
  assert prepare.main([f'--source={path}', f'--data_dir={tmp_path / "data"}']) == 2
  error = capsys.readouterr().err
  assert said in error and 'Traceback' not in error


def test_brushes_are_what_they_were() -> None:
  mask = np.random.default_rng(0).random((7, 300)) < 0.5
  mask[3] = True
  np.testing.assert_array_equal(brush_mask(brush(mask), mask.shape), mask)
  with pytest.raises(ValueError, match='ends too soon'):
    brush_mask(brush(mask)[:20], mask.shape)
  with pytest.raises(ValueError, match='has 2100 pixels, the photo 7 x 301'):
    brush_mask(brush(mask), (7, 301))
