"""What a person sees in ComfyUI: the nodes, their words, and their pictures."""
