// Of a strength that is typed, three decimals stay, while the arrows go in steps of 0.05.
// ComfyUI takes the number of decimals from the step, and would make 0.07 of 0.075.
import { app } from "../../scripts/app.js";

app.registerExtension({
  name: "selective-sigma.decimals",
  nodeCreated(node) {
    if (!node.comfyClass?.startsWith("SelectiveSigmaDetailer")) return;
    for (const widget of node.widgets ?? []) {
      if (widget.name === "strength") widget.options.precision = 3;
    }
  },
});
