"""Every format is read back by another reader, pixel for pixel."""

import io
import json

import numpy as np
import pytest
from drawn_masks import NAMES, cases, draw_photo, found_in
from PIL import Image
from pycocotools import mask as coco_masks
from pycocotools.coco import COCO

from ovs_jax.formats import FORMATS, parse_formats, run
from ovs_jax.formats.coco import Coco, to_coco
from ovs_jax.formats.found import Entry, Found, Instance
from ovs_jax.formats.parts import connected
from ovs_jax.formats.polygons import polygons
from ovs_jax.formats.rle import brush, coco_counts, coco_counts_of, coco_mask, runs
from ovs_jax.formats.voc import voc_colours

each_case = pytest.mark.parametrize('labels', cases().values(), ids=cases().keys())


def entry(found, record=None):
  name = f'{found.stem}.png'
  return Entry(found.photo, name, found.stem, found.size, lambda: record)


def filled(points, shape):
  """Fills a polygon and its border, as OpenCV does: by the even-odd rule."""
  mask = np.zeros(shape, bool)
  inside = np.zeros(shape, bool)
  rows, columns = np.mgrid[: shape[0], : shape[1]]
  for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
    steps = max(abs(x1 - x0), abs(y1 - y0), 1)
    assert x0 == x1 or y0 == y1 or abs(x1 - x0) == abs(y1 - y0)
    for i in range(steps + 1):
      mask[y0 + (y1 - y0) * i // steps, x0 + (x1 - x0) * i // steps] = True
    if y0 != y1:
      crosses = (rows >= min(y0, y1)) & (rows < max(y0, y1))
      inside ^= crosses & (columns < x0 + (rows - y0) * (x1 - x0) / (y1 - y0))
  return mask | inside


@each_case
class TestMasks:
  def test_polygons(self, labels):
    for k in range(3):
      parts = [np.zeros(labels.shape, bool) for _ in connected(labels == k)]
      for part, pixels in zip(parts, connected(labels == k), strict=True):
        part.flat[pixels] = True
        assert coco_counts_of(pixels, labels.shape) == coco_counts(part)
      assert (sum(part.astype(int) for part in parts) == (labels == k)).all()
      drawn = polygons(labels == k)
      assert len(drawn) == len(parts)
      for points in drawn:
        x, y = points[0]
        [part] = [p for p in parts if p[y, x]]
        np.testing.assert_array_equal(filled(points, labels.shape), part)
        assert len(points) >= 3

  def test_coco_runs(self, labels):
    for k in range(-1, 3):
      mask = labels == k
      theirs = coco_masks.encode(np.asfortranarray(mask.astype(np.uint8)))
      assert coco_counts(mask) == theirs['counts'].decode()
      np.testing.assert_array_equal(coco_mask(coco_counts(mask), mask.shape), mask)

  def test_brush(self, labels):
    bits = ''.join(f'{byte:08b}' for byte in brush(labels == 0))
    place = 0

    def read(count):
      nonlocal place
      place += count
      return int(bits[place - count : place], 2)

    total, word = read(32), read(5) + 1
    sizes = [read(4) + 1 for _ in range(4)]
    values = []
    while len(values) < total:
      repeated = read(1)
      length = 1 + read(sizes[read(2)])
      several = (
        [read(word)] * length if repeated else [read(word) for _ in range(length)]
      )
      values += several
    channels = np.array(values).reshape(*labels.shape, 4)
    want = np.repeat(255 * (labels == 0)[..., None], 4, axis=2)
    np.testing.assert_array_equal(channels, want)
    assert len(bits) - place < 8


def test_a_long_brush():
  # More than 16 bits hold, at the end of a kind of length, and one beyond.
  for count in (1, 2, 4, 16384, 16385, 40000):
    mask = np.zeros((1, 50000), bool)
    mask[0, 10 : 10 + count] = True
    assert len(brush(mask)) < 40
  assert runs(np.array([True, True, False])).tolist() == [0, 2, 1]


class TestCoco:
  def read(self, value, tmp_path):
    (tmp_path / 'coco.json').write_text(json.dumps(value), encoding='utf-8')
    return COCO(tmp_path / 'coco.json')

  def test_masks_areas_boxes_and_scores(self, tmp_path):
    entries, maps = [], []
    for i, labels in enumerate(cases().values()):
      found = found_in(labels, tmp_path / f'{i}.png', stem=str(i))
      record = json.loads(json.dumps(Coco().record(found, parts=False)))
      entries.append(entry(found, record))
      maps.append(labels)
    coco = self.read(to_coco(entries, NAMES), tmp_path)
    assert [c['name'] for c in coco.loadCats(coco.getCatIds())] == list(NAMES)
    assert len(coco.getImgIds()) == len(maps)
    assert len(coco.getAnnIds()) == len(set(coco.getAnnIds()))
    for i, labels in enumerate(maps, start=1):
      [image] = coco.loadImgs(i)
      assert (image['height'], image['width']) == labels.shape
      assert image['file_name'] == f'{i - 1}.png'
      again = np.full(labels.shape, -1)
      for annotation in coco.loadAnns(coco.getAnnIds(imgIds=i)):
        mask = coco.annToMask(annotation).astype(bool)
        rle = annotation['segmentation']
        assert annotation['area'] == coco_masks.area(rle) == mask.sum()
        assert annotation['bbox'] == coco_masks.toBbox(rle).tolist()
        assert annotation['score'] == annotation['category_id'] / 4
        again[mask] = annotation['category_id'] - 1
      np.testing.assert_array_equal(again, labels)

  def test_connected_parts(self, tmp_path):
    labels = np.array([[0, 0, -1, 0], [-1, -1, -1, 0], [1, -1, 0, -1], [-1, 1, -1, -1]])
    found = found_in(labels, tmp_path / 'a.png')
    found.confidence[2, 2] = 0.75  # it touches the one above by a corner
    record = Coco().record(found, parts=True)
    for made in record:
      rle = made['segmentation']
      assert made['area'] == coco_masks.area(rle)
      assert made['bbox'] == coco_masks.toBbox(rle).tolist()
    coco = self.read(to_coco([entry(found, record)], NAMES), tmp_path)
    every = coco.loadAnns(coco.getAnnIds())
    assert [(a['category_id'], a['area']) for a in every] == [(1, 2), (1, 3), (2, 2)]
    assert [a['score'] for a in every] == pytest.approx([0.25, 1.25 / 3, 0.5])
    whole = to_coco([entry(found, Coco().record(found, parts=False))], NAMES)
    assert len(whole['annotations']) == 2

  def test_nothing_found(self, tmp_path):
    found = found_in(np.full((4, 5), -1), tmp_path / 'a.png')
    coco = self.read(to_coco([entry(found, [])], NAMES), tmp_path)
    assert coco.getAnnIds() == [] and len(coco.getImgIds()) == 1


def values(content):
  image = Image.open(io.BytesIO(content))
  assert image.mode == 'P'
  return np.asarray(image), np.asarray(image.convert('RGB'))


@each_case
def test_png(labels, tmp_path):
  png = FORMATS['png']()
  found = found_in(labels, tmp_path / 'a.png')
  indices, colours = values(png.files(found)['photo.png'])
  np.testing.assert_array_equal(indices, labels + 1)
  legend = json.loads(png.finish([], NAMES)['labels.json'])
  assert [row['name'] for row in legend['labels']] == list(NAMES)
  assert legend['nothing'] == 0
  for row in legend['labels']:
    mine = colours[labels == row['value'] - 1]
    assert (mine == row['colour']).all()
  assert (colours[labels < 0] == 0).all()


@each_case
@pytest.mark.parametrize('name', ['voc', 'cvat'])
def test_voc_and_cvat(labels, name, tmp_path):
  made = FORMATS[name]()
  photo = draw_photo(tmp_path / 'a.jpg', labels.shape)
  found = found_in(labels, photo, stem='a')
  files = made.files(found)
  assert files['JPEGImages/a.jpg'] == photo and sorted(files) == made.paths(photo, 'a')
  text = made.finish([entry(found)], NAMES)['labelmap.txt'].decode()
  rows = [line.split(':') for line in text.splitlines() if not line.startswith('#')]
  assert [row[0] for row in rows] == ['background', *NAMES]
  assert all(len(row) == 4 for row in rows)
  indices, colours = values(files['SegmentationClass/a.png'])
  np.testing.assert_array_equal(indices, labels + 1)
  for i, row in enumerate(rows):
    assert (colours[labels == i - 1] == [int(x) for x in row[1].split(',')]).all()
  objects, _ = values(files['SegmentationObject/a.png'])
  for i, instance in enumerate(found.instances, start=1):
    np.testing.assert_array_equal(objects == i, instance.mask)
  assert ((objects == 0) == (labels < 0)).all()
  lists = made.finish([entry(found)], NAMES)['ImageSets/Segmentation/default.txt']
  assert lists == b'a\n'


def test_colours_of_voc():
  # The first ones of the development kit, and the last.
  want = [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0], [0, 0, 128]]
  assert voc_colours()[:5].tolist() == want
  assert voc_colours()[8].tolist() == [64, 0, 0]
  assert voc_colours()[255].tolist() == [224, 224, 192]


