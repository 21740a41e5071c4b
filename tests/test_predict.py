"""The command line: what it writes and prints, and what it says of mistakes."""

import errno
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params

from ovs_jax import predict
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.types import NO_LABEL
from ovs_jax.inference import files as results
from ovs_jax.inference import ovseg as ovseg_module
from ovs_jax.inference.result import ProposalTable, Segmentation
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.ops.colours import palette

ROOT = pathlib.Path(__file__).parents[1]
NAMES = 'red ball, grass'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  """A tiny model with random parameters."""
  directory = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(directory, draw_params(), STORED)
  return directory


@pytest.fixture
def photo(tmp_path):
  pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  Image.fromarray(pixels).save(tmp_path / 'photo.png')
  return tmp_path / 'photo.png'


@pytest.fixture
def run(checkpoint, photo, tmp_path, capfd):
  """Runs the command; returns its exit code, output and errors."""

  def call(**flags):
    flags = {
      'checkpoint': checkpoint,
      'image': photo,
      'names': NAMES,
      'output': tmp_path / 'out',
      **flags,
    }
    images = flags.pop('image')
    images = images if isinstance(images, list) else [images]
    argv = [f'--{name}={value}' for name, value in flags.items() if value is not None]
    code = predict.main([*argv, '--image', *map(str, images)])
    return code, *capfd.readouterr()

  return call


@pytest.fixture
def no_networks(monkeypatch):
  """Mistakes must be found before the image is encoded."""

  def encode(*_, **__):
    raise AssertionError('the image was encoded')

  monkeypatch.setattr(ovseg_module, 'encode_pictures', encode)


def fails(result, message, tmp_path):
  """Checks the exit code, the one line, and that nothing was written."""
  code, out, err = result
  assert code == 2
  assert err.startswith('error: ') and err.count('\n') == 1, err
  assert 'Traceback' not in err
  assert message in err, err
  written = [p for p in tmp_path.rglob('*') if 'out' in p.relative_to(tmp_path).parts]
  assert not [path for path in written if path.is_file()]
  assert not out


def test_writes_label_map_and_overlay(run, photo, checkpoint, tmp_path):
  code, out, err = run()
  assert code == 0 and not err
  labels = Image.open(tmp_path / 'out' / 'photo_labels.png')
  assert labels.mode == 'P' and labels.size == (70, 50)
  segmenter = Segmenter.load(checkpoint)
  expected = segmenter.segment(segmenter.encode(photo), NAMES)
  values = np.where(expected.labels == NO_LABEL, 255, expected.labels)
  np.testing.assert_array_equal(np.asarray(labels), values)
  overlay = np.asarray(Image.open(tmp_path / 'out' / 'photo_overlay.png'))
  np.testing.assert_array_equal(overlay, np.asarray(expected.overlay(photo)))
  assert sorted(os.listdir(tmp_path / 'out')) == [
    'photo_labels.png',
    'photo_overlay.png',
    'photo_segments.json',
  ]
  for name, share in expected.shares().items():
    line = next(line for line in out.splitlines() if f' {name} ' in line)
    assert line.endswith(f'{100 * share:.1f} %')
  assert str(tmp_path / 'out' / 'photo_labels.png') in out


def test_same_files_again(run, tmp_path):
  def read():
    return {p.name: p.read_bytes() for p in (tmp_path / 'out').iterdir()}

  run()
  first = read()
  run()
  assert read() == first


def test_several_images(run, photo, tmp_path):
  Image.open(photo).rotate(180).save(tmp_path / 'other.jpg')
  code, out, err = run(image=[photo, tmp_path / 'other.jpg', photo])
  assert code == 0 and 'error' not in err
  assert len(os.listdir(tmp_path / 'out')) == 6
  assert out.index('photo.png') < out.index('other.jpg')


def test_one_bad_image_does_not_stop_the_others(run, photo, tmp_path):
  (tmp_path / 'bad.jpg').write_bytes(b'nothing')
  code, out, err = run(image=[tmp_path / 'bad.jpg', photo])
  assert code == 2
  assert [line for line in err.splitlines() if line.startswith('error: ')] == [
    f'error: {tmp_path / "bad.jpg"} cannot be read as an image (no known image '
    'format); expected a whole JPEG, PNG, WebP, TIFF, GIF or BMP file'
  ]
  assert len(os.listdir(tmp_path / 'out')) == 3 and 'photo_labels.png' in out


