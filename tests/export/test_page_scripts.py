"""The page's own scripts in Node.js against the exported Python and the package."""

import html
import json
import os
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from exported import use_merges
from in_node import in_node

from ovs_jax.core.errors import UserError
from ovs_jax.core.images import resize_shortest
from ovs_jax.export.run_parts import Tokenizer, resized
from ovs_jax.export.tokenizer import tokenizer_table
from ovs_jax.export.web import html_tables
from ovs_jax.ops.painting import label_map
from ovs_jax.text import tokenizer
from ovs_jax.text.vocabulary import parse_names

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[2]
SHARED = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))
TOKENS = """
import { Tokenizer } from './tokenizer.js';
export function main({ about, texts }) {
  const tokenizer = new Tokenizer(about);
  return texts.map((text) => tokenizer.encode(text));
}
"""
NAMES = """
import { parsedNames } from './names.js';
export function main(texts) {
  return texts.map((text) => {
    try {
      return parsedNames(text, (name) => name.toLowerCase());
    } catch (error) {
      return error.message;
    }
  });
}
"""
PIXELS = """
import { resized, sizeFor, painted } from './pixels.js';
export function main({ photos, maps, grids }) {
  return {
    photos: photos.map(({ data, height, width, shortest, longest }) => {
      const [h, w] = sizeFor(height, width, shortest, longest);
      const photo = { data: Uint8Array.from(data), height, width };
      return [h, w, Array.from(resized(photo, h, w))];
    }),
    grids: grids.map(([height, width, inside, named]) => {
      const full = [maps[0].length, maps[0][0].length];
      const flat = Float32Array.from(maps.flat(2));
      const found = painted(flat, maps.length, full, inside, { height, width, named });
      return [Array.from(found.labels), Array.from(found.confidence)];
    }),
  };
}
"""


def page_ids(folder, texts):
  """Returns the ids that the page gives to texts, and those of the exported Python."""
  table = tokenizer_table(100_000)
  own = Tokenizer(json.loads(json.dumps(table)))
  given = {'about': {**table, **html_tables()}, 'texts': texts}
  return in_node(folder, TOKENS, given), [own.encode(text) for text in texts]


# Code points of each kind that a step of the tokenizer looks for.
PIECES = [
  *('red ball', 'Grass', "it's", "'RE", "'\u017f", '<|endoftext|>', '<|StartOfText|>'),
  *('&amp;', '&amp;amp;', '&lt', '&notit;', '&#x80;', '&#65', '&#0;', '&#xD800;', '&'),
  *('&#99999999;', '&#xFDD0;', '&CounterClockwiseContourIntegral;', '&#;', '<b>'),
  *('\x1b[1;31m', '\x1b[\u0661m', ' ', '\t', '\x1c', '\x85', '\u3000', '\ufeff'),
  *('\u0345', '\u0130', '\u03a3', '\u03a3.', 'e\u0301', '\uac00', '\u1100\u1161'),
  *('12\u00bd', '\u2167', '\u0661', '\U0001f600', '\u2764\ufe0f', '\ufb01', '\uff21'),
  *('\u2018q\u2019', '\x80', '\u2028', '!!!', '--', 'x\u00ad', '\u0e33', '\u212a'),
]


def drawn_texts(count):
  """Returns texts of the pieces, and of any characters that Unicode 15 has."""
  generator = np.random.default_rng(0)
  import unicodedata

  known = [
    c for c in range(0x110000) if unicodedata.category(chr(c)) not in ('Cn', 'Cs')
  ]
  texts = []
  for i in range(count):
    size = int(generator.integers(1, 8))
    if i % 2:
      places = generator.integers(0, len(PIECES), size)
      texts.append(
        ' '.join(PIECES[k] for k in places[:2]) + ''.join(PIECES[k] for k in places[2:])
      )
    else:
      top = 0x250 if i % 4 else len(known)
      texts.append(''.join(chr(known[k]) for k in generator.integers(0, top, size)))
  return texts


