"""CLIPSeg and CoSeg checkpoints through `Segmenter` and `predict`."""

import json
import pathlib

import numpy as np
import pytest
import tiny_prompted
from PIL import Image

from ovs_jax import Segmenter, predict
from ovs_jax.inference.load import load_system
from ovs_jax.inference.system import network_size
from ovs_jax.models import clipseg
from ovs_jax.text.classes import parse_classes

PHOTO = np.random.default_rng(5).integers(0, 256, (10, 14, 3)).astype(np.uint8)
NAMES = ['red ball', 'grass', 'sky', 'a cup', 'a lid']


@pytest.fixture(scope='module')
def checkpoints(tmp_path_factory):
  """Returns a directory for each kind of model."""
  return tiny_prompted.save(tmp_path_factory.mktemp('prompted'))


@pytest.fixture(scope='module')
def segmenters(checkpoints):
  """Returns what `Segmenter.load` gives for both kinds."""
  return {kind: Segmenter.load(checkpoints[kind]) for kind in ('clipseg', 'coseg')}


@pytest.fixture(scope='module')
def pictures(segmenters):
  """Returns the photo as each model encodes it."""
  return {kind: s.encode(PHOTO) for kind, s in segmenters.items()}


@pytest.mark.parametrize('kind', ['clipseg', 'coseg'])
def test_heat_maps_give_the_label_map(segmenters, pictures, kind):
  segmenter = segmenters[kind]
  result = segmenter.segment(pictures[kind], NAMES, threshold=0.0, heat=True)
  assert result.labels.shape == PHOTO.shape[:2]
  assert result.heat.shape == (len(NAMES), 8, 8)
  heat = np.stack([result.heat_map(name) for name in NAMES])
  found = sorted(set(np.unique(result.labels)) - {-1})
  for k in found:
    where = result.labels == k
    best = heat[k][where]
    assert (best >= heat.max(axis=0)[where] - 2e-3).all()  # half precision
    # Of several slots with one name, heat maps are joined before they are resized.
    assert (result.scores[where] <= best + 2e-3).all()
    if kind == 'clipseg':
      np.testing.assert_allclose(result.scores[where], best, atol=2e-3)
  named = result.labels >= 0
  assert found and sum(result.shares().values()) == pytest.approx(named.mean())
  middle = float(np.median(result.confidence[named]))
  above = segmenter.segment(pictures[kind], NAMES, threshold=middle)
  want = np.where(result.confidence >= middle, result.labels, -1)
  np.testing.assert_array_equal(above.labels, want)
  with pytest.raises(ValueError, match='ask for them with heat=True'):
    above.heat_map('sky')
  assert result.overlay(PHOTO).width >= PHOTO.shape[1]


def test_the_chunks_of_prompts_play_no_part(segmenters, pictures):
  system = segmenters['clipseg'].system
  many = [f'thing {i}' for i in range(11)]  # chunks of 4
  texts = system.embed(parse_classes(many))
  chunks = list(system.masks(pictures['clipseg'], texts))
  assert [len(c.labels) for c in chunks] == [4, 4, 3]
  assert np.concatenate([c.labels for c in chunks]).tolist() == list(range(11))
  alone = next(
    system.masks(pictures['clipseg'], system.embed(parse_classes(many[9:10])))
  )
  np.testing.assert_allclose(chunks[2].logits[1], alone.logits[0], atol=1e-5)
  whole = segmenters['clipseg'].segment(pictures['clipseg'], many, threshold=0.0)
  assert set(np.unique(whole.labels)) <= set(range(11))


@pytest.mark.slow
def test_two_thousand_prompts(segmenters, pictures):
  names = [f'thing {i}' for i in range(2000)]
  result = segmenters['clipseg'].segment(pictures['clipseg'], names, threshold=0.0)
  assert result.labels.min() >= 0 and len(result.names) == 2000


