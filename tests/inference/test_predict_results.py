"""The command line on many photos: folders, names files, resuming, and all outputs."""

import json
import os
import warnings

import numpy as np
import pytest
from PIL import Image
from tiny_ovseg import STORED, draw_params

from ovs_jax import Classifier, predict
from ovs_jax.core.checkpoint import save_model
from ovs_jax.inference import ovseg as ovseg_module
from ovs_jax.inference.segmenter import Segmenter
from ovs_jax.ops.guided import refine

NAMES = 'red ball, grass'


@pytest.fixture(scope='module')
def checkpoint(tmp_path_factory):
  directory = tmp_path_factory.mktemp('model') / 'ovseg'
  save_model(directory, draw_params(), STORED)
  return directory


@pytest.fixture
def photos(tmp_path):
  """A folder with two photos."""
  (tmp_path / 'photos').mkdir()
  for name in ('a.png', 'b.png'):
    pixels = np.random.default_rng(ord(name[0])).integers(0, 256, (50, 70, 3))
    Image.fromarray(pixels.astype(np.uint8)).save(tmp_path / 'photos' / name)
  return tmp_path / 'photos'


@pytest.fixture
def run(checkpoint, photos, tmp_path, capfd, monkeypatch):
  """Runs the command; returns its code, output, errors and number of encodings."""
  real, encoded = ovseg_module.encode_pictures, []

  def encode(config, params, pictures, **options):
    encoded.extend(pictures)
    return real(config, params, pictures, **options)

  monkeypatch.setattr(ovseg_module, 'encode_pictures', encode)

  def call(*flags, names=NAMES, image=None, output=True):
    argv = [*flags, f'--checkpoint={checkpoint}', f'--image={image or photos}']
    argv += [f'--names={names}'] if names else []
    argv += [f'--output={tmp_path / "out"}'] if output else []
    encoded.clear()
    return predict.main(argv), *capfd.readouterr(), len(encoded)

  return call


def read(path):
  return json.loads(path.read_text(encoding='utf-8'))


def test_json_and_scores(run, checkpoint, photos, tmp_path):
  code, out, err, _ = run('--scores')
  assert code == 0 and not err
  assert sorted(os.listdir(tmp_path / 'out')) == [
    f'{name}_{what}'
    for name in 'ab'
    for what in ('labels.png', 'overlay.png', 'scores.npz', 'segments.json')
  ]
  segmenter = Segmenter.load(checkpoint)
  result = segmenter.segment(segmenter.encode(photos / 'a.png'), NAMES)
  stored = read(tmp_path / 'out' / 'a_segments.json')
  assert stored['image'] == str(photos / 'a.png')
  assert (stored['height'], stored['width']) == (50, 70)
  assert stored['names'] == ['red ball', 'grass']
  assert stored['no_name'] == pytest.approx((result.labels < 0).mean())
  assert len(stored['segments']) == len(result.segments()) > 0
  for found in stored['segments']:
    mask = result.labels == found['label']
    assert found['name'] == stored['names'][found['label']]
    assert found['share'] == pytest.approx(mask.mean())
    assert found['score'] == pytest.approx(result.scores[mask].mean(), rel=1e-5)
    sure = result.confidence[mask].mean()
    assert found['confidence'] == pytest.approx(sure, rel=1e-5) and 0 < sure <= 1
    ys, xs = np.nonzero(mask)
    assert found['box'] == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
  with np.load(tmp_path / 'out' / 'a_scores.npz') as arrays:
    keys = {'scores', 'confidence', 'names', 'boxes', 'labels', 'proposer', 'clip'}
    assert set(arrays) == keys
    assert arrays['confidence'].dtype == np.float16
    assert arrays['confidence'].shape == (2, 50, 70)
    for k, sure in enumerate(arrays['confidence']):
      mine = result.labels == k
      want = result.confidence[mine]
      np.testing.assert_allclose(sure[mine], want, rtol=1e-3, atol=1e-7)
    # Encoded by another program, which rounds differently with JAX 0.12.
    np.testing.assert_allclose(arrays['scores'], result.scores, rtol=1e-5)
    np.testing.assert_allclose(
      arrays['clip'], result.proposals.clip, rtol=1e-3, atol=1e-6
    )
    assert arrays['names'].tolist() == ['red ball', 'grass']
  for line in ('segments: ', 'scores:   '):
    assert f'{line}{tmp_path / "out"}' in out


