"""Parity with Hugging Face's CLIPSeg: masks, conditions, hidden states, gradients."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from parity_case import Case, images

from ovs_jax.convert import clipseg as convert
from ovs_jax.convert.family import Options
from ovs_jax.models.clipseg import ClipSeg, ClipSegConfig

EMBEDDINGS = 1e-5
# Logits and the decoder's states. The weights of clipseg_train_* are larger: two
# computations of the reference in float32 differ by 3e-5 there.
TINY = (1e-5, 2e-5)
TRAIN = (2e-4, 1e-4)
GRADIENTS = 5e-6
# What a case says of the model, of all that it says; as in config.json.
SETTINGS = (
  'projection_dim',
  'reduce_dim',
  'extract_layers',
  'conditional_layer',
  'decoder_num_attention_heads',
  'decoder_intermediate_size',
  'use_complex_transposed_convolution',
)
# The softmax does not change when a key's bias does: its gradient is zero in theory.
NO_GRADIENT = 'k_proj.bias'


def load(case: Case) -> tuple[ClipSegConfig, Any]:
  """Converts the case's model."""
  c = case.config
  settings = {key: c[key] for key in SETTINGS if key in c}
  settings |= {'text_config': c['text'], 'vision_config': c['vision']}
  weights = case.weights()
  conversion = convert.HF_CLIPSEG.convert(weights, settings, Options())
  back = convert.HF_CLIPSEG.export(
    conversion.params, conversion.model, convert.HF_CLIPSEG.names(conversion.model)
  )
  wrong = {k for k in weights if k not in back or np.any(weights[k] != back[k])}
  case.equal(
    'tensors that do not come back', len(wrong | (set(back) - set(weights))), 0
  )
  config = ClipSegConfig.from_dict(conversion.model['clipseg'])
  case.equal('decoder.mlp', float(config.decoder.mlp), c['decoder_intermediate_size'])
  return config, jax.tree.map(jnp.asarray, conversion.params)


def run(
  config: ClipSegConfig, params: Any, image: Any, condition: Any
) -> tuple[Any, list[Any]]:
  """Returns all logits (b k h w), and the decoder's state after each block."""
  logits, state = ClipSeg(config).apply(
    {'params': params},
    image,
    condition,
    capture_intermediates=lambda module, _: (module.name or '').startswith('block_'),
    mutable=['intermediates'],
  )
  blocks = state['intermediates']['decoder']
  states = [blocks[f'block_{i}']['__call__'][0] for i in range(len(blocks))]
  return logits, states


def own(x: Any) -> Any:
  """Takes of every image the row of the prompt that was meant for it."""
  rows = np.arange(x.shape[0])
  return x[rows, rows]


def check_run(
  case: Case,
  model: tuple[ClipSegConfig, Any],
  image: Any,
  condition: Any,
  name: str,
  tolerance: float,
) -> list[Any]:
  """Compares the logits of all prompts on all images; returns the own states."""
  count = image.shape[0]
  every = jnp.broadcast_to(condition[None], (count, *condition.shape))
  logits, states = run(*model, image, every)
  case.close(name, own(logits), tolerance)
  return [own(x.reshape(count, -1, *x.shape[1:])) for x in states]


def clipseg_tiny(case: Case) -> None:
  """Masks of texts and of pictures; images of another size than the model's."""
  config, params = load(case)
  image = jnp.asarray(images(case.given('pixel_values')))
  text, prompt = conditions(params, config, case, 'visual_prompt')
  case.close('conditional_embeddings', text, EMBEDDINGS)
  case.close('cond_visual', prompt, EMBEDDINGS)
  pooled = ClipSeg(config).apply(
    {'params': params}, image, method='encode_prompt_image'
  )
  case.close('pooled_output', pooled, EMBEDDINGS)
  states = check_run(case, (config, params), image, text, 'logits', TINY[0])
  for i, state in enumerate(states):
    case.close(f'dec_hidden_{i}', state, TINY[1])
  check_run(case, (config, params), image, prompt, 'logits_visual', TINY[0])


def conditions(
  params: Any, config: ClipSegConfig, case: Case, prompt: str
) -> tuple[Any, Any]:
  """Returns the embeddings of the case's texts and of one of its sets of pictures."""
  model, variables = ClipSeg(config), {'params': params}
  tokens = jnp.asarray(case.given('input_ids'))
  text = model.apply(variables, tokens, method='encode_text')
  pictures = jnp.asarray(images(case.given(prompt)))
  return text, model.apply(variables, pictures, method='encode_prompt_image')


def clipseg_train(case: Case) -> None:
  """Masks at several sizes and under mixed conditions; the loss and its gradients."""
  config, params = load(case)
  text, visual = conditions(params, config, case, 'visual_prompt')
  case.close('cond_text', text, EMBEDDINGS)
  case.close('cond_visual', visual, EMBEDDINGS)
  small = conditions(params, config, case, 'visual_prompt_48')[1]
  case.close('cond_visual_48', small, EMBEDDINGS)
  mix = 0.3 * text + 0.7 * visual
  case.close('cond_mix_0p3text_0p7visual', mix, EMBEDDINGS)
  for size in case.config['sizes']:
    image = jnp.asarray(images(case.given(f'pixel_values_{size}')))
    found = {}
    for name, condition in (('text', text), ('visual', visual), ('mix', mix)):
      found[name] = check_run(
        case, (config, params), image, condition, f'logits_{name}_{size}', TRAIN[0]
      )
    for i, state in enumerate(found['text']):
      case.close(f'dec_hidden_{i}_{size}', state, TRAIN[1])
    labels = jnp.asarray(case.given(f'labels_{size}'), jnp.float32)
    training(case, config, params, size, (image, text, labels))


def training(
  case: Case, config: ClipSegConfig, params: Any, size: int, batch: tuple[Any, ...]
) -> None:
  """Compares the loss, and the gradients where there are any stored."""
  image, condition, labels = batch

  def loss(params: Any) -> Any:
    logits = ClipSeg(config).apply({'params': params}, image, condition[:, None])
    return jnp.mean(optax.sigmoid_binary_cross_entropy(logits[:, 0], labels))

  value, grads = jax.jit(jax.value_and_grad(loss))(params)
  case.close(f'bce_loss_{size}', value, 1e-5)
  names = case.names(f'out/grad_{size}/')
  if not names:
    return
  model = {'clipseg': config.to_dict()}
  found = convert.HF_CLIPSEG.export(grads, model, names)
  for name in names:
    want = case.expected(f'grad_{size}/{name}')
    want = np.zeros_like(want) if name.endswith(NO_GRADIENT) else want
    case.compare(f'grad_{size}/{name}', found[name], want, GRADIENTS)
  inside = jax.tree.leaves(jax.tree.map(lambda x: jnp.any(x != 0), grads['clip']))
  moved = sum(bool(x) for x in inside)
  case.equal(f'parameters of CLIP with a gradient ({size})', moved, 0)
