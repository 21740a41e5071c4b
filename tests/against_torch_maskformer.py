"""MaskFormer here and in PyTorch, in one process: equal numbers, and which is faster?

    python tests/against_torch_maskformer.py --backbone=swin_base --side=640

Random weights go to disk by `transformers`, come here by the converter, and go back by
its export, from which `transformers` has to load every tensor. Needs torch and
transformers, which nothing else here does, beside requirements/core.txt.
"""

import argparse
import json
import pathlib
import tempfile
import time
from typing import Any

from torch_turns import options

if __name__ == '__main__':
  ARGUMENTS = options(
    __doc__,
    ('--backbone', 'swin_base', 'a preset of ours'),
    ('--side', 640, 'of the pictures'),
    ('--batch', 1, 'images at once'),
    ('--repeats', 3, 'of each, in turns'),
  )

import jax  # noqa: E402
import numpy as np  # noqa: E402
import torch  # noqa: E402
import transformers  # noqa: E402
from torch_turns import circumstances, median_seconds  # noqa: E402

from ovs_jax.convert import backbone_families, exchange  # noqa: E402
from ovs_jax.core.checkpoint import load_model  # noqa: E402
from ovs_jax.models import backbones  # noqa: E402
from ovs_jax.models.maskformer import (  # noqa: E402
  IMAGENET_MEAN,
  IMAGENET_STD,
  MaskFormer,
  MaskFormerConfig,
)

NUM_CLASSES = 150


def hugging_face(backbone: str) -> Any:
  """Returns a MaskFormer of the published sizes with random weights."""
  torch.manual_seed(0)
  settings = backbone_families.settings(backbones.PRESETS[backbone])
  settings['out_features'] = ['stage1', 'stage2', 'stage3', 'stage4']
  swin = settings.pop('model_type') == 'swin'
  kind = transformers.SwinConfig if swin else transformers.ResNetConfig
  model = transformers.MaskFormerForInstanceSegmentation(
    transformers.MaskFormerConfig(
      backbone_config=kind(**settings),
      decoder_config=transformers.DetrConfig(num_queries=100),
      num_labels=NUM_CLASSES,
    )
  ).eval()
  with torch.no_grad():
    for parameter in model.parameters():
      if parameter.ndim == 1:
        parameter.add_(0.05 * torch.randn_like(parameter))
  return model


def there_and_back(model: Any) -> tuple[MaskFormerConfig, dict[str, Any], list[str]]:
  """Returns our model, and the tensors that differ after the way there and back."""
  with tempfile.TemporaryDirectory() as directory:
    folder = pathlib.Path(directory)
    model.save_pretrained(folder / 'hf')
    exchange.convert(folder / 'hf', folder / 'ours')
    exchange.export(folder / 'ours', folder / 'back', layout='hf_maskformer')
    params, stored = load_model(folder / 'ours', kind='proposer')
    again, info = transformers.MaskFormerForInstanceSegmentation.from_pretrained(
      folder / 'back', output_loading_info=True
    )
  problems = sorted(info['missing_keys']) + sorted(info['unexpected_keys'])
  tensors = again.state_dict()
  problems += [
    k for k, x in model.state_dict().items() if not torch.equal(x, tensors[k])
  ]
  return MaskFormerConfig(**stored['proposer']), jax.device_put(params), problems


def main(arguments: argparse.Namespace) -> None:
  """Prints one line of JSON."""
  torch.set_num_threads(arguments.threads)
  reference = hugging_face(arguments.backbone)
  config, params, problems = there_and_back(reference)
  shape = (arguments.batch, arguments.side, arguments.side, 3)
  image = np.random.default_rng(0).uniform(0, 255, shape).astype(np.float32)
  normal = (image - np.float32(IMAGENET_MEAN)) / np.float32(IMAGENET_STD)
  given = torch.from_numpy(np.ascontiguousarray(normal.transpose(0, 3, 1, 2)))
  ours = jax.device_put(image)
  began = time.perf_counter()
  program = jax.jit(MaskFormer(config).apply).lower({'params': params}, ours).compile()
  compile_seconds = time.perf_counter() - began

  def by_torch() -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
      out = reference(pixel_values=given)
    return out.class_queries_logits.numpy(), out.masks_queries_logits.numpy()

  def by_jax() -> tuple[np.ndarray, np.ndarray]:
    out = program({'params': params}, ours)
    return np.asarray(out.embeddings[-1]), np.asarray(out.mask_logits[-1])

  pairs = zip(by_torch(), by_jax(), strict=True)
  errors = [float(np.abs(a - b).max() / np.abs(a).max()) for a, b in pairs]
  theirs, mine = median_seconds(by_torch, by_jax, repeats=arguments.repeats)
  report = {
    'backbone': arguments.backbone,
    'side': arguments.side,
    'batch': arguments.batch,
    'threads': arguments.threads,
    'relative_error_of_classes_and_masks': errors,
    'not_the_same_after_export': problems,
    'torch_images_per_second': round(arguments.batch / theirs, 4),
    'ovs_jax_images_per_second': round(arguments.batch / mine, 4),
    'ratio': round(theirs / mine, 3),
    'compile_seconds': round(compile_seconds, 1),
    **circumstances(),
  }
  print(json.dumps(report))


if __name__ == '__main__':
  main(ARGUMENTS)
