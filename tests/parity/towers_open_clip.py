"""CLIPs of open_clip, with image towers of its own or of timm."""

import copy
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import open_clip
import timm
import torch
from open_clip.model import CLIP, CustomTextCLIP, _build_text_tower
from timm.layers import Mlp
from towers_made import Reference, Size, perturbed, tensors_of

# Of image towers of timm, by a word of their names.
HEADS = {'tiny': 3, 'small': 6, 'base': 12, 'large': 16, 'so400m': 16, 'giantopt': 16}
HEADS |= {'gigantic': 16, 'enormous': 16}


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
  heads = HEADS[next(word for word in name.split('_') if word in HEADS)]
  head = size.width
  if 'pe_core' in name or (name.startswith('eva02') and 'enormous' not in name):
    # Features turn by fours, and PE's probe has eight heads.
    head = max(head, 8 if heads % 2 else 4)
  wide = heads * head
  patch = size.patch or int(name.split('patch')[1][:2])
  same = vision.get('timm_proj') == 'none'
  width = wide if same else size.text
  model['embed_dim'] = width
  if text.get('proj_type') == 'none':
    text['width'] = reads['width'] = width
  side = size.side * patch
  trunk = timm.create_model(
    name,
    embed_dim=wide,
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


def of_convnext(name: str, size: Size) -> Reference:
  """Returns a CLIP whose image tower is one of timm's ConvNeXts, small."""
  model = published(name)
  vision, text = model['vision_cfg'], model['text_cfg']
  text.update(layers=size.layers, vocab_size=size.vocabulary, width=size.text, heads=2)
  text['context_length'] = size.context
  side = 32 * (size.side - 1)
  model['embed_dim'], vision['image_size'] = size.text, side
  widths = tuple(2 * size.width << i for i in range(4))
  trunk = timm.create_model(
    vision['timm_model_name'], depths=(1, 1, 2, 1), dims=widths, num_classes=0
  )
  # As open_clip's adapter makes them, which has no way to narrow what comes before.
  layers = torch.nn.ModuleDict()
  if vision['timm_proj'] == 'mlp':
    layers['mlp'] = Mlp(widths[-1], 2 * size.text, size.text, bias=(True, False))
  else:
    layers['proj'] = torch.nn.Linear(widths[-1], size.text, bias=False)
  trunk, layers = perturbed(trunk), perturbed(layers)
  reader = perturbed(_build_text_tower(size.text, copy.deepcopy(text), False))
  (last,) = layers.values()
  return Reference(
    'open_clip',
    {'model_cfg': model},
    {
      **tensors_of(trunk, 'visual.trunk.'),
      **tensors_of(layers, 'visual.head.'),
      **tensors_of(reader),
      'logit_scale': np.float32(2.5),
    },
    side,
    *_ends(text, size),
    lambda x: last(trunk(x)),
    reader,
  )


def _ends(text: Mapping[str, Any], size: Size) -> tuple[int, int]:
  """Returns ids of end and padding that make texts like a model's own."""
  pool = text.get('pool_type', 'argmax')
  if pool == 'argmax':
    return size.vocabulary - 1, 0
  return (text['eos_id'], 1 - text['eos_id'] % 2) if pool == 'eos' else (1, 0)
