// Strength and coverage: three decimals of a typed strength stay, the arrows go in steps of 0.05,
// and dragging in the classic view goes 0.01 a pixel, as for KSampler's denoise.
// ComfyUI takes all three from one step, and would make 0.07 of 0.075.
import { app } from "../../scripts/app.js";

const DRAG = 0.01;

function dragFinely(widget) {
  const drag = widget.onDrag;
  if (typeof drag !== "function") return; // A frontend that drags in another way.
  widget.onDrag = function (...given) {
    const step = this.options.step2;
    this.options.step2 = DRAG;
    try {
      return drag.apply(this, given);
    } finally {
      this.options.step2 = step;
    }
  };
}

app.registerExtension({
  name: "selective-sigma.numbers",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("SelectiveSigmaDetailer")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.name === "strength") widget.options.precision = 3;
      if (widget.name === "strength" || widget.name === "coverage") dragFinely(widget);
    }
  },
});
