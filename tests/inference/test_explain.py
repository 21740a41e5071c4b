"""Explanations add up to what segmenting gives, and become a figure."""

import pathlib

import numpy as np
import pytest
import tiny_ovseg
import tiny_prompted
from PIL import Image

from ovs_jax import Segmenter, explain
from ovs_jax.core.checkpoint import save_model
from ovs_jax.core.errors import UserError
from ovs_jax.core.types import NO_LABEL

NAMES = ['red ball', 'grass', 'snow']


@pytest.fixture(scope='module')
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """Two models, and a photo."""
  path = tmp_path_factory.mktemp('explain')
  save_model(path / 'ovseg', tiny_ovseg.draw_params(), tiny_ovseg.STORED)
  tiny_prompted.save(path)
  pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3)).astype(np.uint8)
  pixels[:25], pixels[25:, :35] = 30, 200
  Image.fromarray(pixels).save(path / 'photo.png')
  return path


@pytest.fixture(scope='module')
def segmenter(folder: pathlib.Path) -> Segmenter:
  return Segmenter.load(folder / 'ovseg')


def test_it_adds_up(folder: pathlib.Path, segmenter: Segmenter) -> None:
  photo = folder / 'photo.png'
  result = segmenter.segment(photo, NAMES, background='water')
  for at in ((3, 4), (69, 49)):
    found = segmenter.explain(
      photo, NAMES, at=at, background='water', proposals=1000, weight=0.4
    )
    again = segmenter.segment(photo, NAMES, background='water', weight=0.4)
    here = sum(p.evidence for p in found.proposals)
    np.testing.assert_allclose(found.evidence, here, rtol=1e-5)
    assert found.names == (*NAMES, 'water')
    label = again.labels[at[1], at[0]]
    assert label == (found.winner if found.winner < 3 else NO_LABEL)
    if label >= 0:
      score = again.scores[at[1], at[0]]
      np.testing.assert_allclose(found.evidence[label], score, rtol=1e-4)
    added = [p.evidence[found.winner] for p in found.proposals]
    assert added == sorted(added, reverse=True)
  found = segmenter.explain(photo, NAMES, background='water')
  assert found.at == (35, 25)
  kept = np.where(found.labels < 3, found.labels, NO_LABEL)
  np.testing.assert_array_equal(kept, result.labels)


def test_what_clip_sees(folder: pathlib.Path, segmenter: Segmenter) -> None:
  found = segmenter.explain(folder / 'photo.png', 'grass', proposals=1000)
  assert found.names == ('grass', 'others')
  grey = np.round(255 * np.array([0.48145466, 0.4578275, 0.40821073]))
  patch = tiny_ovseg.CONFIG.clip.patch
  shown = [p for p in found.proposals if p.crop is not None]
  assert shown and len(shown) == len(result_of(segmenter, folder).proposals.boxes)
  for p in shown:
    blank = np.kron(p.prompted, np.ones((patch, patch))).astype(bool)
    assert blank.shape == p.crop.shape[:2]
    # Without a pixel of the mask, a patch has the colour that the rest is filled with,
    # but for what cubic interpolation takes from its neighbours.
    if blank.any():
      assert np.median(np.abs(p.crop[blank] - grey)) <= 1
    np.testing.assert_allclose(p.clip.sum(), 1, rtol=1e-5)
    assert p.proposer.sum() < 1


def result_of(segmenter: Segmenter, folder: pathlib.Path):
  return segmenter.segment(folder / 'photo.png', 'grass')


def test_the_figure(
  folder: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  line = [f'--image={folder / "photo.png"}', '--names=red ball, grass, snow']
  line += [f'--output={tmp_path / "why.png"}', '--at=3,4', '--proposals=3']
  assert explain.main([f'--checkpoint={folder / "ovseg"}', *line]) == 0
  said = capsys.readouterr().out
  assert said.startswith('evidence at x=3, y=4 (ensemble, CLIP to 0.7): ')
  assert said.count('  proposal ') == 3
  image = np.asarray(Image.open(tmp_path / 'why.png'))
  assert image.shape[0] > 1000 and len(np.unique(image.reshape(-1, 4), axis=0)) > 500


@pytest.mark.parametrize(
  ('more', 'message'),
  [
    ('--at=70,4', 'the pixel 70,4 is outside of the picture, 70x50'),
    ('--at=7', '--at=7: expected x,y in pixels'),
    ('--proposals=0', '0 proposals; show at least 1'),
    ('--output=why.jpg', 'give a .png, .pdf or .svg file'),
    ('--names=a, A', 'are the same for CLIP'),
  ],
)
def test_mistakes_are_one_line(
  more: str,
  message: str,
  folder: pathlib.Path,
  capsys: pytest.CaptureFixture[str],
) -> None:
  line = [f'--checkpoint={folder / "ovseg"}', f'--image={folder / "photo.png"}']
  assert explain.main([*line, '--names=a, b', more]) == 2
  said = capsys.readouterr().err
  assert said.startswith('error: ') and said.count('\n') == 1 and message in said


@pytest.mark.parametrize('kind', ['clipseg', 'coseg'])
def test_models_without_proposals(kind: str, folder: pathlib.Path) -> None:
  other = Segmenter.load(folder / kind)
  with pytest.raises(UserError, match=f'{kind}. checkpoint has no proposals'):
    other.explain(folder / 'photo.png', NAMES)