@pytest.mark.parametrize('kind', ['clipseg', 'coseg'])
def test_rules_and_background(segmenters, pictures, kind):
  segmenter, picture = segmenters[kind], pictures[kind]
  every = segmenter.segment(picture, NAMES, threshold=0.0)
  winner = NAMES[np.bincount(every.labels[every.labels >= 0]).argmax()]
  rest = [name for name in NAMES if name != winner]
  without = segmenter.segment(picture, rest, background=[winner], threshold=0.0)
  lost = every.labels == NAMES.index(winner)
  assert (without.labels[lost] == -1).mean() > 0.95  # the rest are ties
  several = segmenter.segment(picture, NAMES, rule='D', threshold=0.01)
  assert sum(several.shares().values()) >= (several.labels >= 0).mean() - 1e-6
  for segment in several.segments():
    assert segment.share == pytest.approx(several.shares()[segment.name])
  soft = segmenter.segment(picture, NAMES, rule='C')
  if kind == 'clipseg':
    np.testing.assert_array_equal(soft.labels, every.labels)
  else:
    assert (soft.labels >= 0).all()
  assert segmenter.segment(picture, NAMES, rule='B').labels.shape == (10, 14)


def test_synonyms(segmenters, pictures):
  segmenter, picture = segmenters['clipseg'], pictures['clipseg']
  words = {'x': ['red ball', 'sky'], 'y': ['grass']}
  best = segmenter.segment(picture, words, synonyms='max', threshold=0.0, heat=True)
  apart = segmenter.segment(
    picture, ['red ball', 'sky', 'grass'], threshold=0.0, heat=True
  )
  want = np.maximum(apart.heat[0], apart.heat[1])
  np.testing.assert_array_equal(best.heat[0], want)
  np.testing.assert_array_equal(best.labels, np.array([0, 0, 1])[apart.labels])
  mean = segmenter.embed_names(words)[0]
  rows = segmenter.embed_names(['red ball', 'sky'])
  np.testing.assert_allclose(mean, rows.mean(axis=0), atol=1e-6)


def test_without_training_names_are_chosen(checkpoints):
  system = load_system(checkpoints['clipseg'], labels=2)
  other = load_system(checkpoints['clipseg'], labels=2, label_clip=checkpoints['clip'])
  encoded = system.encode(PHOTO)
  texts = system.embed(parse_classes(NAMES))
  chosen = system.candidates(encoded, texts)
  cosines = texts.anchors @ encoded.embedding
  assert chosen.tolist() == np.argsort(-cosines)[:2].tolist()
  assert other.candidates(other.encode(PHOTO), texts).tolist() == chosen.tolist()
  labels = np.concatenate([c.labels for c in system.masks(encoded, texts)])
  assert labels.tolist() == chosen.tolist()
  allowed = np.isin(np.arange(5), [3])
  assert system.candidates(encoded, texts, allowed).tolist() == [3]
  assert list(system.masks(encoded, texts, np.zeros(5, bool))) == []


def test_examples_take_the_place_of_texts(segmenters, pictures):
  segmenter, picture = segmenters['clipseg'], pictures['clipseg']
  mask = np.zeros((10, 14), bool)
  mask[2:7, 3:9] = True
  asked = {'heat': True, 'threshold': 0.0}
  text = segmenter.segment(picture, NAMES, **asked)
  shown = segmenter.segment(picture, NAMES, examples={'sky': [(PHOTO, mask)]}, **asked)
  assert np.abs(shown.heat[2] - text.heat[2]).max() > 1e-4
  np.testing.assert_array_equal(shown.heat[:2], text.heat[:2])
  none = segmenter.segment(
    picture, NAMES, examples={'sky': [(PHOTO, mask)]}, example_share=0.0, **asked
  )
  np.testing.assert_array_equal(none.heat, text.heat)
  for wrong, message in (
    ({'sea': [(PHOTO, mask)]}, "examples of 'sea', which is not among the names"),
    ({'sky': [(PHOTO, mask[:3])]}, 'the mask has'),
    ({'sky': [(PHOTO, ~mask & mask)]}, 'is empty; it must mark an object'),
  ):
    with pytest.raises(ValueError, match=message):
      segmenter.segment(picture, NAMES, examples=wrong)
  with pytest.raises(ValueError, match="a 'coseg' model takes no example pictures"):
    segmenters['coseg'].segment(
      pictures['coseg'], NAMES, examples={'sky': [(PHOTO, mask)]}
    )


