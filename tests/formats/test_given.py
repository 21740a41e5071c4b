"""Masks from the files of other tools, and files that are damaged."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco_masks

from ovs_jax.core.errors import UserError
from ovs_jax.formats.given import open_masks
from ovs_jax.formats.polygons import filled
from ovs_jax.formats.rle import coco_counts, coco_mask, runs

SIZE = (6, 8)


@pytest.fixture
def masks():
  """Two that overlap, and one of two parts."""
  found = np.zeros((3, *SIZE), bool)
  found[0, 1:4, 2:6] = True
  found[1, 3:, 4:] = True
  found[2, 0, 0] = found[2, 5, 7] = True
  return found


def rle(mask, *, compressed=True):
  counts = coco_counts(mask) if compressed else runs(mask.ravel(order='F')).tolist()
  return {'size': list(mask.shape), 'counts': counts}


def coco(annotations, **image):
  images = [
    {'id': 7, 'file_name': 'other.jpg'},
    {'id': 3, 'file_name': 'photos/photo.jpg', **image},
  ]
  return {
    'images': images,
    'annotations': [{'image_id': 3, **a} for a in annotations],
  }


@pytest.fixture
def read(tmp_path):
  """Reads masks from a JSON file of COCO, or from one of SAM in a folder."""

  def call(stored, *, sam=False):
    path = tmp_path / ('photo.json' if sam else 'coco.json')
    path.write_text(json.dumps(stored))
    return open_masks(tmp_path if sam else path).read(tmp_path / 'photo.jpg', SIZE)

  return call


def full(found):
  return np.stack([found.full(i) for i in range(len(found))]) > 0


def sources(found):
  return [cut.source for cut in found.cuts]


class TestReaders:
  def test_folder_of_pngs(self, tmp_path, masks):
    (tmp_path / 'photo').mkdir()
    for name, mask in zip('cab', masks, strict=True):
      path = tmp_path / 'photo' / f'{name}.png'
      Image.fromarray((255 * mask).astype(np.uint8)).save(path)
    found = open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)
    assert sources(found) == ['a.png', 'b.png', 'c.png']
    np.testing.assert_array_equal(full(found), masks[[1, 2, 0]])

  @pytest.mark.parametrize('kind', ['grey', 'palette', '16 bits'])
  def test_index_png(self, tmp_path, kind):
    values = np.zeros(SIZE, np.uint16 if kind == '16 bits' else np.uint8)
    values[1:3, 2:5] = 4
    values[5, 7] = values[0, 0] = 255
    image = Image.fromarray(values)
    if kind == 'palette':
      image.putpalette(bytes(range(256)) * 3)
    image.save(tmp_path / 'photo.png')
    found = open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)
    assert sources(found) == [4, 255]
    np.testing.assert_array_equal(full(found), [values == 4, values == 255])

  @pytest.mark.parametrize('compressed', [True, False])
  def test_coco_runs(self, read, masks, compressed):
    annotations = [
      {'id': 10 + i, 'segmentation': rle(mask, compressed=compressed)}
      for i, mask in enumerate(masks)
    ]
    found = read(coco(annotations, height=6, width=8))
    assert sources(found) == [10, 11, 12]
    np.testing.assert_array_equal(full(found), masks)

  def test_annotations_of_other_photos_are_left_out(self, read, masks):
    stored = coco([{'id': 5, 'segmentation': rle(masks[0])}])
    stored['annotations'].append(
      {'id': 1, 'image_id': 7, 'segmentation': rle(masks[1])}
    )
    stored['images'].append({'id': 1, 'file_name': 'gs://bucket/another.jpg'})
    assert sources(read(stored)) == [5]

  def test_coco_polygons(self, read):
    square, triangle = [2, 1, 6, 1, 6, 4, 2, 4], [0, 0, 4, 0, 0, 4]
    found = read(coco([{'segmentation': [square, triangle]}, {'segmentation': square}]))
    expected = np.zeros(SIZE, bool)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(full(found)[1], expected)
    for y, length in enumerate([3, 2, 1]):  # centres strictly below the diagonal
      expected[y, :length] = True
    np.testing.assert_array_equal(full(found)[0], expected)

  @pytest.mark.parametrize('empty', [{}, {'segmentation': []}])
  def test_coco_boxes(self, read, empty):
    boxes = [[2, 1, 4, 3], [1.6, 0.4, 1, 1], [6, 4, 100, 100], [50, 50, 2, 2]]
    found = full(read(coco([{'bbox': box, **empty} for box in boxes])))
    expected = np.zeros((4, *SIZE), bool)
    expected[0, 1:4, 2:6] = True
    expected[1, 0, 2] = True  # whose centre is 2.5, 0.5
    expected[2, 4:, 6:] = True
    np.testing.assert_array_equal(found, expected)

  @pytest.mark.parametrize('data_set', [False, True])
  def test_sam(self, read, masks, data_set):
    entries = [
      {
        'segmentation': rle(mask),
        'area': int(mask.sum()),
        'bbox': [0, 0, 1, 1],
        'predicted_iou': 0.9,
      }
      for mask in masks
    ]
    if data_set:
      entries = {'image': {'file_name': 'sa_1.jpg'}, 'annotations': entries}
    found = read(entries, sam=True)
    assert sources(found) == [0, 1, 2]
    np.testing.assert_array_equal(full(found), masks)

  def test_images_of_one_name_are_told_apart_by_folders(self, tmp_path, masks):
    stored = {
      'images': [{'id': k, 'file_name': f'{k}/photo.jpg'} for k in 'ab'],
      'annotations': [
        {'id': k, 'image_id': k, 'segmentation': rle(masks[0])} for k in 'ab'
      ],
    }
    (tmp_path / 'coco.json').write_text(json.dumps(stored))
    files = open_masks(tmp_path / 'coco.json')
    assert sources(files.read(tmp_path / 'b' / 'photo.jpg', SIZE)) == ['b']
    with pytest.raises(UserError, match='several images photo.jpg'):
      files.read(tmp_path / 'c' / 'photo.jpg', SIZE)


class TestRuns:
  def test_decoding_is_the_inverse_of_encoding(self):
    generator = np.random.default_rng(0)
    for _ in range(200):
      size = tuple(generator.integers(1, 40, 2).tolist())
      mask = generator.random(size) < generator.choice([0, 0.02, 0.5, 0.98, 1])
      theirs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
      lengths = runs(mask.ravel(order='F')).tolist()
      for counts in (coco_counts(mask), theirs['counts'], lengths):
        np.testing.assert_array_equal(coco_mask(counts, size), mask)

  @pytest.mark.parametrize(
    ('counts', 'message'),
    [
      ([0, 47], 'are of 47 pixels, less than the 6 x 8'),
      ([0, 49], 'are of 49 pixels, more than the 6 x 8'),
      ([0, 10**15], 'more than the 6 x 8'),
      ([], 'are of 0 pixels, less'),
      ([50, -2], 'lengths that are not numbers from 0 on'),
      ([0.5, 47.5], 'lengths that are not numbers'),
      (['a'], 'lengths that are not numbers'),
      ('0', 'are of 0 pixels, less'),
      ('o', 'end amid a number'),
      ('o' * 100, "the character 'o' where there can be none"),
      ('é', "the character 'é'"),
      ('!', "the character '!'"),
    ],
  )
  def test_damaged_runs_are_refused_in_a_line(self, counts, message):
    with pytest.raises(UserError, match=message) as caught:
      coco_mask(counts, SIZE)
    assert '\n' not in str(caught.value)


class TestPolygons:
  def test_differ_from_pycocotools_at_borders_alone(self):
    generator = np.random.default_rng(0)
    for _ in range(50):
      points = generator.uniform(0, 50, (5, 2))
      mine = filled(points, (60, 50))
      theirs = coco_masks.decode(
        coco_masks.merge(coco_masks.frPyObjects([points.ravel().tolist()], 60, 50))
      ).astype(bool)
      different = np.argwhere(mine != theirs)[:, ::-1] + 0.5
      assert len(different) < 0.2 * mine.sum() + 20
      along = np.linspace(points, np.roll(points, -1, axis=0), 400).reshape(-1, 2)
      away = np.linalg.norm(different[:, None] - along[None], axis=2).min(axis=1)
      assert (away < 1).all()

  def test_rectangles_are_those_of_pycocotools(self):
    for x0, y0, x1, y1 in np.random.default_rng(1).integers(0, 30, (50, 4)).tolist():
      points = [x0, y0, x1, y0, x1, y1, x0, y1]
      theirs = coco_masks.decode(coco_masks.frPyObjects([points], 30, 30)[0])
      mine = filled(np.array(points, float).reshape(-1, 2), (30, 30))
      np.testing.assert_array_equal(mine, theirs)


class TestDamaged:
  @pytest.mark.parametrize(
    ('annotation', 'message'),
    [
      ({'segmentation': {'size': [8, 6], 'counts': [48]}}, '8 x 6 pixels'),
      ({'segmentation': {'size': [6, 8], 'counts': [40]}}, 'are of 40 pixels, less'),
      ({'segmentation': {'size': [6, 8]}}, 'its RLE lacks'),
      ({'segmentation': {'counts': 'a'}}, 'its RLE lacks'),
      ({'segmentation': [[1, 2, 3, 4]]}, 'its polygon has 4 numbers'),
      ({'segmentation': [[1, 2, 3, 4, 5, 'a']]}, 'its polygon has values that are no'),
      ({'segmentation': [[1, 2, 3, 4, 5, float('nan')]]}, 'that are no numbers'),
      ({'segmentation': [[1, 2, 3, 4, 5, 10**400]]}, 'that are no numbers'),
      ({'segmentation': 'runs'}, 'no RLE and no polygon'),
      ({'bbox': [1, 2, 3]}, 'no segmentation, and no bbox'),
      ({}, 'no segmentation, and no bbox'),
    ],
  )
  @pytest.mark.parametrize('sam', [False, True])
  def test_annotations_are_named(self, read, annotation, message, sam):
    annotation = {'id': 12, **annotation}
    stored = [annotation] if sam else coco([annotation])
    with pytest.raises(UserError, match=rf'json: annotation 12: .*{message}') as caught:
      read(stored, sam=sam)
    assert '\n' not in str(caught.value)

  def test_photos_that_are_not_there(self, read, tmp_path, masks):
    stored = coco([{'segmentation': rle(masks[0])}])
    stored['images'].pop()
    with pytest.raises(UserError, match='no image with the file_name photo.jpg'):
      read(stored)
    with pytest.raises(FileNotFoundError, match='expected x/\\*.png, x.png or x.json'):
      open_masks(tmp_path).read(tmp_path / 'x.jpg', SIZE)
    with pytest.raises(FileNotFoundError, match='masks .*nowhere not found; give'):
      open_masks(tmp_path / 'nowhere')

  def test_no_masks(self, read, tmp_path):
    for stored, sam in ((coco([]), False), ([], True)):
      with pytest.raises(UserError, match='json: there are no masks; give at least'):
        read(stored, sam=sam)
    (tmp_path / 'photo.json').unlink()
    (tmp_path / 'photo').mkdir()
    with pytest.raises(UserError, match='photo: there are no masks; give at least'):
      open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)

  def test_other_sizes(self, read, tmp_path):
    with pytest.raises(UserError, match='photo.jpg has 8 x 6 pixels'):
      read(coco([{'bbox': [0, 0, 1, 1]}], height=8, width=6))
    Image.new('L', (6, 8)).save(tmp_path / 'photo.png')
    with pytest.raises(UserError, match='photo.png: it has 8 x 6 pixels'):
      open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)
    (tmp_path / 'photo').mkdir()
    with pytest.raises(UserError, match='both are masks of'):
      open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)
    (tmp_path / 'photo.png').rename(tmp_path / 'photo' / 'a.png')
    with pytest.raises(UserError, match='photo: a.png has 8 x 6 pixels'):
      open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)

  @pytest.mark.parametrize(
    ('text', 'message'),
    [
      ('{"images": [', 'is no JSON in UTF-8'),
      ('[]', 'no lists "images" and "annotations"'),
      ('{"images": [], "annotations": 5}', 'no lists "images"'),
      ('{"images": [3], "annotations": []}', 'no lists "images"'),
    ],
  )
  def test_files_that_are_no_coco(self, tmp_path, text, message):
    (tmp_path / 'coco.json').write_text(text)
    with pytest.raises(UserError, match=message):
      open_masks(tmp_path / 'coco.json')

  def test_other_files(self, tmp_path, read):
    Image.new('RGB', (8, 6)).save(tmp_path / 'photo.png')
    with pytest.raises(UserError, match='a picture with 3 channels, and no index'):
      open_masks(tmp_path).read(tmp_path / 'photo.jpg', SIZE)
    with pytest.raises(UserError, match='is no folder and no JSON file'):
      open_masks(tmp_path / 'photo.png')
    (tmp_path / 'photo.png').unlink()
    with pytest.raises(UserError, match='it holds no list of masks'):
      read({'masks': []}, sam=True)
