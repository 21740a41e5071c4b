"""`predict --format`: folders of formats, runs that go on, and results among photos."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from tiny_ovseg import STORED, draw_params

from ovs_jax import Segmenter, predict
from ovs_jax.core.checkpoint import save_model
from ovs_jax.formats import FORMATS
from ovs_jax.inference import ovseg as ovseg_module

NAMES = 'cat, house, water, street, hat, moon'  # of which the tiny model finds some
ALL = ','.join(FORMATS)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  directory = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(directory, draw_params(), STORED)
  return directory


@pytest.fixture
def photos(tmp_path):
  """Two folders, each with a photo 1.png of its own."""
  for seed, folder in ((3, 'a'), (7, 'b')):
    (tmp_path / 'photos' / folder).mkdir(parents=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (50, 70, 3)).astype(np.uint8)
    pixels[:, :20], pixels[30:, 30:] = (250, 20, 20), (10, 200, 10)
    Image.fromarray(pixels).save(tmp_path / 'photos' / folder / '1.png')
  return tmp_path / 'photos'


@pytest.fixture
def run(checkpoint, photos, tmp_path, capfd, monkeypatch):
  """Runs the command; returns its code, output, errors and number of encodings."""
  real, encoded = ovseg_module.encode_pictures, []

  def encode(config, params, pictures, **options):
    encoded.extend(pictures)
    return real(config, params, pictures, **options)

  monkeypatch.setattr(ovseg_module, 'encode_pictures', encode)

  def call(*flags, image=None, names=NAMES, output=None):
    images = [image] if isinstance(image, str) else image or [photos / 'a' / '1.png']
    argv = [f'--checkpoint={checkpoint}', f'--names={names}', '--image']
    argv += [*map(str, images), f'--output={output or tmp_path / "out"}', *flags]
    encoded.clear()
    return predict.main(argv), *capfd.readouterr(), len(encoded)

  return call


def files_in(folder):
  found = (p.relative_to(folder).as_posix() for p in folder.rglob('*') if p.is_file())
  return {name for name in found if not name.endswith('.ovs_jax_results')}


def labels_in(folder, stem):
  return np.asarray(Image.open(folder / f'{stem}_labels.png')).astype(int)


def test_names_are_read_once(run, monkeypatch):
  read, seen = predict._names, []

  def names(arguments):
    seen.append(arguments)
    return read(arguments)

  monkeypatch.setattr(predict, '_names', names)
  assert run()[0] == 0 and len(seen) == 1


def test_all_formats(run, photos, tmp_path):
  code, out, err, _ = run(f'--format={ALL}')
  assert (code, err) == (0, '')
  made = files_in(tmp_path / 'out')
  masks = {'SegmentationClass/1.png', 'SegmentationObject/1.png', 'JPEGImages/1.png'}
  masks |= {'labelmap.txt', 'ImageSets/Segmentation/default.txt'}
  assert made == {
    '1_labels.png',
    '1_overlay.png',
    '1_segments.json',
    'png/1.png',
    'png/labels.json',
    'coco/annotations.json',
    'yolo/images/1.png',
    'yolo/labels/1.txt',
    'yolo/data.yaml',
    'labelme/1.json',
    'labelstudio/tasks.json',
    'labelstudio/interface.xml',
    'npz/1.npz',
    'panoptic/panoptic.json',
    'panoptic/panoptic/1.png',
    *(f'{kind}/{path}' for kind in ('voc', 'cvat') for path in masks),
  }
  for path in made:  # it lists what it wrote
    assert str(tmp_path / 'out' / path) in out, path
  labels = labels_in(tmp_path / 'out', '1')
  labels[labels == 255] = -1
  assert (labels >= 0).any()
  for path in ('png/1.png', 'voc/SegmentationClass/1.png'):
    values = np.asarray(Image.open(tmp_path / 'out' / path))
    np.testing.assert_array_equal(values, labels + 1)
  coco = COCO(tmp_path / 'out' / 'coco' / 'annotations.json')
  again = np.full(labels.shape, -1)
  for annotation in coco.loadAnns(coco.getAnnIds()):
    again[coco.annToMask(annotation) > 0] = annotation['category_id'] - 1
  np.testing.assert_array_equal(again, labels)
  copied = tmp_path / 'out' / 'yolo' / 'images' / '1.png'
  assert copied.read_bytes() == (photos / 'a' / '1.png').read_bytes()


def test_without_a_format_there_is_none(run, tmp_path):
  assert run()[0] == 0
  assert files_in(tmp_path / 'out') == {
    '1_labels.png',
    '1_overlay.png',
    '1_segments.json',
  }


def test_photos_of_one_name_keep_apart(run, photos, tmp_path):
  code, _, err, _ = run('--format=coco,png', image=f'{photos}/*/1.png')
  assert (code, err) == (0, '')
  assert {'a_1_labels.png', 'b_1_labels.png', 'png/a_1.png', 'png/b_1.png'} < files_in(
    tmp_path / 'out'
  )
  coco = COCO(tmp_path / 'out' / 'coco' / 'annotations.json')
  images = coco.loadImgs(coco.getImgIds())
  assert [image['file_name'] for image in images] == ['a/1.png', 'b/1.png']
  first, second = (labels_in(tmp_path / 'out', stem) for stem in ('a_1', 'b_1'))
  assert (first != second).any()


def test_photos_of_one_name_keep_apart_in_two_runs(run, photos, tmp_path):
  run()
  before = (tmp_path / 'out' / '1_segments.json').read_bytes()
  assert run(image=[photos / 'b' / '1.png'])[3] == 1
  assert (tmp_path / 'out' / '1_segments.json').read_bytes() == before
  stored = json.loads((tmp_path / 'out' / 'b_1_segments.json').read_text())
  assert stored['image'] == str(photos / 'b' / '1.png')
  for folder in ('a', 'b'):  # each is known again
    assert run(image=[photos / folder / '1.png'])[3] == 0


def test_a_run_that_goes_on(run, photos, tmp_path):
  whole = f'{photos}/*/1.png'
  assert run('--format=coco,labelstudio', image=whole)[3] == 2
  files = [tmp_path / 'out' / p for p in ('coco/annotations.json',)]
  files += [tmp_path / 'out' / 'labelstudio' / 'tasks.json']
  want = [path.read_bytes() for path in files]
  for path in files:
    path.unlink()
  (tmp_path / 'out' / 'b_1_labels.png').unlink()
  code, out, _, encoded = run('--format=coco,labelstudio', image=whole)
  assert (code, encoded) == (0, 1) and 'skipped' in out
  assert [path.read_bytes() for path in files] == want
  # Other formats, and parts in place of segments, are not there yet.
  assert run('--format=coco,yolo', image=whole)[3] == 2
  assert run('--format=coco', '--parts', image=whole)[3] == 2
  assert run('--format=coco', '--parts', image=whole)[3] == 0
  coco = COCO(files[0])
  assert len(coco.getAnnIds()) > len(json.loads(want[0])['annotations'])


def test_a_photo_that_cannot_be_read(run, photos, tmp_path):
  (photos / 'bad.png').write_bytes(b'nothing')
  code, _, err, _ = run(
    '--format=coco', image=[photos / 'bad.png', photos / 'a' / '1.png']
  )
  assert code == 2 and err.count('\n') == 1
  coco = COCO(tmp_path / 'out' / 'coco' / 'annotations.json')
  assert [image['file_name'] for image in coco.loadImgs(1)] == ['a/1.png']


class TestResultsAmongPhotos:
  def test_are_not_segmented(self, run, photos):
    everything = f'{photos}/**/*'
    folder = photos / 'a'
    flags = [f'--format={ALL}', '--panoptic']
    assert run(*flags, image=everything, output=folder)[3] == 2
    before = files_in(photos)
    code, out, err, encoded = run(*flags, image=everything, output=folder)
    assert (code, err, encoded) == (0, '', 0)
    # Labels, ids, two to look at, png, yolo, ids and twice three of VOC, of two photos.
    assert out.splitlines()[0].endswith('and 25 more are results, and left out')
    assert files_in(photos) == before
    # Results that went elsewhere are known too, and so are those of removed photos.
    (folder / '1.png').unlink()
    assert run(image=everything)[3] == 1

  def test_a_folder_of_results_alone(self, run, photos, tmp_path):
    run('--format=yolo')
    for folder in ('', 'yolo/images'):
      code, _, err, _ = run(image=[tmp_path / 'out' / folder])
      assert code == 2 and err.count('\n') == 1
      assert 'is a directory without image files' in err

  def test_photos_with_such_names_are_photos(self, run, photos):
    shutil.move(photos / 'a' / '1.png', photos / 'a' / '1_overlay.png')
    assert run(image=[photos / 'a'])[3] == 1
    # And whoever names a result itself gets it segmented.
    run(image=[photos / 'b'], output=photos / 'b')
    assert run(image=[photos / 'b' / '1_overlay.png'])[3] == 1


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--format=cocoa'], "unknown format 'cocoa'"),
    (['--format='], 'no format is named; known: png, coco, yolo'),
    (['--parts'], '--parts belongs to --format=coco'),
    (['--format=yolo', '--parts'], '--parts belongs to --format=coco'),
    (['--format=cvat', '--names=a:b'], "cannot hold the name 'a:b'"),
    (['--format=coco,png', '--names=' + ','.join(map(str, range(256)))], 'most 255'),
    (['--format=png', '--classify'], '--format belong to segmentation'),
  ],
)
def test_mistakes(run, tmp_path, flags, message):
  code, out, err, encoded = run(*flags)
  assert (code, out, encoded) == (2, '', 0)
  assert err.startswith('error: ') and err.count('\n') == 1 and message in err, err
  assert not (tmp_path / 'out').exists()


def test_a_format_that_cannot_hold_a_photo(run, photos, tmp_path, monkeypatch):
  monkeypatch.setattr('ovs_jax.formats.voc._MOST', 0)
  code, _, err, _ = run('--format=voc,png')
  assert code == 2 and err.count('\n') == 1
  assert "segments, and the format 'voc' holds at most 0" in err
  made = files_in(tmp_path / 'out')
  assert not [path for path in made if '1' in path], made


def test_from_python(checkpoint, photos, tmp_path):
  segmenter = Segmenter.load(checkpoint)
  photo = photos / 'a' / '1.png'
  result = segmenter.segment(photo, NAMES, panoptic=True)
  made = result.save(tmp_path / 'made', photo, 'coco, yolo')
  assert (
    {p.relative_to(tmp_path / 'made').as_posix() for p in made}
    == {
      'coco/annotations.json',
      'yolo/images/1.png',
      'yolo/labels/1.txt',
      'yolo/data.yaml',
    }
    == files_in(tmp_path / 'made')
  )
  value = json.loads((tmp_path / 'made' / 'coco' / 'annotations.json').read_text())
  assert value == json.loads(json.dumps(result.to_coco(photo)))
  assert result.to_coco()['images'][0]['file_name'] == 'image'
  # With ids there is an annotation for each of them.
  found = result.panoptic.segments
  assert [a['area'] for a in value['annotations']] == [s.area for s in found] != []
  assert [a['score'] for a in value['annotations']] == [s.confidence for s in found]
  plain = segmenter.segment(photo, NAMES)
  parts = plain.to_coco(photo, parts=True)['annotations']
  assert len(parts) > len(plain.segments())
  assert sum(a['area'] for a in parts) == (plain.labels >= 0).sum()
  with pytest.raises(ValueError, match="unknown format 'gif'"):
    result.save(tmp_path, photo, 'gif')
