"""Real diffusers pipelines, tiny and untrained, saved in the library's own layout: what the tests of its editor run."""

import torch

from crispedit import torchvision_ops as torchvision_ops  # before diffusers and transformers

# isort: split
from diffusers import (
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLQwenImage,
    AutoencoderKLQwenImage21,
    AutoencoderKLWan,
    DDIMScheduler,
    FlowMatchEulerDiscreteScheduler,
    Flux2KleinPipeline,
    Flux2Pipeline,
    Flux2Transformer2DModel,
    FluxKontextPipeline,
    FluxTransformer2DModel,
    JoyImageEditPipeline,
    JoyImageEditTransformer3DModel,
    LongCatImageEditPipeline,
    LongCatImageTransformer2DModel,
    QwenImage21Pipeline,
    QwenImage21Transformer2DModel,
    QwenImageEditPlusPipeline,
    QwenImageTransformer2DModel,
    StableDiffusionInstructPix2PixPipeline,
    UNet2DConditionModel,
)
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPTextConfig,
    CLIPTextModel,
    CLIPTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    PixtralImageProcessor,
    PixtralProcessor,
    PreTrainedTokenizerFast,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLImageProcessor,
    Qwen2VLProcessor,
    Qwen3Config,
    Qwen3ForCausalLM,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLProcessor,
    Qwen3VLVideoProcessor,
    T5Config,
    T5EncoderModel,
)

LETTERS = sorted(pre_tokenizers.ByteLevel.alphabet())


def clip_text():
    """(text encoder, tokenizer): every byte is a token."""
    vocab = {letter: i for i, letter in enumerate(LETTERS + [f"{letter}</w>" for letter in LETTERS])}
    for special in ("<|startoftext|>", "<|endoftext|>"):
        vocab[special] = len(vocab)
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=77)
    config = CLIPTextConfig(
        vocab_size=len(vocab),
        hidden_size=32,
        intermediate_size=37,
        num_hidden_layers=2,
        num_attention_heads=4,
        projection_dim=32,
        bos_token_id=len(vocab) - 2,
        eos_token_id=len(vocab) - 1,
        pad_token_id=len(vocab) - 1,
    )
    return CLIPTextModel(config).eval(), tokenizer


