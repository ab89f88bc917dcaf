// A small drawing on the detailer nodes: what their settings do in a run of 20 steps, before it is queued.
// A bar for each step, high noise at the left; its height is the share of the noise that is hidden, its shade the
// coverage. Numbers and no words, so that it needs no translation. Nothing is saved or sent.
import { app } from "../../scripts/app.js";
import { STEPS, doses, levels } from "./schedule.js";

const DEBUG = "SelectiveSigmaDetailerDebugNode";
const NODES = ["SelectiveSigmaDetailerNode", "SelectiveSigmaDetailerModelNode", DEBUG];
const NAMES = ["strength", "coverage", "start", "end", "every", "mask_source"];
const HEIGHT = 56;
const MARKS = [0, 10, STEPS - 1]; // Steps whose noise level is written below.
const FULL = 0.3; // The share that a bar as high as the drawing hides, or more where more is hidden.
const MORE = "#ff963c";
const LESS = "#5aa5ff"; // A strength below 0, which softens.
const defaults = {}; // What the production nodes leave at its default, by the Debug node's own.

function valueOf(node, name) {
  const link = node.inputs?.find((input) => input.name === name)?.link;
  if (link != null) {
    // A number from another node: known where it is a widget of that node.
    const links = node.graph?.links;
    const origin = (links?.get?.(link) ?? links?.[link])?.origin_id;
    const from = origin == null ? undefined : node.graph.getNodeById(origin);
    return from?.widgets?.find((widget) => widget.name === "value")?.value;
  }
  return node.widgets.find((widget) => widget.name === name)?.value ?? defaults[name];
}

function bar(share, i, coverage, full) {
  const height = Math.max(3, (100 * Math.abs(share)) / full);
  const place = `x="${i + 0.12}" y="${100 - height}" width="0.76" height="${height}"`;
  const colour = share > 0 ? MORE : LESS;
  const shade = `fill-opacity="${0.15 + 0.85 * coverage}" stroke="${colour}" vector-effect="non-scaling-stroke"`;
  return `<rect ${place} fill="${colour}" ${shade}/>`;
}

function line(...words) {
  const spans = words.map((word) => `<span>${word}</span>`).join("");
  return `<div style="display:flex;justify-content:space-between;font:9px/10px sans-serif">${spans}</div>`;
}

function markup(settings) {
  const known = NAMES.slice(0, 5).every((name) => Number.isFinite(settings[name]));
  const shares = known && settings.coverage > 0 ? doses(settings) : [];
  const active = shares.filter(Boolean);
  const peak = active.reduce((most, share) => (Math.abs(share) > Math.abs(most) ? share : most), 0);
  const full = Math.max(FULL, Math.abs(peak));
  const bars = shares.map((share, i) => (share ? bar(share, i, settings.coverage, full) : "")).join("");
  const svg =
    `<svg viewBox="0 0 ${STEPS} 100" preserveAspectRatio="none" role="img" width="100%"` +
    ` height="${HEIGHT - 21}" style="display:block;border-bottom:1px solid currentColor">${bars}</svg>`;
  const above = known ? line(peak.toFixed(2), `${active.length} / ${STEPS}`) : line("?");
  return above + svg + line(...MARKS.map((i) => `σ ${levels[i].toPrecision(2)}`));
}

function addTo(node) {
  const box = document.createElement("div");
  // The height twice, since only the classic view asks for it.
  box.style.cssText = `height:${HEIGHT}px;overflow:hidden;pointer-events:none;color:var(--descrip-text,#999)`;
  const widget = node.addDOMWidget("schedule", "selective_sigma_schedule", box, {
    serialize: false,
    getMinHeight: () => HEIGHT,
    getMaxHeight: () => HEIGHT,
    getValue: () => "",
    setValue: () => {},
  });
  widget.serialize = false; // Neither saved with the workflow nor sent: the places of the others stay.
  let before;
  const follow = () => {
    const settings = Object.fromEntries(NAMES.map((name) => [name, valueOf(node, name)]));
    const now = JSON.stringify(settings);
    if (now === before) return;
    before = now;
    box.innerHTML = markup(settings);
  };
  // Looked at, since loading, undo, links and promoted widgets change values without a call.
  const timer = setInterval(follow, 100);
  const removed = node.onRemoved;
  node.onRemoved = function (...given) {
    clearInterval(timer);
    return removed?.apply(this, given);
  };
  follow();
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
