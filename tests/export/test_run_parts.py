"""The runner's own tokenizer and resizing against the package's and Pillow's."""

import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from exported import use_merges

from ovs_jax.core.images import resize_shortest
from ovs_jax.export.run_parts import Tokenizer, resized, tiles
from ovs_jax.export.tokenizer import tokenizer_table
from ovs_jax.ops.painting import View, axis_tiles
from ovs_jax.text import tokenizer

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / 'tests/goldens/tokenizer.json').read_text('ascii'))
SHARED = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))
# Texts decoded by a wrong table: ftfy guesses the right one, the runner does not.
MENDED = 6


def unequal(texts):
  """Returns the texts that the runner reads otherwise than the package."""
  own = Tokenizer(json.loads(json.dumps(tokenizer_table(100_000))))
  wrong = []
  for text in texts:
    ids = own.encode(text)
    expected = tokenizer.tokenize([text], context_length=len(ids) + 3)[0].tolist()
    if expected != ids + [0] * 3:
      wrong.append(text)
  return wrong


def test_texts_become_the_same_ids(tmp_path, monkeypatch):
  use_merges(tmp_path, monkeypatch)
  texts = ['red ball', 'balls, re-red grass', 'A<|EndOfText|> b', "it's 12\u017f", '']
  texts += [
    '\u2018quoted\u2019 \ufb01ne &amp;amp; \x1b[1mbold\x1b[0m',
    'a\u0345b',
    '\r',
  ]
  texts += [text for text, _ in GOLDEN]
  mended = [t for t in texts if not t.isascii() and tokenizer.clean(t) != t.lower()]
  wrong = unequal(texts)
  assert len(texts) > 250
  assert len(wrong) <= MENDED
  assert set(wrong) <= set(mended)
  assert unequal(['sch\u00c3\u00b6n'])  # the test can see a difference


@pytest.mark.samples
def test_3000_texts_become_the_same_ids(monkeypatch):
  path = SHARED / 'clip_bpe' / 'bpe_simple_vocab_16e6.txt.gz'
  monkeypatch.setenv('OVS_CLIP_VOCABULARY', str(path))
  oracle = np.load(SHARED / 'oracles' / 'tokenizer.npz')
  texts = json.loads(str(oracle['in/strings_json']))
  assert len(texts) == 3000
  assert len(unequal(texts)) == MENDED


def test_long_texts_are_refused(tmp_path, monkeypatch):
  use_merges(tmp_path, monkeypatch)
  own = Tokenizer(tokenizer_table(5))
  assert len(own.encode('red ball red')) == 5
  with pytest.raises(ValueError, match='has 6 tokens, more than the model reads'):
    own.encode('red ball red red')


def test_photos_are_resized_as_pillow_does():
  generator = np.random.default_rng(0)
  for _ in range(60):
    h, w = generator.integers(1, 120, 2)
    shortest = int(generator.integers(1, 80))
    sides = {'shortest': shortest, 'longest': shortest + int(generator.integers(120))}
    image = generator.integers(0, 256, (h, w, 3)).astype(np.uint8)
    expected = resize_shortest(image, **sides)
    np.testing.assert_array_equal(resized(image, **sides), expected)


@pytest.mark.parametrize(
  ('inside', 'size', 'full'), [(40, 130, 64), (90, 37, 96), (64, 64, 64), (5, 300, 64)]
)
def test_tiles_are_those_of_painting(inside, size, full):
  masks = jnp.zeros((1, full, full))
  view = View(masks, (inside, inside), (size, size), (0, 0, size, size))
  (starts,), (matrices,) = axis_tiles([view], 0, 64)
  first, weights = tiles(inside, size, full, 64)
  assert len(first) == -(-size // 64)
  np.testing.assert_array_equal(first, starts[: len(first)])
  np.testing.assert_array_equal(weights, matrices[: len(first)])