def t5_text():
    words = {letter: i for i, letter in enumerate(["<pad>", "</s>", "<unk>", *LETTERS])}
    backend = Tokenizer(models.BPE(vocab=words, merges=[], unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, pad_token="<pad>", eos_token="</s>", unk_token="<unk>", model_max_length=64
    )
    config = T5Config(
        vocab_size=len(words), d_model=32, d_ff=37, d_kv=8, num_layers=2, num_heads=4, decoder_start_token_id=0
    )
    return T5EncoderModel(config).eval(), tokenizer


def vae(latent_channels, blocks=2, **changes):
    """It makes an image two times smaller with two blocks, where the real ones make it eight times smaller."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        block_out_channels=(4,) * blocks,
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * blocks,
        up_block_types=("UpDecoderBlock2D",) * blocks,
        latent_channels=latent_channels,
        norm_num_groups=1,
        **changes,
    ).eval()


def kontext(folder):
    torch.manual_seed(0)
    text, tokenizer = clip_text()
    text_2, tokenizer_2 = t5_text()
    transformer = FluxTransformer2DModel(
        patch_size=1,
        in_channels=4,
        num_layers=1,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        pooled_projection_dim=32,
        axes_dims_rope=[4, 4, 8],
        guidance_embeds=True,
    )
    FluxKontextPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(1, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.0609, scaling_factor=1.5035),
        text_encoder=text,
        tokenizer=tokenizer,
        text_encoder_2=text_2,
        tokenizer_2=tokenizer_2,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def pix2pix(folder):
    torch.manual_seed(0)
    text, tokenizer = clip_text()
    unet = UNet2DConditionModel(
        block_out_channels=(8, 16),
        layers_per_block=1,
        sample_size=32,
        in_channels=8,
        out_channels=4,
        down_block_types=("DownBlock2D", "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", "UpBlock2D"),
        cross_attention_dim=32,
        norm_num_groups=4,
    )
    StableDiffusionInstructPix2PixPipeline(
        vae=vae(4),
        text_encoder=text,
        tokenizer=tokenizer,
        unet=unet.eval(),
        scheduler=DDIMScheduler(clip_sample=False, steps_offset=1),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder)
    return folder


def flux2_transformer(**changes):
    return Flux2Transformer2DModel(
        in_channels=16,
        num_layers=2,
        num_single_layers=1,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=32,
        timestep_guidance_channels=16,
        axes_dims_rope=(4, 4, 4, 4),
        **changes,
    ).eval()


def flux2_vae():
    return AutoencoderKLFlux2(
        block_out_channels=(4, 4),
        layers_per_block=1,
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        latent_channels=4,
        norm_num_groups=1,
    ).eval()


def flux2(folder):
    """FLUX.2-dev. Of a text encoder of two layers: call it with `text_encoder_out_layers: [1, 2]`."""
    torch.manual_seed(0)
    words = ["<pad>", "<s>", "</s>", "<unk>", "[IMG]", "[IMG_BREAK]", "[IMG_END]"]
    backend = Tokenizer(
        models.BPE(vocab={word: i for i, word in enumerate([*words, *LETTERS])}, merges=[], unk_token="<unk>")
    )
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token="<pad>",
        bos_token="<s>",
        eos_token="</s>",
        unk_token="<unk>",
        additional_special_tokens=words[4:],
        model_max_length=512,
        padding_side="left",
    )
    template = "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}</s>{% endfor %}"
    sizes = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8)
    config = Mistral3Config(
        text_config=dict(model_type="mistral", vocab_size=len(words) + len(LETTERS), num_key_value_heads=2, **sizes),
        vision_config=dict(model_type="pixtral", patch_size=14, image_size=56, **sizes),
        image_token_index=4,
    )
    Flux2Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=flux2_vae(),
        text_encoder=Mistral3ForConditionalGeneration(config).eval(),
        tokenizer=PixtralProcessor(PixtralImageProcessor(), tokenizer, patch_size=14, chat_template=template),
        transformer=flux2_transformer(guidance_embeds=True),
    ).save_pretrained(folder)
    return folder


def klein(folder):
    """Of a text encoder of two layers: call it with `text_encoder_out_layers: [1, 2]`."""
    torch.manual_seed(0)
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocab = {word: i for i, word in enumerate(LETTERS + words)}
    tokenizer = Qwen2Tokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", additional_special_tokens=words)
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    config = Qwen3Config(
        vocab_size=len(vocab),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        head_dim=8,
    )
    Flux2KleinPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=flux2_vae(),
        text_encoder=Qwen3ForCausalLM(config).eval(),
        tokenizer=tokenizer,
        transformer=flux2_transformer(guidance_embeds=False),
        is_distilled=True,
    ).save_pretrained(folder)
    return folder


QWEN_WORDS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")
QWEN_WORDS += ("<|image_pad|>", "<|video_pad|>")


def qwen_tokenizer():
    vocab = {word: i for i, word in enumerate((*LETTERS, *QWEN_WORDS))}
    return Qwen2Tokenizer(vocab=vocab, merges=[], pad_token="<|endoftext|>", additional_special_tokens=list(QWEN_WORDS))


def qwen_vision(tokenizer):
    """Qwen2.5-VL and its processor."""
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2)
    rope = {"rope_type": "default", "mrope_section": [1, 1, 2], "rope_theta": 1000000.0}
    config = Qwen2_5_VLConfig(
        text_config=dict(num_key_value_heads=2, rope_parameters=rope, vocab_size=len(tokenizer), **text),
        vision_config=dict(
            depth=2, hidden_size=16, intermediate_size=16, num_heads=2, out_hidden_size=16, fullatt_block_indexes=[0, 1]
        ),
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>") for name, word in names.items()},
    )
    processor = Qwen2VLProcessor(Qwen2VLImageProcessor(), tokenizer, video_processor(), chat_template=None)
    return Qwen2_5_VLForConditionalGeneration(config).eval(), processor


def qwen3_vision(tokenizer):
    """Qwen3-VL and its processor."""
    names = {"vision_start": "vision_start", "vision_end": "vision_end", "image": "image_pad", "video": "video_pad"}
    text = dict(hidden_size=16, intermediate_size=16, num_hidden_layers=2, num_attention_heads=2, head_dim=8)
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "mrope_interleaved": True, "rope_theta": 1e6}
    config = Qwen3VLConfig(
        text_config=dict(num_key_value_heads=2, rope_parameters=rope, vocab_size=len(tokenizer), **text),
        vision_config=dict(
            depth=2,
            hidden_size=16,
            intermediate_size=16,
            num_heads=2,
            out_hidden_size=16,
            num_position_embeddings=256,
            deepstack_visual_indexes=[0],
        ),
        **{f"{name}_token_id": tokenizer.convert_tokens_to_ids(f"<|{word}|>") for name, word in names.items()},
    )
    images = Qwen2VLImageProcessor(patch_size=16, size={"shortest_edge": 64 * 64, "longest_edge": 1 << 24})
    template = "{% for m in messages %}<|im_start|>{{ m['role'] }}{% for c in m['content'] %}{{ c['text'] }}"
    template += "{% endfor %}<|im_end|>{% endfor %}"
    processor = Qwen3VLProcessor(images, tokenizer, Qwen3VLVideoProcessor(), chat_template=template)
    return Qwen3VLForConditionalGeneration(config).eval(), processor


def longcat(folder):
    """It brings every source to a megapixel, so its images are made as small as the real ones make them."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    text_encoder, processor = qwen_vision(tokenizer)
    LongCatImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=vae(16, blocks=4, use_quant_conv=False, use_post_quant_conv=False, shift_factor=0.06, scaling_factor=1.5),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        text_processor=processor,
        transformer=LongCatImageTransformer2DModel(
            patch_size=1,
            in_channels=64,
            num_layers=1,
            num_single_layers=1,
            attention_head_dim=16,
            num_attention_heads=2,
            joint_attention_dim=16,
            pooled_projection_dim=16,
            axes_dims_rope=[4, 4, 8],
        ).eval(),
    ).save_pretrained(folder)
    return folder