@pytest.mark.parametrize(
  'image',
  [
    Image.new('RGB', (1, 1), 'red'),
    Image.new('L', (40, 40), 99),
    Image.new('I;16', (40, 40), 40_000),
    Image.new('CMYK', (40, 40), (9, 99, 0, 0)),
    Image.new('RGBA', (40, 40), (9, 99, 0, 50)),
    Image.new('P', (40, 40), 3),
  ],
  ids=lambda image: f'{image.mode}-{image.width}',
)
def test_any_image(run, tmp_path, image):
  path = tmp_path / 'any.tiff'
  image.save(path)
  code, _, err = run(image=path)
  assert code == 0 and not err
  labels = Image.open(tmp_path / 'out' / 'any_labels.png')
  assert labels.size == image.size


def test_turned_by_exif(run, tmp_path):
  exif = Image.Exif()
  exif[0x0112] = 6
  Image.new('RGB', (70, 50)).save(tmp_path / 'turned.jpg', exif=exif)
  assert run(image=tmp_path / 'turned.jpg')[0] == 0
  assert Image.open(tmp_path / 'out' / 'turned_labels.png').size == (50, 70)


def test_a_single_name(run, tmp_path):
  code, out, _ = run(names='red ball')
  assert code == 0 and 'others' not in out
  values = np.unique(np.asarray(Image.open(tmp_path / 'out' / 'photo_labels.png')))
  assert set(values) <= {0, 255}


def test_flags_reach_the_segmenter(run, monkeypatch):
  seen = {}
  real = Segmenter.load

  def load(directory, **settings):
    seen.update(settings)
    return real(directory, **settings)

  monkeypatch.setattr(Segmenter, 'load', load)
  assert run(classifier='ensemble', weight='0.25', templates='vild')[0] == 0
  settings = {'classifier': 'ensemble', 'weight': 0.25, 'templates': 'vild'}
  assert seen == settings


@pytest.mark.usefixtures('no_networks')
class TestMistakes:
  @pytest.mark.parametrize(
    ('names', 'message'),
    [
      ('', 'no class names'),
      (' , ', 'no class names'),
      ('cat,,dog', 'is blank'),
      ('cat, CAT', 'are the same'),
      ('word ' * 90, 'the limit is 77'),
    ],
  )
  def test_names(self, run, tmp_path, names, message):
    fails(run(names=names), message, tmp_path)

  def test_image_is_missing(self, run, tmp_path):
    fails(run(image=tmp_path / 'no.jpg'), 'no.jpg not found', tmp_path)

  def test_folder_without_images(self, run, tmp_path):
    (tmp_path / 'empty').mkdir()
    fails(run(image=tmp_path / 'empty'), 'is a directory without image files', tmp_path)

  def test_image_is_none(self, run, tmp_path):
    (tmp_path / 'a.jpg').write_text('hello')
    fails(run(image=tmp_path / 'a.jpg'), 'no known image format', tmp_path)

  def test_checkpoint_is_missing(self, run, tmp_path):
    fails(run(checkpoint=tmp_path / 'no'), f'{tmp_path / "no"} not found', tmp_path)

  def test_checkpoint_is_half_written(self, run, tmp_path):
    save_model(tmp_path / 'half', {'clip': {}, 'proposer': {'a': np.ones(3)}}, STORED)
    for path in (tmp_path / 'half' / 'params').rglob('manifest.ocdbt'):
      path.unlink()
    fails(run(checkpoint=tmp_path / 'half'), 'not written to its end', tmp_path)

  def test_checkpoint_of_another_model(self, run, tmp_path):
    save_model(tmp_path / 'other', {'a': np.ones(3)}, {'model': 'proposer'})
    fails(run(checkpoint=tmp_path / 'other'), "holds a 'proposer' model", tmp_path)

  def test_weight(self, run, tmp_path):
    fails(run(weight='1.5'), 'must lie in 0..1, got 1.5', tmp_path)
    fails(run(weight='nan'), 'must lie in 0..1, got nan', tmp_path)

  def test_output_cannot_be_made(self, run, tmp_path, photo):
    result = run(output=photo / 'sub')  # a file is in the way
    fails(result, f'cannot write to {photo / "sub"}', tmp_path)
    assert '--output=' in result[2] and '--workdir' not in result[2]

  def test_same_results(self, run, photo, tmp_path):
    other = tmp_path / 'photo.jpg'
    Image.open(photo).save(other)
    fails(run(image=[photo, other]), 'would both be written to', tmp_path)

  def test_results_would_replace_an_image(self, run, photo, tmp_path):
    other = tmp_path / 'photo_labels.png'
    Image.open(photo).save(other)
    result = run(image=[photo, other], output=tmp_path)
    fails(result, f'would replace the image {other}', tmp_path)

  @pytest.mark.parametrize(
    'argv',
    [
      [],
      ['--names=a', '--image=b'],
      ['--names=a', '--checkpoint=b'],
      ['--checkpoint=a', '--image=b'],
      ['--checkpoint=a', '--image=b', '--names=c', '--weight=much'],
      ['--checkpoint=a', '--image=b', '--names=c', '--classifier=both'],
      ['--checkpoint=a', '--image=b', '--names=c', '--templates=none'],
      ['--checkpoint=a', '--image', '--names=c'],
      ['--checkpoint=a', '--image=b', '--names=c', '--unknown=d'],
    ],
  )
  def test_flags(self, argv, capsys):
    with pytest.raises(SystemExit) as error:
      predict.main(argv)
    assert error.value.code == 2
    assert 'error: ' in capsys.readouterr().err


