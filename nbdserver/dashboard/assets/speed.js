// Is it fast? What clients do, how long they wait, and how long the store takes.

import { charts } from "./curves.js";
import { byId, drawing, element, figures, percent, rate, seconds, show, size, table } from "./dom.js";
import { POINTS } from "./history.js";

const WIDTH = 480, HEIGHT = 120, TOP = 16, BASE = 104;
const total = (field) => (sample) => sample.devices.reduce((sum, device) => sum + device[field], 0);
const commands = (wanted) => (sample) =>
  sample.devices.reduce((sum, device) => sum + wanted.reduce((some, name) => some + (device.commands[name] ?? 0), 0), 0);

const received = total("received"), sent = total("sent"), reads = commands(["read"]), writes = commands(["write", "write_zeroes", "trim"]);
const counted = (histogram) => histogram.counts.reduce((sum, value) => sum + value, 0);

function path(values, top) {
  const step = WIDTH / (POINTS - 1), from = POINTS - values.length;
  const at = (value, place) => `${((from + place) * step).toFixed(1)},${(BASE - (BASE - TOP) * value / top).toFixed(1)}`;
  return values.length ? `M${values.map(at).join("L")}` : "";
}

function chart(title, words, [oneName, one], [twoName, two]) {
  const top = 1.15 * Math.max(...one, ...two, 1);
  const label = `${title} over two minutes: ${oneName} now ${words(one.at(-1) ?? 0)}, ${twoName} now ${words(two.at(-1) ?? 0)}, at most ${words(top / 1.15)}`;
  return element("div", { class: "chart" }, element("h3", {}, `${title}, two minutes`),
    drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, preserveAspectRatio: "none" },
      drawing("line", { class: "grid", x1: 0, x2: WIDTH, y1: TOP, y2: TOP }), drawing("line", { class: "grid", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }),
      drawing("path", { class: "line one", d: path(one, top) }), drawing("path", { class: "line two", d: path(two, top) })),
    element("ul", { class: "key" }, element("li", { class: "one" }, `${oneName} ${words(one.at(-1) ?? 0)}`),
      element("li", { class: "two" }, `${twoName} ${words(two.at(-1) ?? 0)}`), element("li", { class: "none" }, `top of the picture ${words(top)}`)));
}

const timed = (name, one, more) => [name, ...more, one.count ? seconds(one.median) : "none", one.count ? seconds(one.p99) : "none"];

export function draw({ sample, history, about, curves, now }) {
  const bytes = (value) => `${size(value)}/s`, requests = (value) => `${rate(value)}/s`;
  const missed = history.rate((each) => counted(each.waits.read)), asked = history.rate(reads);
  const verbs = Object.keys(sample.requests);
  show(byId("fast"), element("h2", { id: "fast-title" }, "Is it fast?"),
    element("div", { class: "charts" },
      chart("Bytes of clients", bytes, ["written", history.rates(received)], ["read", history.rates(sent)]),
      chart("Requests of clients", requests, ["writes", history.rates(writes)], ["reads", history.rates(reads)]),
      charts(curves, now)),
    figures(["reads, last 10 s", requests(asked)], ["writes, last 10 s", requests(history.rate(writes))],
      ["reads that memory answered", asked ? percent(Math.max(asked - missed, 0), asked) : "no reads"],
      ["flushes, last 10 s", requests(history.rate(commands(["flush"])))]),
    table("What clients wait for, last minute (all else takes microseconds)",
      [{ name: "request" }, { name: "waited for" }, { name: "half within" }, { name: "99 of 100 within" }],
      [["flush", "the log", sample.waits.flush, (each) => each.waits.flush], ["read", "the store", sample.waits.read, (each) => each.waits.read]]
        .map(([name, what, , pick]) => timed(name, history.times(pick, about.bounds), [what]))),
    table("Requests to the store, last minute",
      [{ name: "verb" }, { name: "a second" }, { name: "failed, in all" }, { name: "half within" }, { name: "99 of 100 within" }],
      verbs.map((verb) => timed(verb, history.times((each) => each.requests[verb], about.bounds),
        [rate(history.rate((each) => each.requests[verb].count, 60)), `${sample.requests[verb].failed}`]))));
}