def joyimage(folder):
    """It knows some sizes of a megapixel only, so its images are made 32 times smaller and cut into patches of two."""
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    text_encoder, processor = qwen3_vision(tokenizer)
    JoyImageEditPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLWan(
            base_dim=4,
            z_dim=4,
            dim_mult=[1] * 6,
            num_res_blocks=1,
            temperal_downsample=[False, False, False, True, True],
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
            scale_factor_spatial=32,
        ).eval(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        transformer=JoyImageEditTransformer3DModel(
            in_channels=4, hidden_size=32, num_attention_heads=2, text_dim=16, num_layers=2, rope_dim_list=[4, 6, 6]
        ).eval(),
        processor=processor,
    ).save_pretrained(folder)
    return folder


def qwen_image_21(folder):
    torch.manual_seed(0)
    text_encoder, processor = qwen3_vision(qwen_tokenizer())
    QwenImage21Pipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=AutoencoderKLQwenImage21(
            base_dim=4,
            decoder_base_dim=4,
            z_dim=4,
            dim_mult=[1, 1, 1, 1, 1],
            num_res_blocks=1,
            latents_mean=[0.0] * 4,
            latents_std=[1.0] * 4,
        ).eval(),
        text_encoder=text_encoder,
        processor=processor,
        transformer=QwenImage21Transformer2DModel(
            in_channels=4,
            out_channels=4,
            num_layers=2,
            attention_head_dim=16,
            num_attention_heads=2,
            context_in_dim=16,
            axes_dims_rope=(4, 6, 6),
        ).eval(),
    ).save_pretrained(folder)
    return folder


def qwen_edit(folder):
    torch.manual_seed(0)
    tokenizer = qwen_tokenizer()
    text_encoder, processor = qwen_vision(tokenizer)
    autoencoder = AutoencoderKLQwenImage(
        base_dim=12,
        z_dim=4,
        dim_mult=[1, 1, 1, 1],
        num_res_blocks=1,
        temperal_downsample=[False, True, True],
        latents_mean=[0.0] * 4,
        latents_std=[1.0] * 4,
    )
    transformer = QwenImageTransformer2DModel(
        patch_size=2,
        in_channels=16,
        out_channels=4,
        num_layers=2,
        attention_head_dim=16,
        num_attention_heads=2,
        joint_attention_dim=16,
        guidance_embeds=False,
        axes_dims_rope=(8, 4, 4),
    )
    QwenImageEditPlusPipeline(
        scheduler=FlowMatchEulerDiscreteScheduler(),
        vae=autoencoder.eval(),
        text_encoder=text_encoder,
        tokenizer=tokenizer,
        processor=processor,
        transformer=transformer.eval(),
    ).save_pretrained(folder)
    return folder


def video_processor():
    from transformers import Qwen2VLVideoProcessor

    return Qwen2VLVideoProcessor()