@pytest.mark.parametrize('failing', [0, 1])
def test_disk_is_full(run, tmp_path, monkeypatch, failing):
  real, calls = Image.Image.save, []

  def save(self, path, *rest, **options):
    calls.append(path)
    if len(calls) > failing:
      pathlib.Path(path).write_bytes(b'half')
      raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    real(self, path, *rest, **options)

  monkeypatch.setattr(Image.Image, 'save', save)
  fails(run(), 'No space left on device', tmp_path)
  assert not list((tmp_path / 'out').iterdir())


class TestLabelImage:
  def segmentation(self, labels, count):
    return Segmentation(
      labels=np.asarray(labels, np.int32),
      names=tuple(f'name {k}' for k in range(count)),
      scores=np.zeros(np.shape(labels), np.float32),
      confidence=np.zeros(np.shape(labels), np.float32),
      margin=np.zeros(np.shape(labels), np.float32),
      proposals=ProposalTable(
        boxes=np.zeros((0, 4), np.float32),
        labels=np.zeros(0, np.int32),
        proposer=np.zeros((0, count), np.float32),
        clip=np.zeros((0, count), np.float32),
      ),
    )

  def test_8_bits(self, tmp_path):
    results.label_image(self.segmentation([[0, 254, NO_LABEL]], 255)).save(
      tmp_path / 'a.png'
    )
    image = Image.open(tmp_path / 'a.png')
    np.testing.assert_array_equal(np.asarray(image), [[0, 254, 255]])
    colours = np.asarray(image.convert('RGB'))
    np.testing.assert_array_equal(colours[0, :2], palette(255)[[0, 254]])
    np.testing.assert_array_equal(colours[0, 2], [0, 0, 0])

  def test_16_bits(self, tmp_path):
    results.label_image(self.segmentation([[0, 255, NO_LABEL]], 256)).save(
      tmp_path / 'a.png'
    )
    image = Image.open(tmp_path / 'a.png')
    np.testing.assert_array_equal(np.asarray(image), [[0, 255, 65535]])


def test_import_is_light():
  code = (
    'import sys, ovs_jax.predict; '
    'print({"tensorflow", "tensorflow_datasets", "spacy", "torch"} & set(sys.modules))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=ROOT, capture_output=True, text=True, check=True
  )
  assert done.stdout.strip() == 'set()'


def test_as_a_module(tmp_path):
  command = [sys.executable, '-m', 'ovs_jax.predict', '--checkpoint=no', '--names=a']
  done = subprocess.run(
    [*command, '--image=photo.jpg', f'--output={tmp_path}'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.returncode == 2 and not done.stdout
  assert done.stderr.startswith('error: checkpoint ')
  assert done.stderr.count('\n') == 1


@pytest.mark.samples
@pytest.mark.slow
def test_photos(run, tmp_path):
  shared = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))
  photos = sorted((shared / 'samples' / 'photos').glob('*.jpg'))
  assert photos, f'no photos in {shared}; set OVS_SHARED'
  code, out, err = run(image=photos, names='dog, truck, kite, person, sky, cat')
  assert code == 0 and 'error' not in err
  for photo in photos:
    size = Image.open(photo).size
    assert Image.open(tmp_path / 'out' / f'{photo.stem}_labels.png').size == size
    assert photo.name in out
