"""For every test: one thread, here and in what it starts; tiny networks and busy machines lose time to more."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

torch.set_num_threads(1)
