#!/usr/bin/env bash
# Runs tests/comfy on every ComfyUI that is ready, each in its own environment, never against a stand-in.
set -uo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
cd "$here/../.."
mapfile -t found < <("$here/checkouts.sh")
[ "${#found[@]}" -gt 0 ] || echo "SKIPPED tests/comfy: no ComfyUI in ~/comfy and no COMFYUI_PATH; clone one there, then make comfyui"
status=0
for checkout in "${found[@]}"; do
  version=$(sed -n 's/^__version__ = "\(.*\)"/\1/p' "$checkout/comfyui_version.py")
  name="ComfyUI $version at $checkout"
  if ! "$checkout/.venv/bin/python" -c "import pytest, torch" 2>/dev/null; then
    echo "SKIPPED tests/comfy on $name: it is not set up; run make comfyui"
    continue
  fi
  echo "tests/comfy on $name"
  # What docs/compatibility.md is made of, by compatibility.py.
  [ "$#" -gt 0 ] || export COMPAT="out/compat/$version.json"
  COMFYUI_PATH="$checkout" "$checkout/.venv/bin/python" -m pytest tests/comfy "$@" || { status=1; echo "FAILED on $name"; }
done
exit "$status"