def test_3000_drawn_texts_become_the_same_ids(tmp_path, monkeypatch):
  use_merges(tmp_path, monkeypatch)
  texts = [*PIECES, '', *drawn_texts(3000)]
  found, expected = page_ids(tmp_path, texts)
  wrong = [t for t, a, b in zip(texts, found, expected, strict=True) if a != b]
  assert wrong == []
  assert len({tuple(ids) for ids in found}) > 2500


@pytest.mark.samples
def test_3000_reference_texts_become_the_same_ids(tmp_path, monkeypatch):
  path = SHARED / 'clip_bpe' / 'bpe_simple_vocab_16e6.txt.gz'
  monkeypatch.setenv('OVS_CLIP_VOCABULARY', str(path))
  oracle = np.load(SHARED / 'oracles' / 'tokenizer.npz')
  texts = json.loads(str(oracle['in/strings_json']))
  found, expected = page_ids(tmp_path, texts)
  assert len(texts) == 3000 and found == expected
  package = [
    tokenizer.tokenize([text], context_length=len(ids))[0].tolist()
    if tokenizer.count_tokens(text) == len(ids)
    else None
    for text, ids in zip(texts, found, strict=True)
  ]
  assert sum(a != b for a, b in zip(found, package, strict=True)) == 6


def test_references_are_those_of_python():
  table = html_tables()['references']
  for code in range(0x110000):
    text = html.unescape(f'&#{code};')
    if not 0xD800 <= code < 0xE000:
      assert table.get(str(code), chr(code)) == text, code


def test_names_are_read_as_predict_reads_them(tmp_path):
  texts = [
    'red ball, grass',
    ' a ',
    '"door, double door", wall',
    '"a ""b""", c',
    'a b"c',
  ]
  texts += ['a,,b', 'a,', '', ',', '"a" b', '"a, b', 'a, A', '"", a', 'x , "y" , z']
  for text, found in zip(texts, in_node(tmp_path, NAMES, texts), strict=True):
    try:
      assert found == list(parse_names(text)), text
    except UserError:
      assert isinstance(found, str) and '\n' not in found, (text, found)


def test_pixels_are_those_of_python(tmp_path):
  generator, photos, expected = np.random.default_rng(0), [], []
  for channels in (3, 4):
    for _ in range(20):
      h, w = (int(n) for n in generator.integers(1, 90, 2))
      sides = {'shortest': int(generator.integers(1, 60))}
      sides['longest'] = sides['shortest'] + int(generator.integers(80))
      image = generator.integers(0, 256, (h, w, channels)).astype(np.uint8)
      photos.append({'data': image.ravel().tolist(), 'height': h, 'width': w, **sides})
      expected.append(resized(image[..., :3], **sides))
      np.testing.assert_array_equal(
        expected[-1], resize_shortest(image[..., :3], **sides)
      )
  maps = generator.uniform(0, 1, (5, 12, 16)).astype(np.float32)
  maps[:, 6:, 8:] = 0
  grids = [(30, 41, (12, 16), 5), (7, 5, (9, 16), 4), (12, 16, (12, 16), 5)]
  given = {'photos': photos, 'maps': maps.tolist(), 'grids': grids}
  found = in_node(tmp_path, PIXELS, given)
  for (h, w, data), image in zip(found['photos'], expected, strict=True):
    np.testing.assert_array_equal(np.reshape(data, (h, w, 3)), image)
  for (height, width, inside, named), (labels, _) in zip(
    grids, found['grids'], strict=True
  ):
    best, scores = label_map(
      jnp.eye(5), jnp.asarray(maps), (height, width), inside=inside
    )
    best = np.where((np.asarray(scores) > 0) & (np.asarray(best) < named), best, -1)
    np.testing.assert_array_equal(np.reshape(labels, (height, width)), best)
    assert (best < 0).any() == (inside == (12, 16) or named < 5)
