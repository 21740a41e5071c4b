"""`--masks` of the command line: what is written, and what is refused."""

import json
import os

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params
from tiny_prompted import save

from ovs_jax import predict
from ovs_jax.core.checkpoint import save_model
from ovs_jax.formats.rle import coco_counts
from ovs_jax.inference.segmenter import Segmenter

SIZE = (50, 70)


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A tiny model with random parameters."""
  directory = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(directory, draw_params(), STORED)
  return directory


@pytest.fixture
def masks():
  """Two that overlap, and one that covers nothing."""
  found = np.zeros((3, *SIZE), bool)
  found[0, 5:30, 5:40] = found[1, 20:45, 30:60] = True
  return found


@pytest.fixture
def folder(tmp_path, masks):
  """Masks of `photo.png` as SAM writes them."""
  (tmp_path / 'masks').mkdir()
  entries = [
    {'segmentation': {'size': list(SIZE), 'counts': coco_counts(m)}} for m in masks
  ]
  (tmp_path / 'masks' / 'photo.json').write_text(json.dumps(entries))
  return tmp_path / 'masks'


@pytest.fixture
def run(checkpoint, folder, tmp_path, capfd):
  """Runs the command; returns its exit code, output and errors."""
  pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'photo.png')

  def call(*more, photos=('photo.png',), **flags):
    flags = {
      'checkpoint': checkpoint,
      'names': 'red ball, grass',
      'output': tmp_path / 'out',
      'masks': folder,
      **flags,
    }
    argv = [f'--{name}={value}' for name, value in flags.items()]
    images = [str(tmp_path / photo) for photo in photos]
    code = predict.main([*argv, *more, '--image', *images])
    return code, *capfd.readouterr()

  return call


def refuses(result, message, tmp_path):
  """Checks the exit code, the one line, and that nothing was written."""
  code, _, err = result
  lines = [line for line in err.splitlines() if not line.startswith('note: ')]
  assert code == 2 and len(lines) == 1 and message in lines[0], err
  assert not [p for p in (tmp_path / 'out').rglob('*') if p.is_file()]


class TestMasks:
  def test_results_are_those_of_the_interface(self, run, checkpoint, tmp_path, masks):
    code, out, err = run('--scores', '--format=coco')
    assert code == 0 and 'grass' in out
    assert err.splitlines() == [
      'note: CLIP alone names masks that are given',
      f'note: {tmp_path / "photo.png"}: 1 of 3 masks cover nothing, and get no name',
    ]
    segmenter = Segmenter.load(checkpoint)
    picture = segmenter.encode(tmp_path / 'photo.png', masks=masks)
    want = segmenter.segment(picture, 'red ball, grass').labels
    labels = np.asarray(Image.open(tmp_path / 'out' / 'photo_labels.png'))
    np.testing.assert_array_equal(labels, np.where(want < 0, 255, want))
    np.testing.assert_array_equal(labels != 255, masks.any(axis=0))
    assert np.load(tmp_path / 'out' / 'photo_scores.npz')['clip'].shape == (2, 2)

  def test_results_are_made_again_when_masks_changed(self, run, folder):
    assert run()[0] == 0
    assert 'skipped' in run()[1]
    os.utime(folder / 'photo.json', (1, 1))
    assert 'skipped' not in run()[1]

  def test_a_photo_without_masks_does_not_stop_the_others(self, run, tmp_path):
    Image.new('RGB', (70, 50)).save(tmp_path / 'other.png')
    code, out, err = run(photos=['other.png', 'photo.png'])
    assert code == 2 and 'photo.png (70 x 50 pixels)' in out
    assert f'error: {tmp_path / "masks"} has no masks of' in err
    written = {p.name for p in (tmp_path / 'out').iterdir()}
    assert written == {f'photo_{w}' for w in ('labels.png', 'overlay.png')} | {
      'photo_segments.json'
    }


class TestEach:
  def test_writes_a_file_with_a_name_for_every_mask(
    self, run, checkpoint, tmp_path, masks
  ):
    code, out, err = run('--rule=each')
    assert code == 0 and err.count('note: ') == 2
    [path] = (tmp_path / 'out').iterdir()
    assert path.name == 'photo_masks.json' and str(path) in out
    stored = json.loads(path.read_text())
    picture = Segmenter.load(checkpoint).encode(tmp_path / 'photo.png', masks=masks)
    want = Segmenter.load(checkpoint).segment(picture, 'red ball, grass', rule='each')
    assert stored['masks'] == json.loads(json.dumps(want.description()['masks']))
    assert [mask['source'] for mask in stored['masks']] == [0, 1, 2]
    assert [mask['area'] for mask in stored['masks']] == [875, 750, 0]
    assert stored['masks'][0]['box'] == [5, 5, 40, 30]
    assert {entry['name'] for entry in stored['masks'][0]['top']} == {
      'red ball',
      'grass',
    }

  def test_is_done_once(self, run, folder):
    assert run('--rule=each')[0] == 0
    assert 'skipped' in run('--rule=each')[1]
    assert 'skipped' not in run('--rule=each', '--overwrite')[1]
    os.utime(folder / 'photo.json', (1, 1))
    assert 'skipped' not in run('--rule=each')[1]

  def test_names_of_another_photo_are_kept(self, run, tmp_path):
    assert run('--rule=each')[0] == 0
    (tmp_path / 'b').mkdir()
    (tmp_path / 'photo.png').rename(tmp_path / 'b' / 'photo.png')
    code, _, err = run('--rule=each', photos=['b/photo.png'])
    assert code == 2 and 'is of another photo than' in err

  @pytest.mark.parametrize('flag', ['--scores', '--format=coco'])
  def test_what_needs_paint_is_refused(self, run, tmp_path, flag):
    refuses(run('--rule=each', flag), '--rule=each paints nothing; leave', tmp_path)

  def test_masks_that_are_damaged(self, run, folder, tmp_path):
    (folder / 'photo.json').write_text('[]')
    refuses(run('--rule=each'), 'photo.json: there are no masks', tmp_path)


def test_each_needs_masks(checkpoint, tmp_path, capfd):
  argv = ['--checkpoint', str(checkpoint), '--names=a, b', '--rule=each']
  code = predict.main([*argv, '--image=a.png', '--output', str(tmp_path / 'out')])
  assert code == 2 and 'give --masks=PATH too' in capfd.readouterr().err


class TestMistakes:
  @pytest.mark.parametrize(
    ('flag', 'message'),
    [
      ('--classifier=ensemble', 'named by CLIP alone'),
      ('--weight=0.5', 'named by CLIP alone'),
      ('--mode=filtered', "the mode 'filtered' chooses among proposals"),
      ('--panoptic', 'a panoptic result divides proposals'),
      ('--window=32', 'leave --window and --agreement out'),
      ('--agreement', 'leave --window and --agreement out'),
      ('--classify', '--output --masks belong to segmentation'),
    ],
  )
  def test_flags_that_do_not_go_together(self, run, tmp_path, flag, message):
    refuses(run(flag), message, tmp_path)

  @pytest.mark.parametrize('kind', ['clipseg', 'coseg'])
  def test_other_models(self, run, tmp_path, kind):
    other = save(tmp_path / 'models')[kind]
    refuses(run(checkpoint=other), f"--masks: not for a '{kind}'", tmp_path)

  def test_damaged_masks(self, run, folder, tmp_path):
    refuses(run(masks=tmp_path / 'no'), 'not found; give a folder', tmp_path)
    (folder / 'photo.json').write_text('[{"segmentation": {"size": [50, 70],')
    refuses(run(), 'photo.json is no JSON in UTF-8', tmp_path)
    (folder / 'photo.json').write_text('[]')
    refuses(run(), 'photo.json: there are no masks', tmp_path)
    rle = {'size': [50, 70], 'counts': [3000]}
    (folder / 'photo.json').write_text(json.dumps([{'segmentation': rle}]))
    refuses(run(), 'annotation 0: the runs of a mask are of 3000 pixels', tmp_path)
