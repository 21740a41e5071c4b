"""CLIPs of transformers."""

import json
from typing import Any

import transformers
from towers_made import Reference, Size, perturbed, tensors_of


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


def hf_tips(feed_forward: str, size: Size) -> Reference:
  """Returns a TIPSv2 of transformers, with MLPs of one kind or the other."""
  patch = size.patch or 14
  text, vision = _small(size, patch)
  both = 16 * size.width  # there is no projection
  text |= {'hidden_size': both, 'intermediate_size': 3 * both}
  del vision['intermediate_size']
  vision |= {'mlp_ratio': 3, 'use_swiglu_ffn': feed_forward == 'swiglu'}
  config = transformers.Tipsv2Config(text_config=text, vision_config=vision)
  model = perturbed(transformers.Tipsv2Model(config))
  return Reference(
    'hf_tips',
    json.loads(config.to_json_string(use_diff=False)),
    tensors_of(model),
    size.side * patch,
    1,
    0,
    lambda x: model.vision_model(x).pooler_output,
    lambda ids: model.text_model(ids, attention_mask=(ids != 0)).pooler_output,
  )