def test_mistakes(segmenters, pictures, checkpoints):
  for kind, segmenter in segmenters.items():
    with pytest.raises(ValueError, match='no class names'):
      segmenter.segment(pictures[kind], [])
    with pytest.raises(ValueError, match='3x9 pixels, less than a patch of 4x4'):
      segmenter.encode(np.zeros((3, 9, 3), np.uint8))
    with pytest.raises(ValueError, match='a confidence in 0..1, got 1.5'):
      segmenter.segment(pictures[kind], NAMES, threshold=1.5)
    with pytest.raises(ValueError, match='unknown rule'):
      segmenter.segment(pictures[kind], NAMES, rule='pixels')
  with pytest.raises(ValueError, match="weight: not for a 'clipseg' checkpoint"):
    Segmenter.load(checkpoints['clipseg'], weight=0.5)
  with pytest.raises(ValueError, match="'clip' model; a 'clipseg' or 'coseg' model"):
    load_system(checkpoints['clip'], kinds=('clipseg', 'coseg'))
  with pytest.raises(ValueError, match="labels: not for a 'coseg' checkpoint"):
    load_system(checkpoints['coseg'], labels=3)
  params = dict(tiny_prompted.drawn('clipseg'))
  reduce = {'kernel': np.zeros((32, 8), np.float32), 'bias': np.zeros(8, np.float32)}
  params['decoder'] = {**params['decoder'], 'reduce_0': reduce}
  with pytest.raises(ValueError, match='was made for a CLIP of width 32'):
    clipseg.check_decoder(tiny_prompted.CLIPSEG, params)


def test_sizes_of_the_network():
  assert network_size((50, 90), 32, 8, keep_aspect=False) == (32, 32)
  assert network_size((50, 90), 32, 8, keep_aspect=True) == (32, 56)
  assert network_size((10, 900), 32, 8, keep_aspect=True) == (32, 128)


@pytest.fixture
def command(tmp_path, capfd):
  """Runs `predict`; returns its exit code, output and errors."""
  Image.fromarray(PHOTO).save(tmp_path / 'photo.png')
  mask = np.zeros((10, 14), np.uint8)
  mask[2:7, 3:9] = 255
  Image.fromarray(mask).save(tmp_path / 'mask.png')

  def call(checkpoint: pathlib.Path, *more: str):
    argv = [f'--checkpoint={checkpoint}', f'--image={tmp_path / "photo.png"}']
    argv += [f'--output={tmp_path / "out"}', '--names=red ball, grass', *more]
    return predict.main(argv), *capfd.readouterr()

  return call


def test_predict_writes_heat_maps(command, checkpoints, tmp_path):
  example = [
    '--example',
    'grass',
    str(tmp_path / 'photo.png'),
    str(tmp_path / 'mask.png'),
  ]
  code, out, err = command(
    checkpoints['clipseg'], '--heat-maps', '--rule=D', '--threshold=0.2', *example
  )
  assert code == 0, err
  files = sorted(p.name for p in (tmp_path / 'out').iterdir())
  kinds = ('heat.npz', 'heat.png', 'labels.png', 'overlay.png', 'segments.json')
  assert files == [f'photo_{kind}' for kind in kinds]
  with np.load(tmp_path / 'out' / 'photo_heat.npz') as stored:
    assert stored['heat'].shape == (2, 8, 8)
    assert stored['names'].tolist() == ['red ball', 'grass']
  described = json.loads((tmp_path / 'out' / 'photo_segments.json').read_text())
  assert described['settings']['example'][0][0] == 'grass'
  assert (
    'skipped'
    in command(
      checkpoints['clipseg'], '--heat-maps', '--rule=D', '--threshold=0.2', *example
    )[1]
  )
  code, out, err = command(checkpoints['coseg'])
  assert code == 0 and 'red ball' in out, err
  assert command(checkpoints['clipseg'], '--labels=1')[0] == 0


