"""ComfyUI in a headless browser: open a workflow, run it, take a screenshot.

Needs chromium and chromium-driver (Debian: apt-get install chromium chromium-driver) and selenium (PyPI).
``docs/screenshots.py`` makes the pictures of the documentation with it.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

FLAGS = ["headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-background-networking"]
FLAGS += ["disable-component-update", "disable-sync", "disable-dev-shm-usage", "hide-scrollbars"]
COMPLAINTS = """
const seen = [...document.querySelectorAll('.p-dialog, .p-toast-message, .comfy-missing-nodes, .comfy-error-report')];
const texts = seen.map(element => element.innerText.trim()).filter(text => text.length);
// The offer to download a template's models is no error.
return texts.filter(text => !text.startsWith('Missing Models'));
"""
PICTURES = """
window.app.canvas.setDirty(true, true);
return window.ssdShown.map(id => window.app.graph.getNodeById(id))
    .every(node => node.imgs?.length && node.imgs.every(image => image.complete && image.naturalWidth));
"""


def missing_program() -> str | None:
    """The message about a missing program or package; None where the browser can run."""
    for program in ("chromium", "chromedriver"):
        if shutil.which(program) is None:
            return f"no {program}"
    try:
        import selenium  # noqa: F401
    except ImportError:
        return "no selenium"
    return None


class Browser:
    """A browser with one page of ComfyUI; a context manager."""

    def __init__(self, url: str, width: int = 1600, height: int = 900, scale: float = 1.0):
        from selenium import webdriver

        self._profile = tempfile.mkdtemp(prefix="selective-sigma-browser-")
        options = webdriver.ChromeOptions()
        for flag in [*FLAGS, f"window-size={width},{height}", f"force-device-scale-factor={scale}"]:
            options.add_argument(f"--{flag}")
        options.add_argument(f"--user-data-dir={self._profile}")
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        options.binary_location = shutil.which("chromium") or ""
        service = webdriver.ChromeService(shutil.which("chromedriver"))
        self.driver = webdriver.Chrome(options=options, service=service)
        self.driver.set_script_timeout(120)
        self.driver.get(url)
        self.wait("return !!(window.app && window.app.graph && window.app.extensionManager)", 180)
        time.sleep(1.5)

    def __enter__(self) -> Browser:
        return self

    def __exit__(self, *_: object) -> None:
        self.driver.quit()
        shutil.rmtree(self._profile, ignore_errors=True)

    def run(self, script: str, *values: Any) -> Any:
        return self.driver.execute_script(script, *values)

    def wait(self, script: str, seconds: float = 240) -> Any:
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if result := self.run(script):
                return result
            time.sleep(0.2)
        raise TimeoutError(f"{script!r} was not true within {seconds} s; seen: {self.complaints()}")

    def load(self, workflow: dict[str, Any] | Path) -> None:
        """Open a workflow as the menu does.

        Raises:
            AssertionError: the page shows an error.
        """
        # Close the offer to download the models of an earlier workflow.
        self.run("document.querySelectorAll('.p-dialog-close-button').forEach(button => button.click())")
        text = workflow.read_text() if isinstance(workflow, Path) else json.dumps(workflow)
        script = "const done = arguments[1]; window.app.loadGraphData(JSON.parse(arguments[0])).then(() => done(''), "
        error = self.driver.execute_async_script(script + "error => done(String(error)))", text)
        time.sleep(1.0)
        if error or self.complaints():
            raise AssertionError(f"{error} {self.complaints()}")

    def complaints(self) -> list[str]:
        """Dialogs and toasts on the page."""
        return self.run(COMPLAINTS)

    def prompt(self) -> dict[str, Any]:
        """The graph in API format, by the frontend's own conversion."""
        script = "const done = arguments[0]; window.app.graphToPrompt().then(p => done(JSON.stringify(p.output)))"
        return json.loads(self.driver.execute_async_script(script))

    def graph(self) -> dict[str, Any]:
        """The graph as the frontend saves it."""
        return json.loads(self.run("return JSON.stringify(window.app.graph.serialize())"))

    def queue(self, seconds: float = 240) -> None:
        """Run the graph and wait until its pictures are loaded.

        Raises:
            AssertionError: the server refused the graph, or it failed.
        """
        start = """
        const done = arguments[0];
        window.ssdDone = false; window.ssdError = ''; window.ssdShown = [];
        const api = window.app.api;
        api.addEventListener('executed', e => {
            if (e.detail?.output?.images) window.ssdShown.push(e.detail.node);
        });
        api.addEventListener('execution_success', () => { window.ssdDone = true; }, {once: true});
        api.addEventListener('execution_error', e => { window.ssdError = JSON.stringify(e.detail); }, {once: true});
        window.app.queuePrompt(0).then(() => done(JSON.stringify(window.app.lastNodeErrors || {})));
        """
        refused = self.driver.execute_async_script(start)
        if refused != "{}" or self.complaints():
            raise AssertionError(f"not queued: {refused} {self.complaints()}")
        self.wait("return window.ssdDone || window.ssdError", seconds)
        if error := self.run("return window.ssdError"):
            raise AssertionError(error[:2000])
        self.wait(PICTURES, seconds)
        time.sleep(0.5)

    def set_view(self, vue: bool) -> None:
        """Switch to nodes drawn by Vue ("Nodes 2.0") or on the classic canvas. The server stores the setting."""
        script = "window.app.extensionManager.setting.set('Comfy.VueNodes.Enabled', arguments[0]).then(arguments[1])"
        self.driver.execute_async_script(script, vue)
        time.sleep(2.0)

    def widget(self, kind: str, name: str) -> float:
        """The value of a widget of the only node of its kind."""
        return self.run(f"return app.graph.findNodesByType('{kind}')[0].widgets.find(w => w.name === '{name}').value")

    def type_number(self, kind: str, name: str, text: str) -> None:
        """Type a number into a widget on the classic canvas: click, type, Enter."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        self._click(kind, name, 0.5)
        dialog = self.driver.find_element(By.CSS_SELECTOR, ".graphdialog input")
        dialog.send_keys(Keys.CONTROL, "a")
        ActionChains(self.driver).send_keys(text, Keys.ENTER).perform()
        time.sleep(0.5)

    def step_number(self, kind: str, name: str, up: bool) -> None:
        """Click an arrow of a number on the classic canvas."""
        self._click(kind, name, 0.95 if up else 0.05)

    def drag_number(self, kind: str, name: str, pixels: int) -> None:
        """Drag a number on the classic canvas to the right, from its middle."""
        from selenium.webdriver.common.action_chains import ActionChains

        x, y = self._on_page(kind, f"[node.size[0] * 0.5, {self._row(name)}]")
        actions = ActionChains(self.driver, duration=0)
        pointer = actions.w3c_actions.pointer_action
        pointer.move_to_location(x, y)
        pointer.pointer_down()
        for moved in range(1, pixels + 1):
            pointer.move_to_location(x + moved, y)
        pointer.pointer_up()
        actions.perform()
        time.sleep(0.6)

    def _click(self, kind: str, name: str, across: float) -> None:
        self._click_at(kind, f"[node.size[0] * {across}, {self._row(name)}]")

    def _row(self, name: str) -> str:
        return f"node.widgets.find(w => w.name === '{name}').last_y + 10"

    def _click_at(self, kind: str, position: str) -> None:
        """Click on the only node of its kind, at the position in it that a JavaScript expression returns."""
        from selenium.webdriver.common.action_chains import ActionChains

        actions = ActionChains(self.driver)
        actions.w3c_actions.pointer_action.move_to_location(*self._on_page(kind, position))
        actions.w3c_actions.pointer_action.click()
        actions.perform()
        time.sleep(0.6)

    def _on_page(self, kind: str, position: str) -> tuple[int, int]:
        """The position on the page of a position in the only node of its kind."""
        script = f"""
        const node = app.graph.findNodesByType(arguments[0])[0], ds = app.canvas.ds, [x, y] = {position};
        const box = app.canvas.canvas.getBoundingClientRect();
        return [box.left + (node.pos[0] + x + ds.offset[0]) * ds.scale,
                box.top + (node.pos[1] + y + ds.offset[1]) * ds.scale];
        """
        x, y = self.run(script, kind)
        return int(x), int(y)

    def type_number_in_vue(self, kind: str, text: str) -> None:
        """Type a number into the first number widget of a node that Vue draws."""
        from selenium.webdriver.common.action_chains import ActionChains
        from selenium.webdriver.common.by import By
        from selenium.webdriver.common.keys import Keys

        node = self.run(f"return app.graph.findNodesByType('{kind}')[0].id")
        selector = f"[data-node-id='{node}'] input"
        field = self.driver.find_elements(By.CSS_SELECTOR, selector)[0]
        ActionChains(self.driver).move_to_element(
            field
        ).click().perform()  # A plain click would hit the element above it that is for dragging.
        time.sleep(0.3)
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text, Keys.ENTER)
        time.sleep(0.6)

    def help(self, kind: str) -> None:
        """Select the only node of its kind and open its help, by the button above it."""
        from selenium.webdriver.common.by import By

        self._click_at(kind, "[150, -15]")
        self.driver.find_element(By.CSS_SELECTOR, "[data-testid=info-button]").click()
        time.sleep(3.0)

    def fit(self, left: float = 60, top: float = 60, margin: float = 30) -> None:
        """Zoom to the whole graph, beside the panels at the left and the top of the page."""
        self.run(
            """
            const [left, top, margin] = arguments, canvas = window.app.canvas, boxes = [];
            for (const node of window.app.graph._nodes) {
                boxes.push([node.pos[0], node.pos[1] - 30, node.pos[0] + node.size[0], node.pos[1] + node.size[1]]);
            }
            for (const g of window.app.graph._groups) {
                boxes.push([g.pos[0], g.pos[1], g.pos[0] + g.size[0], g.pos[1] + g.size[1]]);
            }
            const x0 = Math.min(...boxes.map(b => b[0])), y0 = Math.min(...boxes.map(b => b[1]));
            const x1 = Math.max(...boxes.map(b => b[2])), y1 = Math.max(...boxes.map(b => b[3]));
            const box = canvas.canvas.getBoundingClientRect();
            const dx = Math.max(0, left - box.left) + margin, dy = Math.max(0, top - box.top) + margin;
            const wide = box.width - dx - margin, high = box.height - dy - margin;
            const scale = Math.min(wide / (x1 - x0), high / (y1 - y0));
            canvas.ds.scale = scale;
            canvas.ds.offset[0] = (dx + (wide - scale * (x1 - x0)) / 2) / scale - x0;
            canvas.ds.offset[1] = (dy + (high - scale * (y1 - y0)) / 2) / scale - y0;
            canvas.setDirty(true, true);
            """,
            left,
            top,
            margin,
        )
        time.sleep(1.0)

    def screenshot(self, path: str | Path) -> None:
        self.driver.save_screenshot(str(path))
