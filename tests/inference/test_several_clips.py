"""An OVSeg with several CLIPs, whose probabilities of names are averaged."""

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
import tiny_ovseg
from PIL import Image

from configs import scenes
from ovs_jax import Segmenter, predict
from ovs_jax.core.checkpoint import load_model, save_model
from ovs_jax.evaluate.network import Changes, Network, Setting
from ovs_jax.inference.assemble import assemble
from ovs_jax.inference.classifier import Classifier
from ovs_jax.inference.weigh import weigh
from ovs_jax.models import clip, clip_mix, ovseg
from ovs_jax.models.clip_mix import Mix
from ovs_jax.ops.ensemble import class_logits
from ovs_jax.ops.regions import Pixels
from ovs_jax.ops.resize import resize_bilinear
from ovs_jax.settings import Settings

CONFIG = tiny_ovseg.smallest()
NAMES = ['red ball', 'grass', 'sky', 'snow']
# As wide as the first one is not, in other units, and trained with sigmoids.
OTHER = dataclasses.replace(
  clip.PRESETS['tiny_siglip'],
  embed_dim=32,
  image_size=32,
  vision_layers=1,
  text_layers=1,
  unroll=1,
  image_tower=dataclasses.replace(
    clip.PRESETS['tiny_siglip'].image_tower, projection='bias'
  ),
  text_tower=dataclasses.replace(
    clip.PRESETS['tiny'].text_tower, projection='matrix', causal=False
  ),
  pixels=Pixels((0.5,) * 3, (0.5,) * 3, 'squash'),
)


