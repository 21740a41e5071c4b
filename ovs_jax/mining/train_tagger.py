"""Trains a small part-of-speech tagger for machines that cannot download one.

    python -m ovs_jax.mining.train_tagger --train=en_ewt-ud-train.conllu --output=DIR

The file is in the format of Universal Dependencies (CoNLL-U), such as the English Web
Treebank's (universaldependencies.org; CC BY-SA 4.0). The result is a spaCy pipeline of
about 2 MB for `config.mining.pipeline=DIR`.
"""

import argparse
import random
import sys
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ovs_jax.core.errors import UserError
from ovs_jax.core.files import atomic_path, check_replaceable, check_writable, local
from ovs_jax.core.runlog import progress

_PARAGRAPH = 8  # sentences to a document
_BATCH = 1000  # words to a step
# Accuracy per second: twice as wide and deep takes three times as long for half a
# point. The numbers are width, depth, and rows of the four hash tables.
_MODEL = """
[model]
@architectures = "spacy.Tok2Vec.v2"
[model.embed]
@architectures = "spacy.MultiHashEmbed.v2"
width = 48
attrs = ["NORM", "PREFIX", "SUFFIX", "SHAPE"]
rows = [2000, 500, 1000, 1000]
include_static_vectors = false
[model.encode]
@architectures = "spacy.MaxoutWindowEncoder.v2"
width = 48
depth = 2
window_size = 1
maxout_pieces = 3
"""

Sentence = list[tuple[str, str, bool]]  # words: text, part of speech, space after


def main(argv: Sequence[str] | None = None) -> int:
  """Runs the command; returns 0, or 2 after a mistake, which it explains."""
  parser = argparse.ArgumentParser(
    prog='python -m ovs_jax.mining.train_tagger',
    description=__doc__.split('\n')[0],
    allow_abbrev=False,
  )
  add = parser.add_argument
  add('--train', required=True, metavar='FILE', help='sentences in CoNLL-U')
  add('--test', metavar='FILE', help='others, to report the accuracy on')
  add('--output', required=True, metavar='DIR', help='where the pipeline is written')
  add('--steps', type=int, default=3000, help='of training (default: %(default)s)')
  add('--seed', type=int, default=0)
  arguments = parser.parse_args(argv)
  try:
    output = local(arguments.output)
    check_writable(output.absolute().parent, megabytes=20, option='--output=')
    check_replaceable(output)
    sentences = list(read_conllu(arguments.train))
    test = list(read_conllu(arguments.test)) if arguments.test else []
    began = time.time()
    pipeline = train_tagger(sentences, steps=arguments.steps, seed=arguments.seed)
    with atomic_path(output.absolute()) as temporary:
      pipeline.to_disk(temporary)
  except (ValueError, OSError, ImportError) as error:
    print(f'error: {error}', file=sys.stderr)
    return 2
  words = sum(len(sentence) for sentence in sentences)
  print(
    f'{len(sentences):,} sentences, {words:,} words, {time.time() - began:.0f} s: '
    f'{output}'
  )
  if test:
    print(f'parts of speech right on {arguments.test}: {accuracy(pipeline, test):.1%}')
  print(f'use it with --config.mining.backend=spacy --config.mining.pipeline={output}')
  return 0


