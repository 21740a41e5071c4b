"""The tokenizer gives OpenAI's ids: a stored golden, and the 3000 reference texts."""

import importlib.util
import json
import os
import pathlib

import numpy as np
import pytest

from ovs_jax.text import tokenizer

ROOT = pathlib.Path(__file__).parents[2]
GOLDEN = json.loads((ROOT / 'tests/goldens/tokenizer.json').read_text('ascii'))
SHARED = pathlib.Path(os.environ.get('OVS_SHARED', ROOT.parent / 'shared'))


def padded(ids: list[int]) -> list[int]:
  return ids + [0] * (77 - len(ids))


def test_golden():
  tokens = tokenizer.tokenize([text for text, _ in GOLDEN], truncate=True)
  wrong = [
    text
    for (text, ids), row in zip(GOLDEN, tokens.tolist(), strict=True)
    if row != padded(ids)
  ]
  assert len(GOLDEN) > 250
  assert not wrong


def test_shape_and_special_ids():
  tokens = tokenizer.tokenize(['a photo of a dog.', '!'])
  assert tokens.shape == (2, 77)
  assert tokens.dtype == np.int32
  np.testing.assert_array_equal(
    tokens[0, :10], [49406, 320, 1125, 539, 320, 1929, 269, 49407, 0, 0]
  )
  np.testing.assert_array_equal(tokens[1, :4], [49406, 256, 49407, 0])
  assert tokenizer.tokenize([]).shape == (0, 77)


def test_context_length_counts_start_and_end():
  np.testing.assert_array_equal(
    tokenizer.tokenize(['dog'], context_length=3), [[49406, 1929, 49407]]
  )
  np.testing.assert_array_equal(
    tokenizer.tokenize(['dog dog'], context_length=3, truncate=True),
    [[49406, 1929, 49407]],
  )


def test_longest_text_that_fits():
  tokens = tokenizer.tokenize(['dog ' * 75])
  np.testing.assert_array_equal(tokens[0], [49406] + [1929] * 75 + [49407])
  cut = tokenizer.tokenize(['dog ' * 76], truncate=True)
  np.testing.assert_array_equal(cut, tokens)


def test_too_long_is_an_error_that_names_the_text():
  with pytest.raises(ValueError, match=r"'dog dog .*\.\.\.' has 78 tokens.*77.*trunc"):
    tokenizer.tokenize(['fine', 'dog ' * 76])


@pytest.mark.parametrize(
  ('arguments', 'message'),
  [
    ({'texts': 'dog'}, r"got the string 'dog'.*list"),
    ({'texts': ['dog'], 'context_length': 1}, 'at least 2'),
    ({'texts': ['dog'], 'backend': 'intsant'}, "Did you mean 'instant'"),
  ],
)
def test_wrong_arguments(arguments, message):
  with pytest.raises(ValueError, match=message):
    tokenizer.tokenize(**arguments)


@pytest.mark.parametrize(
  ('text', 'same'),
  [
    ('  A   Red\tBall ', 'a red ball'),
    ('salt &amp;amp; pepper', 'salt & pepper'),
    ('it\u2019s', "it's"),
    ('\uff26\uff35\uff2c\uff2c', 'full'),
    ('sch\u00c3\u00b6n', 'sch\u00f6n'),
    ('a\u0345b', 'a b'),
  ],
)
def test_clean_up(text, same):
  np.testing.assert_array_equal(tokenizer.tokenize([text]), tokenizer.tokenize([same]))


def test_special_tokens_in_a_text_become_special():
  ids = tokenizer.tokenize(['a<|EndOfText|> dog <|startoftext|>'])[0, :7]
  np.testing.assert_array_equal(ids, [49406, 320, 49407, 1929, 49406, 49407, 0])


def test_no_code_point_crashes():
  surrogates = [chr(c) for c in range(0xD800, 0xE000)]
  others = [chr(c) for c in range(0, 0x30000, 7) if not 0xD800 <= c < 0xE000]
  tokens = tokenizer.tokenize([*surrogates, *others])
  assert tokens.max() == 49407
  assert (tokens[: len(surrogates)] == tokenizer.tokenize(['\ufffd'])).all()


def test_count_tokens():
  assert tokenizer.count_tokens('a photo of a dog.') == 8
  assert tokenizer.count_tokens('') == 2


def test_without_the_package_the_other_backend_is_taken(monkeypatch):
  found = importlib.util.find_spec

  def find_spec(name: str):
    return None if name == 'instant_clip_tokenizer' else found(name)

  monkeypatch.setattr(importlib.util, 'find_spec', find_spec)
  monkeypatch.setitem(tokenizer._BACKENDS, 'bpe', lambda: lambda text: [7] * len(text))
  np.testing.assert_array_equal(
    tokenizer.tokenize(['ab'], context_length=5), [[49406, 7, 7, 49407, 0]]
  )
  with pytest.raises(ValueError, match='pip install instant-clip-tokenizer'):
    tokenizer.load_backend('instant')


@pytest.mark.samples
@pytest.mark.parametrize('backend', ['instant', 'bpe'])
def test_equal_to_openai(backend, monkeypatch):
  vocabulary = SHARED / 'clip_bpe' / 'bpe_simple_vocab_16e6.txt.gz'
  monkeypatch.setenv('OVS_CLIP_VOCABULARY', str(vocabulary))
  oracle = np.load(SHARED / 'oracles' / 'tokenizer.npz')
  texts = json.loads(str(oracle['in/strings_json']))
  tokens = tokenizer.tokenize(texts, truncate=True, backend=backend)
  assert len(texts) == 3000
  np.testing.assert_array_equal(tokens, oracle['out/ids'])
