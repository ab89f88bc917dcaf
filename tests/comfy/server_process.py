"""Starts a ComfyUI server on the CPU with this pack in ``custom_nodes``."""

from __future__ import annotations

import io
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image

if TYPE_CHECKING:
    from collections.abc import Sequence

REPOSITORY = Path(__file__).parents[2]
COMFYUI = Path(os.environ.get("COMFYUI_PATH") or "~/comfy/ComfyUI").expanduser()
NAME = "selective-sigma"


class Refused(AssertionError):  # noqa: N818
    """The server refused a prompt or did not finish it."""


class Server:
    """A server on a free port with an empty base folder; a context manager.

    The pack in it has the files of the registry's archive.
    """

    def __init__(
        self, base: Path, python: str = sys.executable, packs: Sequence[Path] = (), options: Sequence[str] = ()
    ):
        """Args:
        base: the base folder, with models, custom_nodes, user, output, temp and the log.
        packs: further folders for ``custom_nodes``.
        options: for ComfyUI's command line.
        """
        for folder in ("custom_nodes", "models", "user/default", "input", "output"):
            (base / folder).mkdir(parents=True, exist_ok=True)
        copy_pack(base / "custom_nodes" / NAME)
        for pack in packs:
            (base / "custom_nodes" / pack.name).symlink_to(pack, target_is_directory=True)
        settings = {"Comfy.TutorialCompleted": True}
        settings |= dict.fromkeys(["Comfy.Minimap.Visible", "Comfy.Graph.CanvasInfo", "Comfy.Graph.CanvasMenu"], False)
        (base / "user/default/comfy.settings.json").write_text(json.dumps(settings))
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        self.log = base / "log.txt"
        command = [python, "main.py", "--cpu", "--port", str(port), "--base-directory", str(base)]
        command += ["--disable-auto-launch", "--disable-api-nodes", "--database-url", "sqlite:///:memory:", *options]
        with self.log.open("w") as log:
            self._process = subprocess.Popen(
                command,
                cwd=COMFYUI,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                start_new_session=True,
            )

    def __enter__(self) -> Server:
        end = time.monotonic() + 240
        while time.monotonic() < end:
            if self._process.poll() is not None:
                break
            try:
                self.get("/system_stats")
                return self
            except (urllib.error.URLError, ConnectionError):
                time.sleep(0.2)
        self.__exit__()
        raise RuntimeError("ComfyUI did not start:\n" + self.log.read_text()[-3000:])

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGTERM)
            self._process.wait(20)

    def raw(self, path: str, body: Any = None) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.read()

    def get(self, path: str) -> Any:
        return json.loads(self.raw(path))

    def run(self, prompt: dict[str, Any], seconds: float = 240) -> dict[str, Any]:
        """Queue a prompt and wait for it.

        Returns:
            The outputs of its output nodes by node id, and under ``cached`` the ids of nodes that were not executed.

        Raises:
            Refused: the server refused the prompt, or it failed.
        """
        try:
            queued = json.loads(self.raw("/prompt", {"prompt": prompt, "client_id": uuid.uuid4().hex}))
        except urllib.error.HTTPError as error:
            raise Refused(error.read().decode()) from error
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            entry = self.get(f"/history/{queued['prompt_id']}").get(queued["prompt_id"])
            if entry is not None:
                if entry["status"]["status_str"] != "success":
                    raise Refused(json.dumps(entry["status"]["messages"])[:3000])
                return {**entry["outputs"], "cached": cached(entry)}
            time.sleep(0.1)
        raise Refused(f"not done within {seconds} s")

    def picture(self, entry: dict[str, Any]) -> Image.Image:
        """A picture from an entry in an output node's ``images``."""
        query = "&".join(f"{key}={entry[key]}" for key in ("filename", "subfolder", "type"))
        return Image.open(io.BytesIO(self.raw(f"/view?{query}"))).convert("RGB")


def packed_files() -> set[str]:
    """The files that ``comfy node pack`` puts into the archive: tracked by git and not in .comfyignore."""

    def listed(*more: str) -> set[str]:
        command = ["git", "ls-files", "-z", "--cached", *more]
        output = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
        return set(output.split("\0")) - {""}

    return listed() - listed("--ignored", "--exclude-from=.comfyignore")


def copy_pack(folder: Path) -> None:
    """Copy the files of the archive to ``folder``."""
    for path in packed_files():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(REPOSITORY / path, folder / path)


def cached(entry: dict[str, Any]) -> list[str]:
    """Ids of nodes that were not executed again."""
    return [node for kind, data in entry["status"]["messages"] if kind == "execution_cached" for node in data["nodes"]]