@each_case
@pytest.mark.parametrize('cut', [int, round])
def test_yolo(labels, cut, tmp_path):
  made = FORMATS['yolo']()
  found = found_in(labels, tmp_path / 'a.png')
  text = made.files(found)['labels/photo.txt'].decode()
  again = np.full(labels.shape, -1)
  h, w = labels.shape
  for line in text.splitlines():
    k, *numbers = line.split()
    xy = np.array(numbers, np.float32).reshape(-1, 2) * np.float32([w, h])
    assert (xy >= 0).all() and (xy < [w, h]).all()
    points = [(cut(float(x)), cut(float(y))) for x, y in xy]
    again[filled(points, labels.shape)] = int(k)
  np.testing.assert_array_equal(again, labels)
  yaml = made.finish([], NAMES)['data.yaml'].decode()
  assert '\n  1: "käse, \\"alt\\""\n' in yaml


@each_case
def test_labelme(labels, tmp_path):
  photo = draw_photo(tmp_path / 'deep' / 'a.png', labels.shape)
  found = found_in(labels, photo)
  read = json.loads(FORMATS['labelme']().files(found)['photo.json'])
  assert (read['imageHeight'], read['imageWidth']) == labels.shape
  folder = photo.parent / 'labelme'
  assert (folder / read['imagePath']).resolve() == photo.resolve()
  again, groups = np.full(labels.shape, -1), {}
  for shape in read['shapes']:
    points = [(int(x), int(y)) for x, y in shape['points']]
    again[filled(points, labels.shape)] = NAMES.index(shape['label'])
    groups.setdefault(shape['label'], set()).add(shape['group_id'])
  np.testing.assert_array_equal(again, labels)
  assert all(len(group) == 1 for group in groups.values())


