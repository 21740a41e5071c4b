"""Tokenizers of a tokenizer.json that is trained here."""

import json

import numpy as np
import pytest

from ovs_jax.convert import tokenizer_file
from ovs_jax.core import attached
from ovs_jax.core.checkpoint import load_config, save_model
from ovs_jax.text.trained_tokenizer import CLEANINGS, TrainedTokenizer, load_tokenizer

tokenizers = pytest.importorskip(
  'tokenizers', reason='requirements/test.txt asks for the package tokenizers'
)


def train(around: str = '$A </s>') -> bytes:
  """Returns the tokenizer.json of a small unigram vocabulary; pad 0, end 1, unk 2."""
  made = tokenizers.Tokenizer(tokenizers.models.Unigram())
  made.pre_tokenizer = tokenizers.pre_tokenizers.Metaspace()
  trainer = tokenizers.trainers.UnigramTrainer(
    vocab_size=60, special_tokens=['<pad>', '</s>', '<unk>'], unk_token='<unk>'
  )
  words = ['a photo of a red ball', 'a cat and a dog', 'the green ball of a cat'] * 20
  made.train_from_iterator(words, trainer)
  if around:
    made.post_processor = tokenizers.processors.TemplateProcessing(
      single=around, special_tokens=[('</s>', 1), ('<pad>', 0)]
    )
  made.enable_padding(pad_id=0, pad_token='<pad>', length=7)
  made.enable_truncation(5)
  return made.to_str().encode()


DATA = train()
SPECIAL = (-1, 1, 0)


def tokenize(texts, **options):
  given = {'cleaning': 'lower', 'special': SPECIAL, 'context_length': 12} | options
  return TrainedTokenizer(DATA).tokenize(texts, **given)


def test_rows_of_ids_end_and_padding() -> None:
  own = tokenizers.Tokenizer.from_str(DATA.decode())
  own.no_padding()
  own.no_truncation()
  rows = tokenize(['a Red ball', ''], context_length=16)
  ids = own.encode('a red ball', add_special_tokens=False).ids
  assert rows.dtype == np.int32 and rows.shape == (2, 16)
  assert rows[0].tolist() == [*ids, 1, *[0] * (15 - len(ids))]
  assert rows[1].tolist() == [1] + [0] * 15
  framed = tokenize(['a red ball'], special=(2, -1, 1), context_length=16)
  assert framed[0].tolist() == [2, *ids, *[1] * (15 - len(ids))]


def test_long_texts_are_refused_or_cut_with_their_end() -> None:
  long = 'a photo of a red ball and a cat'
  with pytest.raises(
    ValueError, match='tokens, start and end included; the limit is 6'
  ):
    tokenize([long], context_length=6)
  row = tokenize([long], context_length=6, truncate=True)[0]
  assert row[-1] == 1 and (row[:-1] > 2).all()
  np.testing.assert_array_equal(row[:5], tokenize([long], context_length=40)[0, :5])


@pytest.mark.parametrize(
  'name, text',
  [
    ('none', "  A_cat's  Tail! "),
    ('lower', "  a_cat's  tail! "),
    ('unpunctuated', 'acats tail'),
    ('canonical', 'a cats tail'),
    ('whitespace', "A_cat's Tail!"),
    ('clip', "a_cat's tail!"),
  ],
)
def test_cleanings(name: str, text: str) -> None:
  assert CLEANINGS[name]("  A_cat's  Tail! ") == text
  assert set(CLEANINGS) == {
    *('none', 'lower', 'unpunctuated', 'canonical', 'whitespace', 'clip')
  }


def settings(data: bytes = DATA, **described):
  described = {'tokenizer_class': 'GemmaTokenizer', 'pad_token': '<pad>'} | described
  return {
    'tokenizer.json': attached.attach(data),
    'tokenizer_config.json': described,
  }


def test_what_the_files_say() -> None:
  given = settings()
  found = tokenizer_file.read_tokenizer(given, 60)
  assert found == {
    'tokenizer': given['tokenizer.json'],
    'cleaning': 'lower',
    'start': -1,
    'end': 1,
    'pad': 0,
  }
  framed = settings(train('<pad> $A'), pad_token={'content': '</s>'})
  found = tokenizer_file.read_tokenizer(framed, 60, cleaning='canonical')
  assert (found['start'], found['end'], found['pad']) == (0, -1, 1)
  assert found['cleaning'] == 'canonical'
  stripped = tokenizer_file.read_tokenizer(given, 60, strip_end=True)
  assert stripped['end'] == 0
  assert tokenizer_file.read_tokenizer({}, 60) == {'tokenizer': 'none'}
  again = {**given, **tokenizer_file.write_tokenizer(found | {'cleaning': 'lower'})}
  assert tokenizer_file.read_tokenizer(again, 60)['pad'] == 1


