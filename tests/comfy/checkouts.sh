#!/usr/bin/env bash
# The ComfyUI checkouts to test on, one a line: COMFYUI_PATH alone where it is set, else all in ~/comfy.
set -euo pipefail
for checkout in "${COMFYUI_PATH:-$HOME/comfy/ComfyUI}" ${COMFYUI_PATH:-"$HOME"/comfy/ComfyUI-*}; do
  [ -f "$checkout/comfy/samplers.py" ] && echo "$checkout"
done | sort -u
