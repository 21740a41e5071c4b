"""Compares CLIPs with timm, open_clip and transformers, where these are installed.

    python -m venv towers && towers/bin/pip install -r requirements/core.txt \
      torch timm open_clip_torch transformers
    towers/bin/python tests/parity_towers.py [--only=siglip] [--goldens=FILE.npz]

Models are made small from the libraries' own configurations, with random weights, every
bias and norm among them; the libraries compute in float64, this package in float32.
Each comparison is of pictures in two sizes, or of texts of every length. With
`--goldens` still smaller ones are written with what the libraries say of them, which
tests/models/test_towers.py compares with.
"""

import argparse
import copy
import dataclasses
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

os.environ.setdefault('JAX_PLATFORMS', 'cpu')
os.environ.setdefault('JAX_DISABLE_MOST_OPTIMIZATIONS', '1')
os.environ.setdefault('TRANSFORMERS_VERBOSITY', 'error')
sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent))

import jax  # noqa: E402
import numpy as np  # noqa: E402
import open_clip  # noqa: E402
import timm  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from open_clip.model import CLIP, CustomTextCLIP, _build_text_tower  # noqa: E402

from ovs_jax.convert import SOURCES  # noqa: E402
from ovs_jax.convert.family import Options  # noqa: E402
from ovs_jax.models import clip  # noqa: E402
from ovs_jax.models.clip_fast import encode_images  # noqa: E402

BOUND = 1e-5  # of the largest difference, relative to the largest value


@dataclasses.dataclass(frozen=True)
class Size:
  """How large models are made.

  Attributes:
    width: of image towers, for each head.
    layers: of both towers.
    side: of pictures, in patches.
    patch: in pixels; 0: as published.
    text: width of text towers.
    vocabulary: ids.
    context: tokens of a text.
  """

  width: int = 8
  layers: int = 2
  side: int = 4
  patch: int = 0
  text: int = 32
  vocabulary: int = 200
  context: int = 16


GOLDEN = Size(width=2, layers=1, side=3, patch=4, text=16, vocabulary=40, context=8)


@dataclasses.dataclass(frozen=True)
class Reference:
  """A model of a library.

  Attributes:
    family: of the converter, in `SOURCES`.
    settings: what lies beside its weights.
    tensors: its weights, in float32.
    side: of pictures in pixels.
    end: id at the end of texts; -1: none.
    pad: id behind it.
    image: from pictures (b, 3, s, s) to embeddings.
    text: from ids to embeddings.
  """

  family: str
  settings: Mapping[str, Any]
  tensors: Mapping[str, np.ndarray]
  side: int
  end: int
  pad: int
  image: Callable[[torch.Tensor], torch.Tensor]
  text: Callable[[torch.Tensor], torch.Tensor]


def perturbed(model: torch.nn.Module) -> torch.nn.Module:
  """Returns it in float64, of weights that float16 holds, none of which is 0 or 1."""
  generator = torch.Generator().manual_seed(0)
  for parameter in model.parameters():
    noise = 0.05 * torch.randn(parameter.shape, generator=generator)
    parameter.data = (parameter.data + noise).half().float()
  return model.double().eval()


def tensors_of(model: torch.nn.Module, prefix: str = '') -> dict[str, np.ndarray]:
  """Returns its weights by name."""
  state = model.state_dict().items()
  return {f'{prefix}{k}': v.detach().float().numpy() for k, v in state}


def published(name: str) -> dict[str, Any]:
  """Returns one of open_clip's configurations."""
  folder = pathlib.Path(open_clip.__file__).parent / 'model_configs'
  return json.loads((folder / f'{name}.json').read_text())