def test_label_studio(tmp_path):
  made = FORMATS['labelstudio']()
  entries = []
  for name, labels in cases().items():
    found = found_in(labels, tmp_path / f'{name}.png', stem=name)
    entries.append(
      entry(found, json.loads(json.dumps(made.record(found, parts=False))))
    )
  files = made.finish(entries, NAMES)
  tasks = json.loads(b''.join(files['tasks.json']))
  assert len(tasks) == len(entries)
  ids = set()
  for task, labels in zip(tasks, cases().values(), strict=True):
    assert task['data']['image'].startswith('/data/local-files/?d=')
    [prediction] = task['predictions']
    for found in prediction['result']:
      [name] = found['value']['brushlabels']
      assert found['value']['rle'] == brush(labels == NAMES.index(name))
      size = found['original_height'], found['original_width']
      assert size == labels.shape
      ids.add(found['id'])
  assert len(ids) == sum(len(t['predictions'][0]['result']) for t in tasks)
  assert b'value="grass"' in files['interface.xml']
  assert json.loads(b''.join(made.finish([], NAMES)['tasks.json'])) == []


@each_case
def test_npz(labels, tmp_path):
  found = found_in(labels, tmp_path / 'a.png')
  with np.load(io.BytesIO(FORMATS['npz']().files(found)['photo.npz'])) as read:
    np.testing.assert_array_equal(read['labels'], labels)
    assert read['names'].tolist() == list(NAMES)
    assert read['masks'].shape == (len(found.instances), *labels.shape)
    for mask, k in zip(read['masks'], read['segment_labels'], strict=True):
      np.testing.assert_array_equal(mask, labels == k)


