// The number widgets of strength and coverage:
// - A typed strength keeps three decimals.
// - The arrows change the value by 0.05.
// - Dragging in the classic view changes it by 0.01 a pixel, as for KSampler's denoise.
// ComfyUI derives all three from the step. With a step of 0.05 it would turn a typed 0.075 into 0.07.
import { app } from "../../scripts/app.js";

const DRAG_STEP = 0.01;

function dragInSmallSteps(widget) {
  const drag = widget.onDrag;
  if (typeof drag !== "function") return; // Not in this frontend.
  widget.onDrag = function (...args) {
    const step = this.options.step2;
    this.options.step2 = DRAG_STEP;
    try {
      return drag.apply(this, args);
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
      if (widget.name === "strength" || widget.name === "coverage") dragInSmallSteps(widget);
    }
  },
});
