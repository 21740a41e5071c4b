"""Template sets are complete, and names are put in as they are."""

import hashlib

import pytest

from ovs_jax.text.templates import TEMPLATES, fill, sentences


def test_sets():
  assert {name: len(set(texts)) for name, texts in TEMPLATES.items()} == {
    'single': 1,
    'vild': 14,
    'imagenet': 80,
  }
  for texts in TEMPLATES.values():
    assert all(text.count('{}') == 1 for text in texts)


def test_first_and_last():
  ends = {name: (texts[0], texts[-1]) for name, texts in TEMPLATES.items()}
  assert ends == {
    'single': ('a photo of a {}.', 'a photo of a {}.'),
    'vild': ('a photo of a {}.', 'There is a large {} in the scene.'),
    'imagenet': ('a bad photo of a {}.', 'a tattoo of the {}.'),
  }


def test_no_letter_changes():
  """The lists were compared with those that OVSeg and open_clip publish."""
  digests = {
    name: hashlib.sha256('\n'.join(texts).encode()).hexdigest()[:16]
    for name, texts in TEMPLATES.items()
  }
  assert digests == {
    'single': 'e8e367e769f86c27',
    'vild': '20c81c13267c6b93',
    'imagenet': '4f976686fb651bb5',
  }


def test_vild_punctuation():
  without_period = [i for i, text in enumerate(TEMPLATES['vild']) if text[-1] != '.']
  assert without_period == [1, 2, 3, 4]


def test_imagenet_contains_the_published_best_seven():
  best = (
    'itap of a {}.',
    'a bad photo of the {}.',
    'a origami {}.',
    'a photo of the large {}.',
    'a {} in a video game.',
    'art of the {}.',
    'a photo of the small {}.',
  )
  assert set(best) < set(TEMPLATES['imagenet'])
  assert TEMPLATES['imagenet'][0] == 'a bad photo of a {}.'
  assert TEMPLATES['imagenet'][-1] == 'a tattoo of the {}.'


def test_fill_is_one_list_per_name():
  names = ['red ball', 'toilet, can', 'odd {0} {} name']
  assert fill('single', names) == [
    ['a photo of a red ball.'],
    ['a photo of a toilet, can.'],
    ['a photo of a odd {0} {} name.'],
  ]
  assert fill(['a {}', 'the {}'], ['sky']) == [['a sky', 'the sky']]
  assert fill('vild', []) == []


def test_sentences():
  assert sentences('vild') is TEMPLATES['vild']
  assert sentences(['a {}', '{} there']) == ('a {}', '{} there')


@pytest.mark.parametrize(
  ('templates', 'message'),
  [
    ('a photo of {}', r"is one sentence, not a template set; put it in a list: \['a"),
    ('vilt', "known: imagenet, single, vild. Did you mean 'vild'"),
    ([], 'no templates'),
    (['a {}', 'a photo', '{} and {}'], "2 of 3 templates.*'a photo', '{} and {}'"),
  ],
)
def test_wrong_templates(templates, message):
  with pytest.raises(ValueError, match=message):
    fill(templates, ['sky'])