def test_predict_refuses_what_does_not_fit(command, checkpoints):
  for kind, flag, message in (
    ('clipseg', '--weight=0.5', "--weight: not for a 'clipseg' checkpoint"),
    ('clipseg', '--rule=demo', '--rule=demo is not for'),
    ('clip', '--heat-maps', "--heat-maps: not for a 'clip' checkpoint"),
    ('coseg', '--labels=2', "--labels: not for a 'coseg' checkpoint"),
    ('clipseg', '--labels=-2', '-2 labels per picture'),
  ):
    code, _, err = command(checkpoints[kind], flag)
    assert code == 2 and message in err, err


def test_what_a_kind_cannot_do_is_one_error(segmenters, pictures, checkpoints):
  for kind, segmenter in segmenters.items():
    with pytest.raises(
      ValueError, match=f"^weight, panoptic: not for a '{kind}' checkpoint; leave them"
    ):
      segmenter.segment(pictures[kind], NAMES, weight=0.0, panoptic=True)
    with pytest.raises(ValueError, match=f"window: not for a '{kind}' checkpoint"):
      segmenter.encode(PHOTO, window=64)
    with pytest.raises(ValueError, match=f"a '{kind}' checkpoint has one mode only"):
      segmenter.agreement(PHOTO, NAMES)
  with pytest.raises(ValueError, match="^mode, dtype: not for a 'coseg' checkpoint"):
    Segmenter.load(checkpoints['coseg'], mode='exact', dtype='bfloat16')


def test_templates_are_those_asked_for(checkpoints):
  given = {'templates': ['the {}']}
  for kind in ('clipseg', 'coseg'):
    own, other = (Segmenter.load(checkpoints[kind], **x) for x in ({}, given))
    want = own.embed_names(NAMES, **given)
    np.testing.assert_array_equal(other.embed_names(NAMES), want)
    assert np.abs(own.embed_names(NAMES) - want).max() > 1e-3


def test_several_pictures(segmenters, pictures):
  for kind, segmenter in segmenters.items():
    first, second = segmenter.encode([PHOTO, PHOTO[:8]])
    results = [segmenter.segment(p, NAMES) for p in (first, pictures[kind])]
    np.testing.assert_array_equal(results[0].labels, results[1].labels)
    assert segmenter.segment(second, NAMES).labels.shape == (8, 14)


def test_predict_writes_names_that_overlap(command, checkpoints, tmp_path):
  flags = ['--rule=D', '--threshold=0.01', '--format=coco,npz', '--scores']
  code, _, err = command(checkpoints['clipseg'], *flags)
  assert code == 0, err
  value = json.loads((tmp_path / 'out' / 'coco' / 'annotations.json').read_text())
  stored = json.loads((tmp_path / 'out' / 'photo_segments.json').read_text())
  assert [a['area'] / 140 for a in value['annotations']] == pytest.approx(
    [segment['share'] for segment in stored['segments']]
  )
  assert [a['score'] for a in value['annotations']] == pytest.approx(
    [segment['confidence'] for segment in stored['segments']]
  )
  with np.load(tmp_path / 'out' / 'npz' / 'photo.npz') as arrays:
    areas = [annotation['area'] for annotation in value['annotations']]
    assert arrays['masks'].sum(axis=(1, 2)).tolist() == areas
    assert sum(areas) > (arrays['labels'] >= 0).sum()  # some pixels have both
  with np.load(tmp_path / 'out' / 'photo_scores.npz') as arrays:
    assert arrays['confidence'].shape == (2, 10, 14)
    assert arrays['confidence'].max() <= 1 and arrays['confidence'].dtype == np.float16
  code, out, err = command(checkpoints['clipseg'], '--rule=D', '--format=png')
  assert (code, out) == (2, '') and "'png' holds one name per pixel" in err
