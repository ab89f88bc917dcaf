"""What samples: a SAMPLER or a MODEL with the detailer inside. Nothing here imports the nodes."""
