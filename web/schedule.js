// The doses of selective_sigma/schedule.py for a run of 20 Karras steps on SDXL, which the nodes draw.
// tests/comfy/test_frontend.py compares them with Python's.
export const STEPS = 20;
const RHO = 7;
const LAST_STEP_SHARE = 0.5; // The share of the lie in the step that ends at zero noise.
const LONG_STEP = 0.6; // Steps over more e-folds than this are never in a group with others.
const SMALLEST_KEEP = 1e-6;
const LEVEL_TOLERANCE = 1 + 1e-6; // For rounding, where noise levels are compared.
const TAPER = 0.15; // Share of the run over which the first published pack fades out.

// The noise levels of SDXL's 1000 timesteps.
const table = [];
let signal = 1;
for (let i = 0; i < 1000; i++) {
  const root = Math.sqrt(0.00085) + (i / 999) * (Math.sqrt(0.012) - Math.sqrt(0.00085));
  signal *= 1 - root * root;
  table.push(Math.sqrt((1 - signal) / signal));
}

export const levels = [];
const high = table[999] ** (1 / RHO);
const low = table[0] ** (1 / RHO);
for (let i = 0; i < STEPS; i++) levels.push((high + (i / (STEPS - 1)) * (low - high)) ** RHO);
levels.push(0);

// ModelSamplingDiscrete.percent_to_sigma.
function levelAt(percent) {
  if (percent <= 0) return Infinity;
  if (percent >= 1) return 0;
  const timestep = (1 - percent) * 999;
  const i = Math.min(Math.floor(timestep), 998);
  const [a, b] = [Math.log(table[i]), Math.log(table[i + 1])];
  return Math.exp(a + (timestep - i) * (b - a));
}

function rounded(value) {
  const whole = Math.round(value);
  return whole - value === 0.5 && whole % 2 ? whole - 1 : whole; // Halves go to even numbers, as in Python.
}

// The share of the lie in each step, 0 to 1.
function shares({ start, end }) {
  const [first, stop] = [levelAt(start), levelAt(end)];
  return levels.slice(0, -1).map((level, i) => {
    const within = stop <= level * LEVEL_TOLERANCE && level <= first * LEVEL_TOLERANCE;
    return within ? (levels[i + 1] === 0 ? LAST_STEP_SHARE : 1) : 0;
  });
}

// The same for the mask sources of the first published pack.
function publishedShares({ start, end }) {
  const last = STEPS - 1;
  const first = Math.max(1, rounded(start * last));
  const stop = Math.min(last - 1, rounded(end * last));
  const fade = Math.min(Math.max(first + 1, rounded((end - TAPER) * last)), stop);
  return levels.slice(0, -1).map((_, i) => {
    if (stop <= first || i < first || i > stop) return 0;
    return i < fade ? 1 : (stop - i) / Math.max(stop - fade, 1);
  });
}

// The share of the noise that is hidden in each step. The first step of a group has the dose of the whole group.
export function doses(settings) {
  const { strength, start, end, every, mask_source: source } = settings;
  const weights = (source ?? "response") === "response" ? shares(settings) : publishedShares(settings);
  const efolds = weights.map((share) => -Math.log(Math.max(1 - strength * share, SMALLEST_KEEP)));
  const lengths = efolds.map((_, i) => (levels[i + 1] > 0 ? Math.log(levels[i] / levels[i + 1]) : Infinity));
  const sums = efolds.map(() => 0);
  const last = efolds.length - 1;
  let first = 0;
  efolds.forEach((efold, i) => {
    const follows = i === last || lengths[i + 1] <= LONG_STEP || lengths[i + 1] === Infinity;
    const short = Math.max(...lengths.slice(first, i + 1)) <= LONG_STEP;
    if (!(i > first && i - first < every && short && follows && efold && sums[first])) first = i;
    sums[first] += efold;
  });
  return start < end ? sums.map((sum) => -Math.expm1(-sum)) : sums.map(() => 0);
}
