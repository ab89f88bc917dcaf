"""ComfyUI: the core wrapped around a SAMPLER or a MODEL. Importing this alone imports no ComfyUI."""