@pytest.mark.parametrize(
  'described, size, message',
  [
    ({'add_eos_token': False}, 60, 'says otherwise of eos'),
    ({'add_bos_token': True}, 60, 'says otherwise of bos'),
    ({}, 9, 'but the text tower knows 9'),
    ({'tokenizer_class': 'OddTokenizer'}, 60, "'OddTokenizer'; known: "),
    ({'pad_token': '<nothing>'}, 60, 'which token fills up'),
  ],
)
def test_files_that_say_too_little_or_contradict(described, size, message) -> None:
  with pytest.raises(ValueError, match=message):
    tokenizer_file.read_tokenizer(settings(**described), size)


def test_a_damaged_file() -> None:
  with pytest.raises(ValueError, match='tokenizer.json cannot be read'):
    TrainedTokenizer(b'{"version": 1}')


def test_a_checkpoint_has_its_tokenizer(tmp_path, monkeypatch) -> None:
  monkeypatch.setattr(attached, '_known', {})
  digest = attached.attach(DATA)
  config = {'model': 'x', 'clip': {'text_tower': {'tokenizer': digest}}}
  params = {'w': np.zeros(2, np.float32)}
  save_model(tmp_path / 'a', params, config)
  assert (tmp_path / 'a' / 'tokenizer.json').read_bytes() == DATA
  monkeypatch.setattr(attached, '_known', {})
  load_tokenizer.cache_clear()
  with pytest.raises(ValueError, match='is not in any checkpoint that was read'):
    load_tokenizer(digest)
  load_config(tmp_path / 'a')
  assert load_tokenizer(digest).size == TrainedTokenizer(DATA).size
  # What is saved from it has a copy of its own.
  save_model(tmp_path / 'b', params, config)
  assert (tmp_path / 'b' / 'tokenizer.json').read_bytes() == DATA
  monkeypatch.setattr(attached, '_known', {})
  load_tokenizer.cache_clear()
  changed = json.dumps(json.loads(DATA))
  (tmp_path / 'b' / 'tokenizer.json').write_text(changed)
  load_config(tmp_path / 'b')
  with pytest.raises(ValueError, match='is not the file with sha256'):
    load_tokenizer(digest)


def test_a_checkpoint_has_the_tokenizers_of_all_its_texts(tmp_path, monkeypatch):
  monkeypatch.setattr(attached, '_known', {})
  digests = [attached.attach(data) for data in (DATA, train('<pad> $A'), DATA)]
  towers = [{'text_tower': {'tokenizer': digest}} for digest in digests]
  config = {'model': 'x', 'clip': towers[0], 'others': towers[1:]}
  save_model(tmp_path / 'a', {'w': np.zeros(2, np.float32)}, config)
  assert sorted(path.name for path in (tmp_path / 'a').glob('*.json')) == [
    'tokenizer.json',
    f'tokenizer_{digests[1][:16]}.json',
  ]
  monkeypatch.setattr(attached, '_known', {})
  load_tokenizer.cache_clear()
  load_config(tmp_path / 'a')
  for digest in digests:
    assert load_tokenizer(digest).size > 2
  assert not attached.is_one('tokenizer_config.json')


def test_a_tips_reads_lower_case_unless_it_says_otherwise() -> None:
  bare = train('')
  for said, cleaning in (({}, 'lower'), ({'do_lower_case': False}, 'none')):
    given = settings(bare, tokenizer_class='Tipsv2Tokenizer', **said)
    found = tokenizer_file.read_tokenizer(given, 60)
    assert (found['cleaning'], found['start'], found['end']) == (cleaning, -1, -1)
    written = tokenizer_file.write_tokenizer(found, tokenizer_file.TIPS)
    described = written['tokenizer_config.json']
    assert described['tokenizer_class'] == 'Tipsv2Tokenizer'
    assert tokenizer_file.read_tokenizer({**given, **written}, 60) == found
  gemma = tokenizer_file.write_tokenizer({**found, 'cleaning': 'lower'})
  assert gemma['tokenizer_config.json']['tokenizer_class'] == 'GemmaTokenizerFast'