def of_open_clip(name: str, size: Size) -> Reference:
  """Returns a model of open_clip, whose image tower may be timm's."""
  model = published(name)
  vision, text = model['vision_cfg'], model['text_cfg']
  text.update(layers=size.layers, vocab_size=size.vocabulary, width=size.text, heads=2)
  text['context_length'] = size.context
  reads = copy.deepcopy(text)
  reads.pop('hf_tokenizer_name', None)
  if 'timm_model_name' in vision:
    return _with_timm(model, reads, size)
  heads = 2
  width, patch = 16 * size.width, size.patch or vision['patch_size']
  vision.update(layers=size.layers, width=width, head_width=width // heads)
  vision.update(image_size=size.side * patch, patch_size=patch)
  model['embed_dim'] = size.text
  built = copy.deepcopy({**model, 'text_cfg': reads})
  custom = built.pop('custom_text', False)
  whole = perturbed((CustomTextCLIP if custom else CLIP)(**built))
  return Reference(
    'open_clip',
    {'model_cfg': model},
    tensors_of(whole),
    size.side * patch,
    *_ends(text, size),
    whole.encode_image,
    whole.encode_text,
  )


def _with_timm(model: dict[str, Any], reads: dict[str, Any], size: Size) -> Reference:
  vision, text = model['vision_cfg'], model['text_cfg']
  name = vision['timm_model_name']
  heads = {'base': 12, 'large': 16, 'so400m': 16, 'giantopt': 16}[name.split('_')[1]]
  patch = size.patch or int(name.split('patch')[1][:2])
  same = vision.get('timm_proj') == 'none'
  width = size.width * heads if same else size.text
  model['embed_dim'] = width
  if text.get('proj_type') == 'none':
    text['width'] = reads['width'] = width
  side = size.side * patch
  trunk = timm.create_model(
    name,
    embed_dim=size.width * heads,
    depth=size.layers,
    num_heads=heads,
    img_size=side,
    patch_size=patch,
    num_classes=0 if same else width,
  )
  trunk = perturbed(trunk)
  reader = perturbed(
    _build_text_tower(width, copy.deepcopy(reads), bool(model.get('quick_gelu')))
  )
  tensors = tensors_of(trunk, 'visual.trunk.') | tensors_of(reader, 'text.')
  tensors['logit_scale'] = np.float32(2.5)
  if 'init_logit_bias' in model:
    tensors['logit_bias'] = np.float32(-8.25)
  settings = {'model_cfg': model}
  return Reference(
    'open_clip', settings, tensors, side, *_ends(text, size), trunk, reader
  )


def _ends(text: Mapping[str, Any], size: Size) -> tuple[int, int]:
  """Returns ids of end and padding that make texts like a model's own."""
  pool = text.get('pool_type', 'argmax')
  if pool == 'argmax':
    return size.vocabulary - 1, 0
  return (text['eos_id'], 1 - text['eos_id'] % 2) if pool == 'eos' else (1, 0)


def _small(size: Size, patch: int, **more: Any) -> tuple[dict, dict]:
  """Returns the sections of a config.json for both towers."""
  width = 16 * size.width
  both = {'num_hidden_layers': size.layers, 'num_attention_heads': 2, **more}
  text = {
    'vocab_size': size.vocabulary,
    'hidden_size': size.text,
    'intermediate_size': 3 * size.text,
    'max_position_embeddings': size.context,
    **both,
  }
  vision = {
    'hidden_size': width,
    'intermediate_size': 3 * width,
    'image_size': size.side * patch,
    'patch_size': patch,
    **both,
  }
  return text, vision


def hf_siglip(activation: str, size: Size) -> Reference:
  """Returns a SigLIP of transformers; with `gelu` texts have another activation."""
  patch = size.patch or 16
  text, vision = _small(size, patch)
  vision['hidden_act'], text['projection_size'] = activation, vision['hidden_size']
  config = transformers.SiglipConfig(text_config=text, vision_config=vision)
  model = perturbed(transformers.SiglipModel(config))
  return Reference(
    'hf_siglip',
    json.loads(config.to_json_string(use_diff=False)),
    tensors_of(model),
    size.side * patch,
    1,
    1,
    lambda x: model.vision_model(x).pooler_output,
    lambda ids: model.text_model(ids).pooler_output,
  )


def hf_metaclip_2(activation: str, size: Size) -> Reference:
  """Returns a MetaCLIP 2 of transformers, whose texts end with the id 2."""
  patch = size.patch or 14
  more = {'hidden_act': activation, 'projection_dim': 24}
  text, vision = _small(size, patch, **more)
  text['eos_token_id'] = 2
  config = transformers.MetaClip2Config(
    text_config=text, vision_config=vision, projection_dim=24
  )
  model = perturbed(transformers.MetaClip2Model(config))
  return _hf_clip(model, config, size, patch, 2, 1)


def hf_clip(activations: str, size: Size) -> Reference:
  """Returns a CLIP of transformers, with an activation for each tower."""
  patch, (own, of_text) = size.patch or 14, activations.split()
  text, vision = _small(size, patch, projection_dim=24)
  text |= {'hidden_act': of_text, 'eos_token_id': size.vocabulary - 1}
  vision['hidden_act'] = own
  config = transformers.CLIPConfig(
    text_config=text, vision_config=vision, projection_dim=24
  )
  model = perturbed(transformers.CLIPModel(config))
  return _hf_clip(model, config, size, patch, size.vocabulary - 1, 0)


def _hf_clip(
  model: Any, config: Any, size: Size, patch: int, end: int, pad: int
) -> Reference:
  return Reference(
    'hf_clip',
    json.loads(config.to_json_string(use_diff=False)),
    tensors_of(model),
    size.side * patch,
    end,
    pad,
    lambda x: model.visual_projection(model.vision_model(x).pooler_output),
    lambda ids: model.text_projection(model.text_model(ids).pooler_output),
  )


# Name of a comparison: what makes the model, and of what.
CASES: dict[str, tuple[Callable[[str, Size], Reference], str]] = {
  'openai_b16': (of_open_clip, 'ViT-B-16-quickgelu'),
  'laion_h14': (of_open_clip, 'ViT-H-14'),
  'laion_bigg14': (of_open_clip, 'ViT-bigG-14'),
  'dfn_h14_378': (of_open_clip, 'ViT-H-14-378-quickgelu'),
  'metaclip2_h14': (of_open_clip, 'ViT-H-14-worldwide-quickgelu'),
  'metaclip2_l14': (of_open_clip, 'ViT-L-14-worldwide'),
  'clipa_h14': (of_open_clip, 'ViT-H-14-CLIPA'),
  'siglip_b16': (of_open_clip, 'ViT-B-16-SigLIP'),
  'siglip_i18n_so400m16': (of_open_clip, 'ViT-SO400M-16-SigLIP-i18n-256'),
  'siglip2_l16': (of_open_clip, 'ViT-L-16-SigLIP2-256'),
  'siglip2_gopt16': (of_open_clip, 'ViT-gopt-16-SigLIP2-384'),
  'mobileclip2_l14': (of_open_clip, 'MobileCLIP2-L-14'),
  'hf_siglip': (hf_siglip, 'gelu_pytorch_tanh'),
  'hf_siglip_gelu': (hf_siglip, 'gelu'),
  'hf_metaclip2': (hf_metaclip_2, 'quick_gelu'),
  'hf_clip_of_two': (hf_clip, 'gelu quick_gelu'),
}
# Of these there are goldens: one for each thing that is computed otherwise.
GOLDENS = (
  'metaclip2_h14',
  'clipa_h14',
  'siglip_b16',
  'mobileclip2_l14',
  'hf_siglip_gelu',
  'hf_clip_of_two',
)


def inputs(made: Reference, size: Size) -> tuple[np.ndarray, np.ndarray]:
  """Returns pictures (2, s, s, 3), and texts of every length."""
  rng = np.random.default_rng(1)
  images = rng.normal(size=(2, made.side, made.side, 3)).astype(np.float32)
  rows = np.full((size.context - 1, size.context), made.pad, np.int32)
  for i, row in enumerate(rows):
    row[: i + 1] = rng.integers(3, size.vocabulary - 3, i + 1)
    row[i + (i < size.context - 2)] = made.end
  return images, rows


def outputs(made: Reference, images: np.ndarray, ids: np.ndarray) -> list[np.ndarray]:
  """Returns what the library says."""
  with torch.inference_mode():
    pictures = torch.from_numpy(images.transpose(0, 3, 1, 2)).double()
    found = made.image(pictures), made.text(torch.from_numpy(ids).long())
  return [x.numpy() for x in found]


def ours(made: Reference, images: np.ndarray, ids: np.ndarray) -> list[np.ndarray]:
  """Returns what this package says: of texts also after they were trimmed."""
  tensors = {k: np.asarray(v) for k, v in made.tensors.items()}
  conversion = SOURCES[made.family].convert(tensors, made.settings, Options())
  config = clip.ClipConfig.from_dict(conversion.model['clip'])
  model, params = clip.Clip(config), conversion.params

  @functools.partial(jax.jit, static_argnums=1)
  def run(x: Any, method: str) -> Any:
    if method == 'encode_images':
      return encode_images(config, params, x)
    return model.apply({'params': params}, x, method=method)

  every = [run(images, 'encode_image'), run(images, 'encode_images')]
  every.append(run(ids, 'encode_text'))
  if not config.text_tower.sees_padding:
    half = len(ids) // 2  # where fewer columns are left
    short = clip.trim_tokens(ids[:half], 1, pad=made.pad)
    assert short.shape[1] < ids.shape[1]
    every.append(np.concatenate([run(short, 'encode_text'), every[2][half:]]))
  return [np.asarray(x) for x in every]


def compare(name: str, size: Size) -> dict[str, float]:
  """Returns the largest relative difference of pictures and of texts."""
  make, what = CASES[name]
  made = make(what, size)
  images, ids = inputs(made, size)
  image, text = outputs(made, images, ids)
  found, short, *texts = ours(made, images, ids)

  def off(got: np.ndarray, want: np.ndarray) -> float:
    return float(np.abs(got - want).max() / np.abs(want).max())

  return {
    'pictures': max(off(found, image), off(short, image)),
    'texts': max(off(got, text) for got in texts),
  }


def write_goldens(path: pathlib.Path) -> None:
  """Writes models so small that they can be kept, and what they give."""
  arrays: dict[str, np.ndarray] = {}
  for name in GOLDENS:
    make, what = CASES[name]
    made = make(what, GOLDEN)
    images, ids = inputs(made, GOLDEN)
    image, text = outputs(made, images, ids)
    described = {'family': made.family, 'settings': made.settings, 'pad': made.pad}
    arrays[f'{name}/json'] = np.array(json.dumps(described))
    arrays |= {f'{name}/w/{k}': v.astype(np.float16) for k, v in made.tensors.items()}
    arrays |= {f'{name}/images': images, f'{name}/ids': ids}
    arrays |= {f'{name}/image': image, f'{name}/text': text}
  np.savez_compressed(path, **arrays)


def main() -> int:
  """Runs the command line; returns the exit code."""
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--only', default='', help='a part of the names')
  parser.add_argument('--goldens', type=pathlib.Path, help='file to write')
  options = parser.parse_args()
  if options.goldens:
    write_goldens(options.goldens)
  print(
    f'timm {timm.__version__}, open_clip {open_clip.__version__}, transformers '
    f'{transformers.__version__}, torch {torch.__version__}'
  )
  wrong = 0
  for name in CASES:
    if options.only not in name:
      continue
    for side in (4, 5):
      for what, error in compare(name, Size(side=side)).items():
        wrong += error > BOUND
        print(f'{name:24s} {side} x {side} {what:9s} {error:.1e}', flush=True)
  print(f'{wrong} differences above {BOUND:g}')
  return 1 if wrong else 0


if __name__ == '__main__':
  sys.exit(main())
