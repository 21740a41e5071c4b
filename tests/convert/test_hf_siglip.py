"""SigLIP folders of Hugging Face: from files to answers, and back."""

import copy
import json
import pathlib

import numpy as np
import pytest
from safetensors.numpy import save_file

from ovs_jax import Classifier
from ovs_jax.convert import SOURCES, exchange
from ovs_jax.convert.family import Options
from ovs_jax.core.checkpoint import load_config, load_model
from ovs_jax.core.tree import flatten

GOLDENS = pathlib.Path(__file__).parents[1] / 'goldens' / 'towers.npz'
# Orbax leaves threads behind that complain of their closed event loop.
pytestmark = pytest.mark.filterwarnings(
  'ignore::pytest.PytestUnraisableExceptionWarning'
)


def model():
  """Returns settings and tensors of a tiny SigLIP, 40 ids and 8 tokens of text."""
  name = 'hf_siglip_gelu'
  with np.load(GOLDENS) as file:
    settings = json.loads(str(file[f'{name}/json']))['settings']
    start = len(f'{name}/w/')
    tensors = {
      k[start:]: file[k].astype(np.float32)
      for k in file.files
      if k.startswith(f'{name}/w/')
    }
  return settings, tensors


def write(folder: pathlib.Path, **more) -> pathlib.Path:
  folder.mkdir()
  settings, tensors = model()
  save_file(tensors, folder / 'model.safetensors')
  (folder / 'config.json').write_text(json.dumps(settings))
  for name, content in more.items():
    (folder / f'{name}.json').write_bytes(content)
  return folder


def convert(settings, **more):
  _, tensors = model()
  return SOURCES['hf_siglip'].convert(tensors, {**settings, **more}, Options())


@pytest.mark.parametrize(
  'path, key, value',
  [
    ((), 'model_type', 'siglip2'),  # NaFlex
    ((), 'vision_soft_tokens', 4),
    (('vision_config',), 'vision_use_head', False),
    (('vision_config',), 'num_patches', 256),
    (('vision_config',), 'model_type', 'siglip2_vision_model'),
    (('vision_config',), 'num_channels', 1),
    (('text_config',), 'attention_bias', False),
    (('text_config',), 'num_attention_heads', 0),
    (('preprocessor_config.json',), 'max_num_patches', 256),
    (('preprocessor_config.json',), 'resample', 0),
  ],
)
def test_what_is_not_understood_is_refused_by_name(path, key, value) -> None:
  settings = copy.deepcopy(model()[0])
  section = settings
  for name in path:
    section = section.setdefault(name, {})
  section[key] = value
  with pytest.raises(ValueError) as error:
    convert(settings)
  assert f'{key} {value!r}' in str(error.value)


def test_pictures_are_prepared_as_the_folder_says() -> None:
  settings, _ = model()
  pixels = {'image_mean': [0.1, 0.2, 0.3], 'size': {'height': 12, 'width': 12}}
  pixels |= {'image_std': [1, 1, 0.5], 'resample': 2, 'do_normalize': True}
  found = convert(settings, **{'preprocessor_config.json': pixels}).model['clip']
  assert found['pixels'] == {
    'mean': (0.1, 0.2, 0.3),
    'std': (1.0, 1.0, 0.5),
    'resize': 'squash',
    'interpolation': 'bilinear',
  }
  usual = convert(settings).model['clip']['pixels']
  assert usual['mean'] == (0.5, 0.5, 0.5) and usual['interpolation'] == 'bicubic'
  pixels['size'] = {'height': 12, 'width': 24}
  with pytest.raises(ValueError, match="size {'height': 12, 'width': 24}"):
    convert(settings, **{'preprocessor_config.json': pixels})


def test_without_its_tokenizer_it_sees_and_does_not_read(tmp_path) -> None:
  folder, output = write(tmp_path / 'siglip'), tmp_path / 'ours'
  report = exchange.convert(folder, output)
  assert report.family == 'hf_siglip'
  assert exchange.check(folder, output).tensors == len(model()[1])
  assert load_config(output)['clip']['text_tower']['tokenizer'] == 'none'
  image = np.zeros((9, 14, 3), np.uint8)
  with pytest.raises(ValueError, match='converted without its tokenizer.json'):
    Classifier.load(output).classify(image, 'cat, dog')


def test_from_a_folder_to_an_answer_and_back(tmp_path) -> None:
  tokenizers = pytest.importorskip(
    'tokenizers', reason='requirements/test.txt asks for the package tokenizers'
  )
  words = {x: i for i, x in enumerate(['<pad>', '</s>', '<unk>', 'cat', 'dog', 'a'])}
  made = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, '<unk>'))
  made.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
  made.post_processor = tokenizers.processors.TemplateProcessing(
    single='$A </s>', special_tokens=[('</s>', 1)]
  )
  described = {'tokenizer_class': 'SiglipTokenizer', 'pad_token': '</s>'}
  folder = write(
    tmp_path / 'siglip',
    tokenizer=made.to_str().encode(),
    tokenizer_config=json.dumps(described).encode(),
  )
  exchange.convert(folder, tmp_path / 'ours')
  text = load_config(tmp_path / 'ours')['clip']['text_tower']
  assert (text['start'], text['end'], text['pad']) == (-1, 1, 1)
  assert text['cleaning'] == 'unpunctuated' and len(text['tokenizer']) == 64
  image = np.random.default_rng(0).integers(0, 256, (9, 14, 3)).astype(np.uint8)
  classifier = Classifier.load(tmp_path / 'ours', templates=['a {}'])
  found = classifier.classify(image, 'Cat!, dog')
  assert set(found) == {'Cat!', 'dog'} and sum(found.values()) != 1
  cleaned = classifier.classify(image, 'cat')['cat']
  assert found['Cat!'] == pytest.approx(cleaned, abs=1e-6)
  assert abs(found['dog'] - cleaned) > 1e-4
  exchange.export(tmp_path / 'ours', tmp_path / 'back', layout='hf_siglip')
  assert (tmp_path / 'back' / 'tokenizer.json').read_bytes() == made.to_str().encode()
  exchange.convert(tmp_path / 'back', tmp_path / 'again')
  for one in ('ours', 'again'):
    config = load_config(tmp_path / one)
    assert config['clip'] == load_config(tmp_path / 'ours')['clip']
  ours, again = (flatten(load_model(tmp_path / x)[0]) for x in ('ours', 'again'))
  for path, value in ours.items():
    np.testing.assert_array_equal(again[path], value)
