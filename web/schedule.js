// The doses of selective_sigma/schedule.py, for the drawing on the nodes: a run of 20 Karras steps on SDXL.
// tests/comfy/test_frontend.py compares the two.
export const STEPS = 20;
const RHO = 7;
const LAST = 0.5; // Share of the lie at the step that ends at zero noise.
const LONG = 0.6; // Steps of more e-folds carry no dose of others, and lend none.
const SMALLEST = 1e-6;
const SLACK = 1 + 1e-6;
const TAPER = 0.15; // Of the first published pack.

// Noise levels of the model's 1000 timesteps.
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

function levelAt(percent) {
  if (percent <= 0) return Infinity;
  if (percent >= 1) return 0;
  const place = (1 - percent) * 999;
  const i = Math.min(Math.floor(place), 998);
  const [a, b] = [Math.log(table[i]), Math.log(table[i + 1])];
  return Math.exp(a + (place - i) * (b - a));
}

function rounded(value) {
  const whole = Math.round(value);
  return whole - value === 0.5 && whole % 2 ? whole - 1 : whole; // Halves to the even, as Python.
}

function shares({ start, end }) {
  const [first, stop] = [levelAt(start), levelAt(end)];
  return levels.slice(0, -1).map((level, i) => {
    const within = stop <= level * SLACK && level <= first * SLACK;
    return within ? (levels[i + 1] === 0 ? LAST : 1) : 0;
  });
}

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

// The share of the noise that is hidden at each step; 0 where nothing is.
export function doses(settings) {
  const { strength, start, end, every, mask_source: source } = settings;
  const weights = (source ?? "response") === "response" ? shares(settings) : publishedShares(settings);
  const efolds = weights.map((share) => -Math.log(Math.max(1 - strength * share, SMALLEST)));
  const lengths = efolds.map((_, i) => (levels[i + 1] > 0 ? Math.log(levels[i] / levels[i + 1]) : Infinity));
  const sums = efolds.map(() => 0);
  const last = efolds.length - 1;
  let first = 0;
  efolds.forEach((efold, i) => {
    const follows = i === last || lengths[i + 1] <= LONG || lengths[i + 1] === Infinity;
    const short = Math.max(...lengths.slice(first, i + 1)) <= LONG;
    if (!(i > first && i - first < every && short && follows && efold && sums[first])) first = i;
    sums[first] += efold;
  });
  return start < end ? sums.map((sum) => -Math.expm1(-sum)) : sums.map(() => 0);
}