def propose(config: Any, params: Any, image: Any, size: Any = None) -> ovseg.Proposed:
  """Six soft masks whatever there is to see; a real proposer compiles for long."""
  del config, params, size
  rng = np.random.default_rng(7)
  coarse = jnp.asarray(rng.normal(0, 4, (6, 4, 4)), jnp.float32)
  masks = resize_bilinear(coarse, (image.shape[0] // 4, image.shape[1] // 4))
  rows = jnp.asarray(rng.normal(size=(7, 16)), jnp.float32)
  return ovseg.Proposed(rows[:6], masks, clip.unit(rows[6:]))


READ = Segmenter.load


def load(folder: pathlib.Path, **options: Any) -> Segmenter:
  segmenter = READ(folder, **options)
  segmenter.system.propose = propose
  return segmenter


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Has an OVSeg `whole`, its own CLIP as `same`, and another one as `other`."""
  root = tmp_path_factory.mktemp('clips')
  config = dataclasses.replace(CONFIG, others=(OTHER,))
  params = tiny_ovseg.draw_params(config)
  other = {**params.pop('clip_2'), 'logit_scale': np.float32(np.log(20))}
  save_model(root / 'whole', params, {**tiny_ovseg.STORED, **CONFIG.to_dict()})
  for name, sizes, tower in (
    ('same', CONFIG.clip, params['clip']),
    ('other', OTHER, other),
  ):
    save_model(root / name, tower, {'model': 'clip', 'clip': dataclasses.asdict(sizes)})
  return root


@pytest.fixture(scope='module')
def image() -> np.ndarray:
  small = np.random.default_rng(3).integers(0, 256, (4, 5, 3)).astype(np.uint8)
  return np.asarray(Image.fromarray(small).resize((70, 50), Image.Resampling.BICUBIC))


@pytest.fixture(scope='module')
def alone(folder: pathlib.Path, image: np.ndarray) -> Any:
  return load(folder / 'whole').segment(image, NAMES)


@pytest.fixture(scope='module')
def both(folder: pathlib.Path) -> Segmenter:
  return load(folder / 'whole', clips=[folder / 'other'])


def same(got: Any, want: Any) -> None:
  assert (got.labels == want.labels).mean() > 0.999
  np.testing.assert_allclose(got.scores, want.scores, atol=1e-4)
  np.testing.assert_allclose(got.proposals.clip, want.proposals.clip, atol=1e-5)


def test_two_alike_are_one(folder: pathlib.Path, image: np.ndarray, alone: Any) -> None:
  twice = load(folder / 'whole', clips=[folder / 'same'])
  assert twice.system.mix.weights == (0.5, 0.5)
  # Their crops are cut once.
  picture = twice.encode(image)
  masks = picture.encoded.masks[:2]
  padded = jnp.zeros((*masks.shape[1:], 3))
  assert len(clip_mix.cut_regions(twice.system.config, padded, masks)) == 1
  same(twice.segment(picture, NAMES), alone)


@pytest.mark.slow  # `test_ensemble` has the numbers, in the default tests
def test_without_weight_the_second_plays_no_part(
  folder: pathlib.Path, image: np.ndarray, alone: Any
) -> None:
  first = load(folder / 'whole', clips=[folder / 'other'], clip_weights=(3.0, 0.0))
  same(first.segment(image, NAMES), alone)


def test_each_sees_and_scores_by_its_own_rules(
  both: Segmenter, image: np.ndarray, alone: Any
) -> None:
  system = both.system
  assert system.mix.temperatures == (100.0, pytest.approx(20, rel=1e-5))
  encoded = both.encode(image)
  valid = np.asarray(encoded.encoded.valid)
  (_, _), (one, params) = clip_mix.towers(system.config, system.params)
  assert one.region.size == 32
  padded = ovseg.pad_to_bucket(
    np.asarray(Image.fromarray(image).resize((56, 40), Image.Resampling.BILINEAR))
  )
  regions = clip_mix.cut_regions(one, jnp.asarray(padded), encoded.encoded.masks)[0]
  rows = np.asarray(ovseg.embed_regions(one, params, regions))
  names = system.embedder.each[1].names(NAMES, 'single')
  logits = 20 * np.asarray(class_logits(jnp.asarray(rows), jnp.asarray(names), 1.0))
  shares = np.exp(logits - logits.max(axis=1, keepdims=True))
  shares /= shares.sum(axis=1, keepdims=True)
  got = both.segment(encoded, NAMES).proposals.clip
  np.testing.assert_allclose(got, (alone.proposals.clip + shares[valid]) / 2, atol=2e-3)


def test_by_hand() -> None:
  """Cosines 1 and 0.6 by the first, 0 and 0.8 by the second, of two names."""
  encoded = ovseg.Encoded(
    embeddings=jnp.array([[1.0, 0.0]]),
    regions=jnp.array([[2.0, 0.0, 0.0, 5.0, 0.0]]),
    masks=jnp.zeros((1, 1, 1)),
    boxes=jnp.zeros((1, 4)),
    valid=jnp.ones(1, bool),
    no_object=jnp.array([[0.0, 1.0]]),
  )
  names = clip_mix.join_names(
    [
      np.array([[1, 0], [0.6, 0.8]], np.float32),
      np.array([[1, 0, 0], [0.6, 0.8, 0]], np.float32),
    ]
  )
  np.testing.assert_allclose(names @ names.T, [[1, 0.6], [0.6, 1]], rtol=1e-6)
  mix = Mix((2, 3), (5.0, 2.0)).weighed((1.0, 3.0))
  first, second = 1 / (1 + np.exp(-5 * 0.4)), 1 / (1 + np.exp(2 * 0.8))
  want = 0.25 * first + 0.75 * second
  how = {'rule': 'pixels', 'classifier': 'clip', 'weight': 0.0, 'mix': mix}
  owner = np.arange(2, dtype=np.int32)
  weights, proposer, by_clip = weigh(encoded, names, owner, choosing=2, **how)
  np.testing.assert_allclose(by_clip[0, :3], [want, 1 - want, 0], rtol=1e-5)
  np.testing.assert_allclose(weights, by_clip)
  assert proposer[0, 0] > 0.999  # by the first CLIP's names alone
  # The best word of a class counts, by each CLIP for itself.
  words = np.concatenate([names, names[:1]])
  owner = np.array([0, 1, 1], np.int32)
  _, _, by_clip = weigh(encoded, words, owner, choosing=2, **how)
  second = 1 / (1 + np.exp(2 * 0.8))
  np.testing.assert_allclose(by_clip[0, 0], 0.25 * 0.5 + 0.75 * second, rtol=1e-5)


def test_put_together_and_read_again(
  folder: pathlib.Path, image: np.ndarray, both: Segmenter, tmp_path: pathlib.Path
) -> None:
  where = [str(folder / part) for part in ('whole', 'same')]
  config = scenes.assemble(*where, prompt_depth=3)
  config.test.update(shortest=40, longest=96, weight=0.7, clip_weights=(2.0, 2.0))
  config.test.clips = (str(folder / 'other'),)
  config.text.templates = 'single'
  config.region.threshold = CONFIG.region.threshold
  assemble(Settings.of(config), tmp_path / 'run')
  params, stored = load_model(tmp_path / 'run' / 'model')
  assert set(params) == {'proposer', 'clip', 'clip_2'}
  assert len(stored['others']) == 1 and stored['clip_weights'] == [2, 2]
  read = load(tmp_path / 'run' / 'model')
  assert read.system.config.others[0].scores == 'sigmoid'
  want = both.segment(image, NAMES)
  same(read.segment(image, NAMES), want)
  read.save(tmp_path / 'again')
  again = load(tmp_path / 'again')
  assert again.system.config == read.system.config
  assert again.system.mix == both.system.mix
  for refuses in (
    lambda: Classifier.load(tmp_path / 'again'),
    lambda: load(folder / 'whole', clips=[tmp_path / 'again']),
  ):
    with pytest.raises(ValueError, match='has 2 CLIPs, and one is needed here'):
      refuses()


@pytest.mark.slow
@pytest.mark.parametrize('mode', ['filtered', 'one_pass'])
def test_other_modes_ask_all(
  mode: str, folder: pathlib.Path, image: np.ndarray
) -> None:
  found = [
    load(
      folder / 'whole', clips=[folder / 'other'], clip_weights=weights, mode=mode
    ).segment(image, NAMES)
    for weights in ((1.0, 0.0), (1.0, 1.0))
  ]
  alone = load(folder / 'whole', mode=mode).segment(image, NAMES)
  assert (found[0].labels == alone.labels).mean() > 0.999
  seen = np.isfinite(alone.proposals.clip)
  assert np.abs(found[1].proposals.clip - alone.proposals.clip)[seen].max() > 0.01


def test_what_cannot_be(folder: pathlib.Path) -> None:
  options = {'clips': [folder / 'other']}
  with pytest.raises(ValueError, match='clip_weights are 1; expected 2'):
    load(folder / 'whole', **options, clip_weights=[1.0])
  with pytest.raises(ValueError, match='clip_weights are 1, -1; expected 2'):
    load(folder / 'whole', **options, clip_weights=[1.0, -1.0])
  with pytest.raises(ValueError, match=r'this CLIP \(number 1 of 2\) is its embedd'):
    load(folder / 'whole', **options, mode='pooled')


def test_texts_are_kept_for_each(folder: pathlib.Path, tmp_path: pathlib.Path) -> None:
  segmenter = load(folder / 'whole', clips=[folder / 'other'], text_cache=tmp_path)
  rows = segmenter.embed_names(NAMES)
  assert rows.shape == (4, 16 + 32)
  np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)
  assert len(list(tmp_path.iterdir())) == 2
  again = load(folder / 'whole', clips=[folder / 'other'], text_cache=tmp_path)
  for one in again.system.embedder.each:
    one._embed = None  # nothing is embedded again
  np.testing.assert_array_equal(again.embed_names(NAMES), rows)


def test_an_evaluation_sees_the_same(
  folder: pathlib.Path, image: np.ndarray, both: Segmenter, monkeypatch: Any
) -> None:
  monkeypatch.setattr(ovseg, 'propose', propose)
  changes = Changes(clips=(str(folder / 'other'),))
  network = Network(folder / 'whole', changes=changes)
  assert network.describe()['clip_weights'] == '0.500, 0.500'
  picture = network.encode(image)
  text = network.embed(tuple(NAMES))
  logits = network.logits(picture, text)
  got = network.labels(picture, logits, network.setting)
  want = both.segment(image, NAMES)
  assert (got == want.labels).mean() > 0.999
  weights = {'clip_weights': (1.0, 3.0)}
  other = load(folder / 'whole', clips=[folder / 'other'], **weights)
  setting = Setting('clip', 0.0, (0.25, 0.75))
  assert setting.name == 'clip_clips_0.25_0.75'
  got = network.labels(picture, logits, setting)
  want = other.segment(image, NAMES, classifier='clip')
  assert (got == want.labels).mean() > 0.999
  # A true vocabulary is a shorter list, for each CLIP.
  among = np.array([True, False, True, False])
  got = network.labels(picture, logits, setting, among=among)
  want = other.segment(image, [NAMES[0], NAMES[2]], classifier='clip')
  assert (got == np.array([0, 2])[want.labels]).mean() > 0.999


def test_the_command(
  folder: pathlib.Path,
  image: np.ndarray,
  tmp_path: pathlib.Path,
  capsys: Any,
  monkeypatch: Any,
) -> None:
  monkeypatch.setattr(predict.Segmenter, 'load', load)
  photo = tmp_path / 'photo.png'
  Image.fromarray(image).save(photo)
  asked = [f'--checkpoint={folder / "whole"}', f'--image={photo}', '--names=grass, sky']
  asked += [f'--output={tmp_path / "out"}', f'--clips={folder / "other"}']
  assert predict.main(asked) == 0
  assert 'skipped' not in capsys.readouterr().out
  assert predict.main([*asked, '--clip-weights=1,3']) == 0
  assert 'skipped' not in capsys.readouterr().out
  assert predict.main([*asked, '--clip-weights=1,3']) == 0
  assert 'skipped' in capsys.readouterr().out
  assert predict.main([*asked, '--clip-weights=1']) == 2
  assert 'expected 2, one for each CLIP' in capsys.readouterr().err