def read_conllu(path: str) -> Iterator[Sentence]:
  """Yields the sentences of a file, in words as they are written.

  "don't" is one line `n-m` with its text and two lines of words; the words keep their
  own texts where these make up the whole, as in "do" and "n't".

  Raises:
    FileNotFoundError: there is no such file.
    ValueError: it is in another format, or has no words.
  """
  file = local(path)
  if not file.is_file():
    raise FileNotFoundError(f'{file} not found; expected sentences in CoNLL-U')
  sentence: Sentence = []
  count, joined, spaced = 0, 0, True
  lines = file.read_text(encoding='utf-8').splitlines()
  for number, line in enumerate([*lines, ''], start=1):
    if not line.strip():
      count += bool(sentence)
      if sentence:
        yield sentence
      sentence, joined = [], 0
      continue
    if line.startswith('#'):
      continue
    fields = line.split('\t')
    if len(fields) != 10:
      raise UserError(
        f'{file}, line {number}: {len(fields)} columns separated by tabs; CoNLL-U has '
        '10'
      )
    space = 'SpaceAfter=No' not in fields[9]
    if '-' in fields[0]:
      first, last = (int(x) for x in fields[0].split('-'))
      joined, spaced = last - first + 1, space
    elif '.' not in fields[0]:  # those are words that nobody wrote
      joined = max(joined - 1, -1)
      inside = joined > 0
      space = False if inside else spaced if joined == 0 else space
      joined = -1 if joined == 0 else joined
      sentence.append((fields[1], fields[3], space))
  if not count:
    raise UserError(f'{file} has no sentences; expected CoNLL-U')


def train_tagger(sentences: Sequence[Sentence], *, steps: int, seed: int) -> Any:
  """Returns a spaCy pipeline that tags parts of speech.

  Args:
    sentences: words with their parts of speech, from `read_conllu`.
    steps: of about a thousand words.
    seed: of the parameters and the order.

  Raises:
    ImportError: spaCy is not installed.
    ValueError: the sentences have no nouns to learn.
  """
  try:
    import spacy
  except ImportError:
    raise ImportError('training a tagger needs spaCy: `pip install spacy`') from None
  from thinc.api import Config, fix_random_seed

  if not any(tag == 'NOUN' for sentence in sentences for _, tag, _ in sentence):
    raise UserError('no word is tagged NOUN (column 4); nothing can be learned')
  fix_random_seed(seed)
  rng = random.Random(seed)
  pipeline = spacy.blank('en')
  model = Config().from_str(_MODEL)
  pipeline.add_pipe('tok2vec', config=model)
  listener = {
    '@architectures': 'spacy.Tok2VecListener.v1',
    'width': 48,
    'upstream': 'tok2vec',
  }
  tagger = {'@architectures': 'spacy.Tagger.v2', 'tok2vec': listener}
  pipeline.add_pipe('morphologizer', config={'model': tagger})
  examples = [
    _example(pipeline, sentences[i : i + _PARAGRAPH])
    for i in range(0, len(sentences), _PARAGRAPH)
  ]
  optimizer = pipeline.initialize(lambda: examples)
  batches = _batches(examples, rng)
  for step in progress(range(steps), total=steps, title='tagger', unit='step'):
    optimizer.learn_rate = 1e-3 * (1 - step / steps)
    pipeline.update(next(batches), sgd=optimizer, drop=0.1)
  return pipeline


def _example(pipeline: Any, sentences: Sequence[Sentence]) -> Any:
  """A document with its tags, in words as the treebank splits them."""
  from spacy.tokens import Doc
  from spacy.training import Example

  words = [word for sentence in sentences for word in sentence]
  texts, tags, spaces = (list(column) for column in zip(*words, strict=True))
  reference = Doc(pipeline.vocab, words=texts, spaces=spaces, pos=tags)
  # spaCy's own splitting on the other side: what it will see, later.
  return Example(pipeline.make_doc(reference.text), reference)


def _batches(examples: Sequence[Any], rng: random.Random) -> Iterator[list[Any]]:
  while True:
    batch: list[Any] = []
    for example in rng.sample(list(examples), len(examples)):
      batch.append(example)
      if sum(len(x.reference) for x in batch) >= _BATCH:
        yield batch
        batch = []
    if batch:
      yield batch


def accuracy(pipeline: Any, sentences: Sequence[Sentence]) -> float:
  """Returns the share of words whose part of speech is right."""
  examples = [_example(pipeline, [sentence]) for sentence in sentences]
  for example in examples:
    example.predicted = pipeline(example.predicted)
  return float(pipeline.evaluate(examples)['pos_acc'])


if __name__ == '__main__':
  sys.exit(main())
