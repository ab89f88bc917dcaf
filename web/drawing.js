// A drawing on the detailer nodes that shows what the settings do in a run of 20 steps.
// Each bar is a step, with high noise at the left. Its height is the share of the noise that is hidden, its opacity the
// coverage. The drawing has numbers and no words, and needs no translation. It is neither saved nor sent.
import { app } from "../../scripts/app.js";
import { STEPS, doses, levels } from "./schedule.js";

const DEBUG = "SelectiveSigmaDetailerDebugNode";
const NODES = ["SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode", DEBUG];
const NAMES = ["strength", "coverage", "start", "end", "every", "mask_source"];
const HEIGHT = 56;
const LABELLED = [0, 10, STEPS - 1]; // Steps whose noise level is written below the bars.
const FULL = 0.3; // The share shown by a bar as high as the drawing. A larger peak takes its place.
const ADDS = "#ff963c";
const SOFTENS = "#5aa5ff"; // A strength below 0.
const defaults = {}; // Of the Debug node's widgets, for settings that a production node has no widget for.

// The value of a setting: of the linked node, of the widget, or the default; undefined where it is not known.
function valueOf(node, name) {
  const link = node.inputs?.find((input) => input.name === name)?.link;
  if (link != null) {
    // The other node's output is known only where it is the value of a widget, as of a primitive node.
    const links = node.graph?.links;
    const origin = (links?.get?.(link) ?? links?.[link])?.origin_id;
    const source = origin == null ? undefined : node.graph.getNodeById(origin);
    return source?.widgets?.find((widget) => widget.name === "value")?.value;
  }
  return node.widgets.find((widget) => widget.name === name)?.value ?? defaults[name];
}

// The SVG of one bar; ``full`` is the share of a bar as high as the drawing.
function bar(share, i, coverage, full) {
  const height = Math.max(3, (100 * Math.abs(share)) / full);
  const position = `x="${i + 0.12}" y="${100 - height}" width="0.76" height="${height}"`;
  const colour = share > 0 ? ADDS : SOFTENS;
  const shade = `fill-opacity="${0.15 + 0.85 * coverage}" stroke="${colour}" vector-effect="non-scaling-stroke"`;
  return `<rect ${position} fill="${colour}" ${shade}/>`;
}

function line(...texts) {
  const spans = texts.map((text) => `<span>${text}</span>`).join("");
  return `<div style="display:flex;justify-content:space-between;font:9px/10px sans-serif">${spans}</div>`;
}

function markup(settings) {
  const isComplete = NAMES.slice(0, 5).every((name) => Number.isFinite(settings[name]));
  const shares = isComplete && settings.coverage > 0 ? doses(settings) : [];
  const active = shares.filter(Boolean);
  const peak = active.reduce((most, share) => (Math.abs(share) > Math.abs(most) ? share : most), 0);
  const full = Math.max(FULL, Math.abs(peak));
  const bars = shares.map((share, i) => (share ? bar(share, i, settings.coverage, full) : "")).join("");
  const svg =
    `<svg viewBox="0 0 ${STEPS} 100" preserveAspectRatio="none" role="img" width="100%"` +
    ` height="${HEIGHT - 21}" style="display:block;border-bottom:1px solid currentColor">${bars}</svg>`;
  const above = isComplete ? line(peak.toFixed(2), `${active.length} / ${STEPS}`) : line("?");
  return above + svg + line(...LABELLED.map((i) => `σ ${levels[i].toPrecision(2)}`));
}

function addTo(node) {
  const box = document.createElement("div");
  // Only the classic view calls getMinHeight and getMaxHeight; Nodes 2.0 takes the height of the element.
  box.style.cssText = `height:${HEIGHT}px;overflow:hidden;pointer-events:none;color:var(--descrip-text,#999)`;
  const widget = node.addDOMWidget("schedule", "selective_sigma_schedule", box, {
    serialize: false,
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // Else it would be saved, and the other widgets' values are saved by position.
  let drawn;
  const redraw = () => {
    const settings = Object.fromEntries(NAMES.map((name) => [name, valueOf(node, name)]));
    const key = JSON.stringify(settings);
    if (key === drawn) return;
    drawn = key;
    box.innerHTML = markup(settings);
  };
  // Polled: loading, undo, links and promoted widgets change values without calling back.
  const timer = setInterval(redraw, 100);
  const removed = node.onRemoved;
  node.onRemoved = function (...args) {
    clearInterval(timer);
    return removed?.apply(this, args);
  };
  redraw();
}

app.registerExtension({
  name: "selective-sigma.drawing",
  beforeRegisterNodeDef(_, definition) {
    if (definition.name !== DEBUG) return;
    const inputs = { ...definition.input?.required, ...definition.input?.optional };
    for (const name of NAMES) defaults[name] = inputs[name]?.[1]?.default;
  },
  nodeCreated(node) {
    if (NODES.includes(node.comfyClass) && typeof node.addDOMWidget === "function") addTo(node);
  },
});
