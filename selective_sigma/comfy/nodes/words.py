"""Descriptions, tooltips and messages of the nodes. ``locales/en`` repeats the descriptions and tooltips."""

STRENGTH = (
    "How much detail to add: the share of the noise hidden from the model, at most. "
    "0.1 to begin with, 0.05 is subtle, 0.15 a lot; 0 does nothing."
)
SETTINGS = {
    "strength": f"{STRENGTH} Below 0 softens.",
    "coverage": "How much of the picture receives it. 0: nothing. 0.5: where the model is drawing something, "
    "and flat areas are left alone. 1: everywhere, which also costs no extra model calls.",
    "start": "Share of the model's noise range, from full noise, after which detail is added; before it, composition "
    "is set. Counted as ComfyUI's start percents are.",
    "end": "Share of the model's noise range at which detail stops. Must lie above start.",
    "ema": "For mask_source change: weight of the previous mask at each step.",
    "mask_clip_percentile": "For mask_source change and first: share of the pixels clipped at the dark and at the "
    "bright end before the mask is stretched to black and white. Higher: more contrast.",
    "mask_override": "Replaces the mask by a constant, to check the blend; always runs both passes. zeros must give "
    "the picture of the bare sampler, ones that of coverage 1.",
    "every": "Detail is added at every n-th step, with the strength of n. Higher: fewer extra model calls.",
    "mask_source": "What the mask is made from. response: the detail that the prediction holds, beside what the lie "
    "would add to it. change: where the prediction still moves, as in the first published pack. first: the noisy "
    "latent itself, frozen (no better than chance).",
    "lie": "For flow models (SD3, Flux, Qwen-Image, Wan). noise_to_signal: the model is told of less noise, the "
    "picture keeps its brightness. fixed_input: as other packs do. On SD 1.x and SDXL both are the same.",
}
SAMPLER = "The sampler to add detail to, for instance from KSamplerSelect."
SAMPLER_TOO = "The sampler to add detail to, for instance from KSamplerSelect. Connect this or a model."
SAMPLER_OUT = "The sampler with detail. At strength 0 or coverage 0 this is the very sampler that came in."
MODEL = "The model to add detail to. Place this node last, right before the sampler."
MODEL_TOO = "For the plain KSampler: the model to add detail to. Connect this or a sampler."
MODEL_OUT = "The model with detail, for KSampler and everything else that samples with a MODEL."
MASK = (
    "Optional: detail goes only where this mask is white. Resized to the latent; a tiled sampler stretches it "
    "over each of its tiles."
)
LIVE = (
    "While sampling, the preview of each step shows the mask beside the picture: white receives detail, all black "
    "before it begins."
)
REF = "The masks of the runs, for Mask Preview (Selective Sigma)."
REF_IN = (
    "From Selective Sigma Detailer (Model) or (Debug). Without it, as when that node is bypassed, there is no mask "
    "to show."
)
LATENT = (
    "The latent that comes out of sampling, by which the run is found. Passed on unchanged; connecting it makes this "
    "node wait for the sampler."
)
LATENT_OUT = "The latent that came in, unchanged."
IMAGE = (
    "Optional: the decoded picture. The mask is then laid over it. Decode the sampler's own output, not this node's."
)
IMAGE_OUT = "The masks as pictures: black is untouched, white receives full detail."
MASK_OUT = (
    "The mask, to reuse it elsewhere: with last step that of the last active step, else the mean over the run. As "
    "large as the picture, also where no image is connected."
)
SHOW = (
    "last step: the mask of the last active step. every step: one picture for each step, in run order. "
    "timeline: all steps in one picture, row by row, above a plot of strength and mask. average: the mean over the run."
)

DUPLICATE_PACK = (
    "Two packs give nodes of the same names, {ours} and {theirs}, and ComfyUI keeps those that it loads last, here "
    "{last}. Disable one of the two."
)
NOTHING = "connect a sampler or a model: Selective Sigma Detailer (Debug) has neither"
UNCONNECTED = "{out} of Selective Sigma Detailer (Debug) is empty: connect its {input}"
BYPASSED = "no mask: Selective Sigma is bypassed or off"
OTHER_LATENT = "no mask: this latent is not the one that the sampler put out; connect the sampler's own"
NO_DETAIL = "no mask: this run went without detail ({})"
SIMPLE = (
    "For SamplerCustom: between KSamplerSelect and the sampler. Adds detail while sampling, only where the model is "
    "drawing something; flat areas such as sky or skin out of focus stay clean."
)
DEBUG = (
    "For SamplerCustom or KSampler: Selective Sigma Detailer with every constant exposed, and the masks of the run "
    "as an output for the preview. The defaults are those of the plain node."
)
PREVIEW = (
    "After the sampler: shows where Selective Sigma Detailer (Model) or (Debug) added detail, step by step if you "
    "like. Black where nothing was added. Where there is no mask, it says why."
)
ON_MODEL = (
    "For KSampler, and everything else that takes a MODEL: between the model and the sampler. Adds detail while "
    "sampling, only where the model is drawing something. Gives the same picture as the sampler node; use one or the "
    "other, not both."
)
DEMO = (
    "In place of a checkpoint, for trying things out: a small network that redraws any photograph from a thumbnail of "
    "it. Connect its outputs as those of a checkpoint: to KSampler or SamplerCustom, and VAE Decode."
)
DEMO_IMAGE = (
    "Optional: the photograph to redraw; scaled to at most 512x512 pixels or as many in its own shape. Without it, "
    "the photograph of a bird that comes with the pack."
)
DEMO_FAMILY = (
    "ve: noise is added, as on SD 1.x and SDXL. flow: the picture fades into noise, as on SD3, Flux, Qwen-Image."
)
DEMO_OUT = {
    "model": "The demo network, for KSampler, SamplerCustom, and the Selective Sigma nodes.",
    "positive": "The thumbnail of the photograph.",
    "negative": "No thumbnail, for cfg above 1.",
    "vae": "For VAE Decode and VAE Encode: the latent of this network is the picture itself.",
    "latent": "An empty latent in the size of the redrawn photograph.",
}
DETAIL_ALIASES = [
    "sky grain", "grain", "more detail", "add detail", "enhance", "skin texture", "texture", "clarity", "crisp",
    "sharpen", "detail daemon", "lying sigma", "multiply sigmas", "ssd",
]  # fmt: skip
"""Searches for detail, which find both production nodes."""
ALIASES = {
    "SelectiveSigmaDetailerNode": [*DETAIL_ALIASES, "samplercustom detail"],
    "SelectiveSigmaDetailerModelNode": [*DETAIL_ALIASES, "ksampler detail", "detail model patch", "ssd model"],
    "SelectiveSigmaDetailerDebugNode": ["ssd debug", "selective sigma settings"],
    "SelectiveSigmaDetailerMaskPreviewNode": ["mask preview", "preview mask", "mask timeline", "show mask", "ssd mask"],
    "SelectiveSigmaDemoModelNode": ["demo model", "try without checkpoint", "test model", "redraw photograph"],
}  # fmt: skip
