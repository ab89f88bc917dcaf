#!/usr/bin/env bash
# Makes ComfyUI checkouts ready for `make test-comfy`: a .venv in each with what ComfyUI and our tests
# need, and a browser for the frontend's tests. Run again it adds what is missing.
#
#   tests/comfy/setup.sh [CHECKOUT...]     default: every checkout that the tests would run on
#
# PYTHON and TORCH_PINS choose another interpreter or other versions of torch, which come as one set.
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
read -ra torch <<<"${TORCH_PINS:-torch==2.11.0 torchvision==0.26.0 torchaudio==2.11.0}"
# requests: ComfyUI 0.3.64 imports it and does not ask for it. diffusers: the scenes' real networks.
extra=(requests pytest diffusers selenium)

if [ "$#" -eq 0 ]; then
  mapfile -t found < <("$here/checkouts.sh")
  set -- "${found[@]}"
fi
if [ "$#" -eq 0 ]; then
  echo "no ComfyUI found: clone one to ~/comfy/ComfyUI, or name its folder" >&2
  exit 1
fi

if ! command -v chromium >/dev/null || ! command -v chromedriver >/dev/null; then
  if command -v apt-get >/dev/null && [ "$(id -u)" -eq 0 ]; then
    apt-get update -qq
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends chromium chromium-driver >/dev/null
  else
    echo "no chromium and chromedriver: install both, or the frontend is not tested" >&2
  fi
fi

for checkout in "$@"; do
  [ -f "$checkout/comfy/samplers.py" ] || { echo "no ComfyUI at $checkout" >&2; exit 1; }
  [ -x "$checkout/.venv/bin/python" ] || "${PYTHON:-python3}" -m venv "$checkout/.venv"
  pip=("$checkout/.venv/bin/python" -m pip --disable-pip-version-check install -qq)
  "$checkout/.venv/bin/python" -c "import torch, torchvision, torchaudio" 2>/dev/null || "${pip[@]}" "${torch[@]}"
  # The pins again: nothing below may change them.
  "${pip[@]}" "${torch[@]}" -r "$checkout/requirements.txt" "${extra[@]}"
  echo "ready: $checkout ($(sed -n 's/^__version__ = "\(.*\)"/ComfyUI \1/p' "$checkout/comfyui_version.py"))"
done
