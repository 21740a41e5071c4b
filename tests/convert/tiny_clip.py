"""A tiny CLIP in every layout, without any of the converters under test."""

import numpy as np

from ovs_jax.models.clip import ClipConfig

# Heads of 64, as all layouts but Hugging Face's assume.
TINY = ClipConfig(
  embed_dim=10,
  image_size=8,
  patch=4,
  vision_width=128,
  vision_layers=2,
  vision_heads=2,
  text_width=64,
  text_layers=3,
  text_heads=1,
  context_length=7,
  vocab_size=20,
  prompt_depth=2,
  dtype='float32',
  remat=False,
  unroll=1,
)


def openai_shapes(c):
  """Returns names and shapes of a checkpoint, as OpenAI's archives have them."""
  found = {
    'positional_embedding': (c.context_length, c.text_width),
    'text_projection': (c.text_width, c.embed_dim),
    'logit_scale': (),
    'visual.class_embedding': (c.vision_width,),
    'visual.positional_embedding': (
      1 + (c.image_size // c.patch) ** 2,
      c.vision_width,
    ),
    'visual.proj': (c.vision_width, c.embed_dim),
    'visual.conv1.weight': (c.vision_width, 3, c.patch, c.patch),
    'token_embedding.weight': (c.vocab_size, c.text_width),
  }
  norms = [
    ('ln_final', c.text_width),
    ('visual.ln_pre', c.vision_width),
    ('visual.ln_post', c.vision_width),
  ]
  for tower, width, layers, mlp in (
    ('transformer', c.text_width, c.text_layers, c.text_mlp),
    ('visual.transformer', c.vision_width, c.vision_layers, c.vision_mlp),
  ):
    mlp = mlp or 4 * width
    for i in range(layers):
      block = f'{tower}.resblocks.{i}'
      norms += [(f'{block}.ln_1', width), (f'{block}.ln_2', width)]
      for name, rows, columns in (
        ('attn.in_proj_', 3 * width, width),
        ('attn.out_proj.', width, width),
        ('mlp.c_fc.', mlp, width),
        ('mlp.c_proj.', width, mlp),
      ):
        found[f'{block}.{name}weight'] = (rows, columns)
        found[f'{block}.{name}bias'] = (rows,)
  for name, width in norms:
    found |= {f'{name}.weight': (width,), f'{name}.bias': (width,)}
  if c.prompt_depth:
    patches = (c.image_size // c.patch) ** 2
    found['visual.mask_embedding'] = (c.prompt_depth, patches, c.vision_width)
  return found


def draw(shapes, dtype=np.float16):
  """Returns random tensors, two-dimensional ones in `dtype`, others in float32."""
  rng = np.random.default_rng(0)
  return {
    name: np.asarray(rng.normal(size=s), dtype if len(s) > 1 else np.float32)
    for name, s in shapes.items()
  }


def placeholders(shapes):
  """Returns arrays that take no memory, whatever their shape."""
  return {name: np.broadcast_to(np.float32(0), s) for name, s in shapes.items()}


def to_hf(source):
  """Returns a CLIP with OpenAI's names by those of Hugging Face."""
  top = {
    'visual.class_embedding': 'vision_model.embeddings.class_embedding',
    'visual.positional_embedding': 'vision_model.embeddings.position_embedding.weight',
    'visual.conv1.weight': 'vision_model.embeddings.patch_embedding.weight',
    'token_embedding.weight': 'text_model.embeddings.token_embedding.weight',
    'positional_embedding': 'text_model.embeddings.position_embedding.weight',
    'logit_scale': 'logit_scale',
  }
  parts = {
    'visual.ln_pre': 'vision_model.pre_layrnorm',
    'visual.ln_post': 'vision_model.post_layernorm',
    'ln_final': 'text_model.final_layer_norm',
    'visual.transformer.resblocks': 'vision_model.encoder.layers',
    'transformer.resblocks': 'text_model.encoder.layers',
    'attn.out_proj': 'self_attn.out_proj',
    'ln_1': 'layer_norm1',
    'ln_2': 'layer_norm2',
    'mlp.c_fc': 'mlp.fc1',
    'mlp.c_proj': 'mlp.fc2',
  }
  found = {
    'visual_projection.weight': np.ascontiguousarray(source['visual.proj'].T),
    'text_projection.weight': np.ascontiguousarray(source['text_projection'].T),
  }
  for name, value in source.items():
    if name in top:
      found[top[name]] = value
    elif name not in ('visual.proj', 'text_projection'):
      for old, new in parts.items():
        name = name.replace(old, new)
      if 'attn.in_proj_' in name:
        layer, kind = name.split('attn.in_proj_')
        for part, rows in zip('qkv', np.split(value, 3), strict=True):
          found[f'{layer}self_attn.{part}_proj.{kind}'] = np.ascontiguousarray(rows)
      else:
        found[name] = value
  return found


def hf_settings(c, **changes):
  """Returns the config.json of a CLIP, with changes to both of its towers."""
  text = {'num_attention_heads': c.text_heads, 'eos_token_id': c.vocab_size - 1}
  return {
    'model_type': 'clip',
    'text_config': {**text, **changes},
    'vision_config': {'num_attention_heads': c.vision_heads, **changes},
  }