class TestResume:
  def test_skips_what_is_there(self, run, photos, tmp_path):
    assert run(image=photos / 'a.png')[3] == 1
    code, out, _, encoded = run()
    assert code == 0 and encoded == 1
    assert f'{photos / "a.png"}: skipped, its results are in' in out
    assert f'{photos / "b.png"} (70 x 50' in out
    code, out, _, encoded = run()
    assert (code, encoded, out.count('skipped')) == (0, 0, 2)
    assert run('--overwrite')[3] == 2

  @pytest.mark.parametrize('what', ['labels.png', 'overlay.png', 'segments.json'])
  def test_what_is_missing_is_made(self, run, photos, tmp_path, what):
    run()
    (tmp_path / 'out' / f'a_{what}').unlink()
    assert run()[3] == 1
    assert (tmp_path / 'out' / f'a_{what}').is_file()

  def test_other_settings_are_no_results(self, run, photos, tmp_path):
    run()
    labels = tmp_path / 'out' / 'a_labels.png'
    for flags, names in (
      ([], 'red ball, sky'),
      (['--rule=demo'], NAMES),
      (['--threshold=0.5'], NAMES),
      (['--background=sky'], NAMES),
      (['--weight=0.2'], NAMES),
      (['--scores'], NAMES),  # not there yet
    ):
      assert run(*flags, names=names)[3] == 2, flags
      assert run(*flags, names=names)[3] == 0, flags
    assert labels.is_file()

  def test_a_new_photo_or_damaged_record(self, run, photos, tmp_path):
    run()
    Image.new('RGB', (70, 50), 'red').save(photos / 'a.png')
    (tmp_path / 'out' / 'b_segments.json').write_text('{"key": ')
    assert run()[3] == 2
    assert run()[3] == 0

  def test_results_among_the_photos(self, run, photos):
    argv = [f'--output={photos}']
    assert run(*argv, output=False)[3] == 2
    code, _, err, encoded = run(*argv, output=False)
    assert (code, err, encoded) == (0, '', 0)
    assert len(os.listdir(photos)) == 2 + 6


class TestNames:
  def test_file(self, run, tmp_path):
    path = tmp_path / 'names.txt'
    path.write_text('# two\nred ball: ball, sphere\ngrass\n', encoding='utf-8-sig')
    code, _, err, _ = run(f'--names-file={path}', '--synonyms=max', names=None)
    assert code == 0 and not err
    stored = read(tmp_path / 'out' / 'a_segments.json')
    assert stored['names'] == ['red ball', 'grass']
    assert stored['settings']['synonyms'] == 'max'
    assert stored['settings']['classes'] == {
      'red ball': ['red ball', 'ball', 'sphere'],
      'grass': ['grass'],
    }

  def test_background_becomes_255(self, run, tmp_path):
    run('--background=sky, sea', names='red ball')
    labels = np.asarray(Image.open(tmp_path / 'out' / 'a_labels.png'))
    assert set(np.unique(labels)) <= {0, 255}
    assert read(tmp_path / 'out' / 'a_segments.json')['names'] == ['red ball']

  @pytest.mark.parametrize(
    ('flags', 'message'),
    [
      (['--names-file=no.txt'], 'names file no.txt not found'),
      (['--names-file={}/twice.txt'], 'lines 1 and 2 of'),
      (['--names=cat', '--background=Cat'], "['Cat'] are both class names and"),
      (['--names=cat', '--background=' + 'word ' * 90], 'the limit is 77'),
      (['--names=cat', '--threshold=-1'], '--threshold must be a confidence in 0..1'),
      (['--names=cat', '--rule=demo', '--weight=0.5'], '--rule=demo takes CLIP'),
      (['--names=cat', '--image=none/*.jpg'], 'no file matches none/*.jpg'),
    ],
  )
  def test_mistakes(self, run, tmp_path, flags, message):
    (tmp_path / 'twice.txt').write_text('cat\nCat\n')
    code, out, err, encoded = run(*(f.format(tmp_path) for f in flags), names=None)
    assert (code, out, encoded) == (2, '', 0)
    assert err.startswith('error: ') and err.count('\n') == 1 and message in err, err

  def test_one_of_two_flags(self, checkpoint, capsys):
    with pytest.raises(SystemExit):
      predict.main(['--checkpoint=a', '--image=b', '--names=c', '--names-file=d'])
    assert 'not allowed with argument' in capsys.readouterr().err


def test_cache_warnings_are_one_line(run, tmp_path):
  (tmp_path / 'file').write_text('')
  code, _, err, _ = run(f'--text-cache={tmp_path / "file" / "cache"}')
  lines = err.splitlines()
  assert code == 0 and 1 <= len(lines) <= 2
  assert all(line.startswith('warning: cannot ') for line in lines)
  assert warnings.showwarning is not predict.show_warning


