"""LTX 2: clip and sound are two samples of one model, each stepped by a scheduler of its own. Sound stays plain."""

from __future__ import annotations

import diffusers
import pytest
import torch
from diffusers.pipelines.ltx2 import LTX2TextConnectors

from selective_sigma.diffusers import detail
from selective_sigma.diffusers.run import StepTracker

from .parts import both, ones
from .pipes import Tiny

TEXT, LAYERS, TOKENS = 8, 2, 16
"""Width and layers of the text model, of which all layers are given to the connectors."""
HEADS = {"num_attention_heads": 2, "audio_num_attention_heads": 2}
ROPE = {"rope_double_precision": False, "rope_type": "split"}


class Clip(Tiny):
    """Returns clip and sound, one behind the other."""

    def __call__(self, **changes):
        torch.manual_seed(0)
        results = self.pipe(generator=torch.Generator().manual_seed(0), **{**self.arguments, **changes})
        return torch.cat([result.flatten() for result in results])


def ltx2() -> Clip:
    torch.manual_seed(0)
    connector = {"num_attention_heads": 2, "attention_head_dim": 4, "num_layers": 1, "num_learnable_registers": None}
    parts = {
        "transformer": diffusers.LTX2VideoTransformer3DModel(
            in_channels=4,
            out_channels=4,
            attention_head_dim=8,
            cross_attention_dim=16,
            audio_in_channels=4,
            audio_out_channels=4,
            audio_attention_head_dim=4,
            audio_cross_attention_dim=8,
            num_layers=1,
            caption_channels=TEXT,
            **HEADS,
            **ROPE,
        ),
        "connectors": LTX2TextConnectors(
            caption_channels=TEXT,
            text_proj_in_factor=LAYERS,
            connector_rope_base_seq_len=32,
            **{f"{kind}_connector_{name}": value for kind in ("video", "audio") for name, value in connector.items()},
            **ROPE,
        ),
        "vae": diffusers.AutoencoderKLLTX2Video(
            latent_channels=4,
            block_out_channels=(8,),
            decoder_block_out_channels=(8,),
            layers_per_block=(1,),
            decoder_layers_per_block=(1, 1),
            spatio_temporal_scaling=(True,),
            decoder_spatio_temporal_scaling=(True,),
            decoder_inject_noise=(False, False),
            downsample_type=("spatial",),
            upsample_residual=(False,),
            upsample_factor=(1,),
            patch_size=1,
        ),
        "audio_vae": diffusers.AutoencoderKLLTX2Audio(
            base_channels=4, ch_mult=(1,), num_res_blocks=1, resolution=32, latent_channels=2, mel_bins=8
        ),
    }
    pipe = diffusers.LTX2Pipeline(
        scheduler=diffusers.FlowMatchEulerDiscreteScheduler(),
        **{name: part.eval() for name, part in parts.items()},
        **dict.fromkeys(("text_encoder", "tokenizer", "vocoder", "processor", "prompt_enhancer", "duration_head")),
    )
    off = {"stg_scale": 0.0, "modality_scale": 1.0, "guidance_rescale": 0.0, "guidance_scale": 3.0}
    arguments = {
        **both(TEXT * LAYERS, TOKENS),
        **ones("prompt_attention_mask", "negative_prompt_attention_mask", tokens=TOKENS),
        **off,
        **{f"audio_{name}": value for name, value in off.items()},
        "spatio_temporal_guidance_blocks": None,
        "use_cross_timestep": False,
        "height": 32,
        "width": 64,
        "num_frames": 5,
        "num_inference_steps": 8,
        "output_type": "latent",
        "return_dict": False,
    }
    return Clip(pipe, arguments, ("transformer",))


def test_the_clip_gets_detail_and_sound_stays_plain():
    tiny, answers = ltx2(), []
    plain = tiny()
    with detail(tiny.pipe, mask_override="zeros") as run:
        assert torch.equal(tiny(), plain)
        assert run.report.lied > 0
        assert run.report.steps == 8
    tiny.module.register_forward_hook(lambda _, __, answer: answers.append(answer))
    handed_on = []
    called = StepTracker.called

    def watch(*args):
        handed_on.append(called(*args))
        return handed_on[-1]

    with pytest.MonkeyPatch.context() as patch, detail(tiny.pipe, every=1, start=0.0) as run:
        patch.setattr(StepTracker, "called", watch)
        chosen = tiny()
    assert run.mask.shape == (1, 1, 3, 16, 32)
    assert not torch.equal(chosen, plain)
    assert run.report.lied == 7
    # The connectors are asked once, before the first step. Of each step the plain answer comes last.
    last = [answer for i, answer in enumerate(answers) if i == 0 or i % 2 == 0]
    for (clip, sound), (plain_clip, plain_sound) in list(zip(handed_on[-8:], last, strict=True))[1:]:
        assert not torch.equal(clip, plain_clip)
        assert torch.equal(sound, plain_sound)


@pytest.mark.parametrize("settings", [{"coverage": 1.0}, {"mask_override": "ones"}])
def test_no_lied_call_answers_for_sound(settings):
    tiny = ltx2()
    message = "cannot work with LTX2Pipeline: its model answers for more than the picture .*: give coverage below 1"
    with pytest.raises(ValueError, match=message) as caught, detail(tiny.pipe, **settings):
        tiny()
    assert "\n" not in str(caught.value)


def test_the_clip_is_told_the_lied_time():
    """Nine tenths of the noise to signal, by the time and by the sample; sound is shown as it is."""
    tiny, seen = ltx2(), []

    def see(_, __, kwargs):
        seen.append((kwargs["hidden_states"][-1:], kwargs["audio_hidden_states"][-1:], kwargs["timestep"]))

    tiny.module.register_forward_pre_hook(see, with_kwargs=True)
    with detail(tiny.pipe, strength=0.1, start=0.0, every=1, mask_override="zeros"):
        tiny()
    # The first call is plain and learned from; the last two are the last step, whose dose is half.
    for (clip, sound, lied_time), (true_clip, true_sound, time) in zip(seen[1:-2:2], seen[2:-2:2], strict=True):
        lied, true = (float(t.flatten()[-1]) / 1000 for t in (lied_time, time))
        torch.testing.assert_close(lied / (1 - lied), 0.9 * true / (1 - true), rtol=1e-3, atol=0)
        torch.testing.assert_close(clip, true_clip * (1 - lied) / (1 - true), rtol=1e-3, atol=1e-4)
        assert torch.equal(sound, true_sound)
