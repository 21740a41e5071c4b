"""Foreign configurations: what is not understood is refused by name, the rest read."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import tiny_clipseg
from safetensors.numpy import save_file
from tiny_clip import TINY, draw, hf_settings, openai_shapes, to_hf

from ovs_jax.convert import SOURCES, backbone_families, backbones, hf_maskformer
from ovs_jax.convert.command import main
from ovs_jax.convert.family import Options
from ovs_jax.models.resnet import ResNetConfig
from ovs_jax.models.swin import SwinConfig

PLAIN = dataclasses.replace(TINY, prompt_depth=0)
CLIP = draw(openai_shapes(PLAIN), np.float32)
HF_CLIP = to_hf(CLIP)
OPEN_CLIP_SETTINGS = {
  'model_cfg': {
    'embed_dim': 10,
    'quick_gelu': True,
    'custom_text': False,
    'vision_cfg': {'image_size': 8, 'layers': 2, 'width': 128, 'patch_size': 4},
    'text_cfg': {'context_length': 7, 'vocab_size': 20, 'width': 64, 'heads': 1},
  },
  'preprocess_cfg': {'size': [8, 8], 'mean': [0.481455, 0.457828, 0.408211]},
}
MODEL, VISION, TEXT, PIXELS = (
  ('model_cfg',),
  ('model_cfg', 'vision_cfg'),
  ('model_cfg', 'text_cfg'),
  ('preprocess_cfg',),
)


def changed(settings, path, key, value):
  """Returns settings with another value at a path of sections."""
  settings = copy.deepcopy(settings)
  section = settings
  for name in path:
    section = section.setdefault(name, {})
  section[key] = value
  return settings


def convert(family, source, settings):
  return SOURCES[family].convert(source, settings, Options())


def refused(family, source, settings, key, value):
  with pytest.raises(ValueError) as error:
    convert(family, source, settings)
  (message,) = str(error.value).splitlines()
  assert f'{key} {value!r}' in message
  assert 'instead of' in message or 'a key that is not known' in message
  assert 'Convert another checkpoint' in message


@pytest.mark.parametrize(
  'path, key, value',
  [
    ((), 'multimodal_cfg', {'width': 8}),
    (MODEL, 'multimodal_cfg', {'width': 8}),
    (MODEL, 'quick_gelu', 'yes'),
    (MODEL, 'init_logit_bias', 'yes'),
    (MODEL, 'vision_cfg', [1]),
    (VISION, 'pool_type', 'avg'),
    (VISION, 'norm_kwargs', {'eps': 0}),
    (VISION, 'norm_kwargs', {'bias': False}),
    (VISION, 'act_kwargs', {'approximate': 'none'}),
    (VISION, 'ls_init_value', 0.1),
    (VISION, 'pos_embed_type', 'sin_cos_2d'),
    (VISION, 'attentional_pool', True),
    (VISION, 'head_width', 0),
    (VISION, 'qk_norm', True),
    (VISION, 'rope', True),
    (TEXT, 'pool_type', 'first'),
    (TEXT, 'hf_model_name', 'xlm-roberta-base'),
    (TEXT, 'tokenizer_kwargs', {'clean': 'mine'}),
    (TEXT, 'tokenizer_kwargs', {'reduction_mask': 'syntax'}),
    (TEXT, 'use_pad_mask', True),
    (TEXT, 'embed_cls', True),
    (TEXT, 'proj_type', 'mlp'),
    (TEXT, 'heads', '8'),
    (TEXT, 'text_mask', 'syntax'),
    (PIXELS, 'resize_mode', 'longest'),
    (PIXELS, 'interpolation', 'random'),
    (PIXELS, 'mode', 'BGR'),
    (PIXELS, 'mean', [0.5, 0.5]),
    (PIXELS, 'std', 0.5),
    (PIXELS, 'crop', 0.9),
  ],
)
def test_open_clip_refuses(path, key, value):
  settings = changed(OPEN_CLIP_SETTINGS, path, key, value)
  refused('open_clip', CLIP, settings, key if key != 'vision_cfg' else 'vision', value)


def test_open_clip_accepts_its_defaults():
  settings = OPEN_CLIP_SETTINGS
  for path, more in (
    (MODEL, {'init_logit_bias': None, 'output_dict': True, 'cast_dtype': 'bf16'}),
    (VISION, {'pool_type': 'tok', 'norm_kwargs': {'eps': 1e-5}, 'act_kwargs': None}),
    (VISION, {'patch_dropout': 0.5, 'timm_model_name': None, 'timm_pool': 'avg'}),
    (VISION, {'no_ln_pre': False, 'attn_pooler_heads': 8, 'head_width': 64}),
    (TEXT, {'pool_type': 'argmax', 'eos_id': 2, 'pad_id': 0, 'embed_cls': False}),
    (TEXT, {'hf_tokenizer_name': '', 'hf_pooler_type': 'mean_pooler'}),
    (PIXELS, {'resize_mode': 'shortest', 'interpolation': 'bicubic', 'std': None}),
    (PIXELS, {'mode': 'RGB', 'fill_color': 0}),
  ):
    for key, value in more.items():
      settings = changed(settings, path, key, value)
  model = convert('open_clip', CLIP, settings).model['clip']
  assert model == dataclasses.asdict(PLAIN)


@pytest.mark.parametrize(
  'path, key, value',
  [
    ((), 'model_type', 'siglip2'),
    ((), 'auto_map', {'AutoModel': 'model.Mine'}),
    ((), 'quantization_config', {'bits': 4}),
    (('text_config',), 'model_type', 'metaclip_2_text_model'),
    (('text_config',), 'num_attention_heads', 0),
    (('text_config',), 'num_attention_heads', '1'),
    (('text_config',), 'num_attention_heads', None),
    (('text_config',), 'layer_norm_eps', None),
    (('text_config',), 'hidden_act', ['gelu']),
    (('text_config',), 'attention_bias', False),
    (('text_config_dict',), 'head_dim', 32),
    (('vision_config',), 'pruned_heads', {'0': [1]}),
    (('vision_config',), 'num_channels', 1),
    (('vision_config',), 'vision_use_head', True),
    ((), 'vision_config', [1]),
    (('preprocessor_config.json',), 'image_mean', [0.5]),
    (('preprocessor_config.json',), 'resample', 1),
    (('preprocessor_config.json',), 'resize_mode', 'squash'),
  ],
)
def test_hugging_faces_clip_refuses(path, key, value):
  settings = changed(hf_settings(PLAIN), path, key, value)
  refused('hf_clip', HF_CLIP, settings, key, value)


def test_hugging_faces_clip_accepts_what_transformers_writes():
  old = dict(
    dict.fromkeys('bad_words_ids finetuning_task problem_type prefix'.split()),
    dropout=0.0,
    do_sample=False,
    typical_p=1.0,
    pruned_heads={},
    id2label={'0': 'LABEL_0'},
    cross_attention_hidden_size=None,
    torch_dtype=None,
    initializer_factor=1.0,
    layer_norm_eps=1e-5,
    pad_token_id=1,
  )
  settings = hf_settings(PLAIN, **old)
  settings['text_config'] |= {'model_type': 'clip_text_model', 'eos_token_id': 2}
  settings['vision_config'] |= {'model_type': 'clip_vision_model', 'num_channels': 3}
  settings |= {'architectures': ['CLIPModel'], 'logit_scale_init_value': 2.6592}
  settings |= {'text_config_dict': None, 'transformers_version': '4.16.0'}
  settings['preprocessor_config.json'] = {
    'crop_size': 224,
    'do_center_crop': True,
    'image_mean': [0.48145466, 0.4578275, 0.40821073],
    'resample': 3,
    'size': 224,
  }
  model = convert('hf_clip', HF_CLIP, settings).model['clip']
  assert model == dataclasses.asdict(PLAIN)


def test_an_older_section_replaces_the_newer_one_whole():
  settings = hf_settings(PLAIN, hidden_act='gelu')
  for tower in ('text', 'vision'):
    section = {**settings[f'{tower}_config']}
    del section['hidden_act']  # so that the default counts, as in `transformers`
    settings[f'{tower}_config_dict'] = section
  model = convert('hf_clip', HF_CLIP, settings).model['clip']
  assert model['activation'] == 'quick_gelu'


SEG = to_hf(draw(openai_shapes(tiny_clipseg.CLIP), np.float32))
SEG = {f'clip.{k}': v for k, v in SEG.items()}
SEG |= tiny_clipseg.to_hf(
  draw(tiny_clipseg.original_shapes(tiny_clipseg.TINY), np.float32)
)
SEG_SETTINGS = {
  **hf_settings(tiny_clipseg.CLIP),
  'model_type': 'clipseg',
  'extract_layers': [0, 1, 2],
  'reduce_dim': 8,
  'decoder_hidden_act': 'quick_gelu',
  'use_complex_transposed_convolution': True,
}


@pytest.mark.parametrize(
  'path, key, value',
  [
    ((), 'model_type', 'clip'),
    ((), 'decoder_hidden_act', 'gelu'),
    ((), 'decoder_num_attention_heads', 0),
    ((), 'extract_layers', None),
    ((), 'conditional_layer', -1),
    ((), 'use_complex_transposed_convolution', None),
    ((), 'decoder_layer_norm_eps', 1e-6),
    (('text_config',), 'model_type', 'clip_text_model'),
    (('vision_config',), 'num_channels', 4),
    (('preprocessor_config.json',), 'image_mean', [0.481, 0.457, 0.408]),
    (('preprocessor_config.json',), 'size', {'shortest_edge': 352}),
    (('preprocessor_config.json',), 'size', {'height': 352, 'width': 480}),
    (('preprocessor_config.json',), 'size', {'height': 1e9, 'width': 1e9}),
    (('preprocessor_config.json',), 'size', 5000),
    (('preprocessor_config.json',), 'resample', 3),
    (('preprocessor_config.json',), 'do_center_crop', True),
    (('preprocessor_config.json',), 'do_pad', True),
  ],
)
def test_clipseg_refuses(path, key, value):
  settings = changed(SEG_SETTINGS, path, key, value)
  refused('hf_clipseg', SEG, settings, key, value)


def test_clipsegs_decoder_has_the_towers_epsilon():
  convert('hf_clipseg', SEG, SEG_SETTINGS)
  settings = changed(SEG_SETTINGS, ('vision_config',), 'layer_norm_eps', 1e-6)
  with pytest.raises(
    ValueError, match='layer_norm_eps 1e-06, which its decoder shares'
  ):
    convert('hf_clipseg', SEG, settings)


SWIN = SwinConfig(8, (1, 2), (1, 2), 3, mlp_ratio=2)
RESNET = ResNetConfig((1, 1, 1, 1), 8, 4, 16, (1,), 'frozen', stem='plain')


@pytest.mark.parametrize(
  'config, key, value',
  [
    (SWIN, 'model_type', 'donut-swin'),
    (SWIN, 'model_type', 'swinv2'),
    (SWIN, 'path_norm', False),
    (SWIN, 'qkv_bias', False),
    (SWIN, 'layer_norm_eps', 1e-12),
    (SWIN, 'use_absolute_embeddings', True),
    (SWIN, 'pretrained_window_sizes', [0, 0, 0, 0]),
    (RESNET, 'model_type', 'resnetv2'),
    (RESNET, 'layer_type', 'preactivation'),
    (RESNET, 'downsample_in_bottleneck', 'no'),
    (RESNET, 'embedding_dynamic_padding', True),
    (RESNET, 'hidden_act', 'silu'),
    (SWIN, 'preprocessor_config.json', {'image_mean': [0.5, 0.5, 0.5]}),
    (RESNET, 'preprocessor_config.json', {'do_flip_channel_order': True}),
  ],
)
def test_backbones_refuse(config, key, value):
  settings = {**backbone_families.settings(config), key: value}
  with pytest.raises(ValueError) as error:
    backbones.with_settings(config, settings)
  if isinstance(value, dict):
    ((inner, value),) = value.items()
    key = f'{key} {inner}'
  assert f'{key} {value!r}' in str(error.value)


@pytest.mark.parametrize(
  'path, key, value',
  [
    ((), 'model_type', 'mask2former'),
    ((), 'backbone', 'resnet50'),
    ((), 'feature_strides', [4]),
    (('decoder_config',), 'model_type', 'conditional_detr'),
    (('decoder_config',), 'activation_function', 'gelu'),
    (('decoder_config',), 'scale_embedding', True),
    (('decoder_config',), 'position_embedding_type', 'learned'),
    (('decoder_config',), 'decoder_attention_heads', None),
    (('decoder_config',), 'dropout', 2),
    (('decoder_config',), 'normalize_before', True),
    (('backbone_config',), 'model_type', 'swinv2'),
    ((), 'decoder_config', [1]),
    (('preprocessor_config.json',), 'image_std', [1, 1, 1]),
    (('preprocessor_config.json',), 'size', {'height': 8, 'width': 8}),
    (('preprocessor_config.json',), 'do_center_crop', True),
    (('preprocessor_config.json',), 'resize_mode', 'squash'),
  ],
)
def test_maskformer_refuses(path, key, value):
  settings = changed({'backbone_config': {}, 'decoder_config': {}}, path, key, value)
  with pytest.raises(ValueError) as error:
    hf_maskformer.check_settings(settings, SWIN)
  assert f'{key} {value!r}' in str(error.value)


def test_how_pictures_are_prepared_is_accepted_as_published():
  usual = {
    'do_normalize': True,
    'do_resize': True,
    'image_mean': [0.485, 0.456, 0.406],
    'image_std': [0.229, 0.224, 0.225],
    'resample': 2,
  }
  name = 'preprocessor_config.json'
  pixels = {**usual, 'size': 352, 'feature_extractor_type': 'ViTFeatureExtractor'}
  convert('hf_clipseg', SEG, {**SEG_SETTINGS, name: pixels})
  pixels = {**usual, 'size': {'height': 352, 'width': 352}, 'rescale_factor': 1 / 255}
  convert('hf_clipseg', SEG, {**SEG_SETTINGS, name: pixels})
  pixels = {**usual, 'size': 224, 'crop_pct': 0.875, 'resample': 3}
  for config in (SWIN, RESNET):
    settings = {**backbone_families.settings(config), name: pixels}
    backbones.with_settings(config, settings)
  pixels = {**usual, 'size': 640, 'max_size': 2560, 'size_divisibility': 32}
  pixels |= {'ignore_index': 255, 'reduce_labels': True}
  hf_maskformer.check_settings({name: pixels}, SWIN)
  pixels['size'] = {'shortest_edge': 640, 'longest_edge': 2560}
  hf_maskformer.check_settings({name: pixels}, SWIN)


def test_what_is_refused_is_refused_before_anything_is_written(tmp_path, capsys):
  folder = tmp_path / 'naflex'
  folder.mkdir()
  save_file(HF_CLIP, folder / 'model.safetensors')
  settings = hf_settings(PLAIN)
  settings['model_type'] = 'siglip2'
  (folder / 'config.json').write_text(json.dumps(settings))
  assert main([f'--input={folder}', f'--output={tmp_path / "o"}']) == 2
  error = capsys.readouterr().err
  assert "model_type 'siglip2' instead of 'clip'" in error
  assert error.count('\n') == 1 and not (tmp_path / 'o').exists()
  settings = hf_settings(PLAIN)
  (folder / 'config.json').write_text(json.dumps(settings))
  pixels = {'image_mean': [0.5, 0.5]}
  (folder / 'preprocessor_config.json').write_text(json.dumps(pixels))
  assert main([f'--input={folder}', f'--output={tmp_path / "o"}']) == 2
  assert 'image_mean [0.5, 0.5] instead of' in capsys.readouterr().err