class TestClassify:
  def classify(self, run, *flags, **options):
    return run('--classify', *flags, output=False, **options)

  def test_prints_probabilities(self, run, checkpoint, photos):
    code, out, err, encoded = self.classify(run, names='cat, dog, red ball')
    assert (code, err, encoded) == (0, '', 0)
    classifier = Classifier.load(checkpoint)
    lines = []
    for name in ('a.png', 'b.png'):
      shares = classifier.classify(photos / name, 'cat, dog, red ball')
      lines.append(str(photos / name))
      lines += [f'  {100 * p:.1f} %  {n}' for n, p in shares.items()]
    assert [' '.join(x.split()) for x in out.splitlines()] == [
      ' '.join(x.split()) for x in lines
    ]

  def test_a_clip_checkpoint(self, checkpoint, photos, tmp_path, capfd):
    stored = {'model': 'clip', 'clip': STORED['clip']}
    save_model(tmp_path / 'clip', draw_params()['clip'], stored)
    argv = ['--classify', f'--image={photos / "a.png"}', '--names=cat, dog']
    outputs = []
    for directory in (tmp_path / 'clip', checkpoint):
      assert predict.main([*argv, f'--checkpoint={directory}']) == 0
      outputs.append(capfd.readouterr().out)
    assert outputs[0] == outputs[1] and 'cat' in outputs[0]

  def test_many_names(self, run, photos):
    names = ', '.join(f'name {i}' for i in range(30))
    _, out, _, _ = self.classify(run, names=names, image=photos / 'a.png')
    assert len(out.splitlines()) == 22
    assert out.splitlines()[-1] == '  ... and 10 less probable names'

  def test_mistakes(self, run, photos):
    code, out, err, _ = self.classify(run, names='cat')
    assert (code, out) == (2, '') and 'of a single name is always 1' in err
    code, _, err, _ = self.classify(run, '--weight=0.5', '--scores')
    assert code == 2
    assert '--weight --scores belong to segmentation and not to --classify' in err
    (photos / 'bad.png').write_bytes(b'nothing')
    code, out, err, _ = self.classify(run)
    assert code == 2 and 'bad.png cannot be read' in err and 'b.png' in out


def test_segments_with_ids_and_agreement(run, photos, tmp_path):
  code, out, err, _ = run('--panoptic', '--agreement', image=photos / 'a.png')
  assert code == 0 and not err
  assert 'agreement with exact labels: 100.0 %' in out
  stored = read(tmp_path / 'out' / 'a_segments.json')
  assert stored['agreement'] == 1 and stored['skipped'] == 0
  assert stored['panoptic']['trained'] is False
  ids = np.asarray(Image.open(tmp_path / 'out' / 'a_panoptic.png'))
  assert ids.shape == (50, 70)
  for segment in stored['panoptic']['segments']:
    assert (ids == segment['id']).sum() == segment['area'] > 0
    assert segment['name'] == stored['names'][segment['label']]
  assert set(np.unique(ids)) - {0} == {s['id'] for s in stored['panoptic']['segments']}


def test_windows(run, photos, tmp_path):
  code, out, err, _ = run('--window=64', '--overlap=0.5', image=photos / 'a.png')
  assert code == 0 and not err and '(70 x 50 pixels)' in out
  assert Image.open(tmp_path / 'out' / 'a_labels.png').size == (70, 50)


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--overlap=0.5'], '--overlap belongs to --window'),
    (['--window=8'], 'at least 32 pixels'),
    (['--window=64', '--panoptic'], 'needs a whole picture'),
    (['--window=64', '--agreement'], 'leave --window out'),
    (['--mode=filtered', '--rule=demo'], "in the mode 'exact'"),
    (['--classify', '--mode=one_pass'], '--mode belong to segmentation'),
  ],
)
def test_flags_that_do_not_go_together(run, flags, message):
  output = '--classify' not in flags
  code, out, err, encoded = run(*flags, output=output)
  assert code == 2 and message in err and err.count('\n') == 1
  assert not encoded and not out


def test_borders_follow_the_photo(run, checkpoint, photos, tmp_path):
  assert run('--refine=2')[0] == 0
  photo = np.asarray(Image.open(photos / 'a.png'))
  segmenter = Segmenter.load(checkpoint)
  plain = segmenter.segment(segmenter.encode(photo), ['red ball', 'grass'])
  found = plain.refine(photo, radius=2)
  want, _ = refine(plain.labels, photo, radius=2)
  np.testing.assert_array_equal(found.labels, want)
  changed = want != plain.labels
  assert 0 < changed.mean() < 1
  np.testing.assert_array_equal(found.confidence[~changed], plain.confidence[~changed])
  assert (found.scores[changed] == 0).all() and found.confidence.max() <= 1
  written = np.asarray(Image.open(tmp_path / 'out' / 'a_labels.png'))
  blank = np.iinfo(written.dtype).max
  np.testing.assert_array_equal(written, np.where(want < 0, blank, want))
  # Done with these settings, and not with others.
  assert run('--refine=2')[3] == 0 and run()[3] == 2


def test_what_refining_cannot_go_with(run, checkpoint, photos):
  for flags, said in (
    (['--refine=0'], 'expected at least 1 pixel'),
    (['--refine=3', '--panoptic', '--scores'], 'leave --panoptic, --scores or'),
  ):
    code, _, errors, encoded = run(*flags)
    assert (code, encoded) == (2, 0) and said in errors
  segmenter = Segmenter.load(checkpoint)
  photo = np.asarray(Image.open(photos / 'a.png'))
  result = segmenter.segment(segmenter.encode(photo), ['grass'], panoptic=True)
  with pytest.raises(ValueError, match='without panoptic=True'):
    result.refine(photo)