def test_panoptic(tmp_path):
  made, entries, maps = FORMATS['panoptic'](), [], {}
  for i, labels in enumerate(cases().values()):
    found = found_in(labels, tmp_path / f'{i}.png', stem=str(i))
    record = json.loads(json.dumps(made.record(found, parts=False)))
    entries.append(entry(found, record))
    ((path, content),) = made.files(found).items()
    maps[path] = labels, np.asarray(Image.open(io.BytesIO(content))).astype(int)
  read = json.loads(made.finish(entries, NAMES)['panoptic.json'])
  assert [c['name'] for c in read['categories']] == list(NAMES)
  sizes = {x['id']: (x['height'], x['width']) for x in read['images']}
  for annotation in read['annotations']:
    labels, rgb = maps[f'panoptic/{annotation["file_name"]}']
    ids = rgb @ [1, 256, 65536]
    assert sizes[annotation['image_id']] == labels.shape == ids.shape
    assert {s['id'] for s in annotation['segments_info']} == set(ids[ids > 0].tolist())
    again = np.full(labels.shape, -1)
    for segment in annotation['segments_info']:
      mask = ids == segment['id']
      again[mask] = segment['category_id'] - 1
      (y,), (x,) = (np.nonzero(mask.any(axis=a)) for a in (1, 0))
      box = [x[0], y[0], x[-1] + 1 - x[0], y[-1] + 1 - y[0]]
      assert segment['bbox'] == box and segment['area'] == mask.sum()
    np.testing.assert_array_equal(again, labels)


def test_panoptic_ids_of_three_bytes(tmp_path):
  # 256 segments of one name, a pixel each: the last id is 0 + 256 * 1.
  ids = np.arange(256).reshape(1, 256)
  instances = tuple(Instance(0, ids == i, 1.0) for i in range(256))
  zero = np.zeros((1, 256))
  found = Found(tmp_path / 'a.png', 'a', ('x',), zero.astype(int), zero, instances)
  content = FORMATS['panoptic']().files(found)['panoptic/a.png']
  rgb = np.asarray(Image.open(io.BytesIO(content)))
  assert rgb[0, 0].tolist() == [1, 0, 0] and rgb[0, 255].tolist() == [0, 1, 0]


class TestWhatDoesNotFit:
  @pytest.mark.parametrize(
    ('name', 'most'), [('png', 255), ('voc', 254), ('cvat', 254)]
  )
  def test_too_many_names(self, name, most, tmp_path):
    names = tuple(f'name {i}' for i in range(most))
    made = FORMATS[name]()
    made.check(names, overlapping=False)
    with pytest.raises(
      ValueError, match=f"'{name}' holds at most {most} names in its 8"
    ):
      made.check((*names, 'one'), overlapping=False)
    found = found_in(np.array([[most - 1]]), tmp_path / 'a.png', names=names)
    content = next(c for c in made.files(found).values() if isinstance(c, bytes))
    assert values(content)[0].tolist() == [[most]]

  @pytest.mark.parametrize('name', FORMATS)
  def test_names_that_overlap(self, name):
    made = FORMATS[name]()
    if name in ('png', 'voc', 'cvat', 'panoptic'):
      with pytest.raises(ValueError, match='holds one name per pixel'):
        made.check(NAMES, overlapping=True)
    else:
      made.check(NAMES, overlapping=True)

  @pytest.mark.parametrize('name', ['a:b', '#1', 'Background'])
  def test_names_of_a_label_map(self, name):
    with pytest.raises(ValueError, match='cannot hold the name'):
      FORMATS['cvat']().check([name], overlapping=False)

  def test_too_many_segments(self, tmp_path):
    one = np.zeros((1, 300), bool)
    instances = tuple(
      Instance(0, np.roll(one | (np.arange(300) == 0), i), 1.0) for i in range(255)
    )
    sure = np.zeros((1, 300), np.float32)
    found = Found(
      tmp_path / 'a.png', 'a', ('x',), np.zeros((1, 300), np.int32), sure, instances
    )
    with pytest.raises(ValueError, match="255 segments, and the format 'voc' holds"):
      FORMATS['voc']().files(found)

  def test_unknown(self):
    assert [f.name for f in parse_formats('coco, png,coco')] == ['coco', 'png']
    with pytest.raises(ValueError, match="unknown format 'cocoa'.*Did you mean 'coco'"):
      parse_formats('cocoa')
    with pytest.raises(ValueError, match='no format is named; known: png'):
      parse_formats(' , ')


def test_file_names(tmp_path):
  photos = [tmp_path / 'a' / '1.jpg', tmp_path / 'b' / 'c' / '1.jpg']
  assert [*run.file_names(photos).values()] == ['a/1.jpg', 'b/c/1.jpg']
  assert [*run.file_names(photos[:1]).values()] == ['1.jpg']
  assert run.file_names([]) == {}
