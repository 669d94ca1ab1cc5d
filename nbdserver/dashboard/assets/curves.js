// Two hours in steps of ten seconds, as the server kept them, whether anybody looked or not.

import { ago, drawing, element, moment, rate, seconds, size } from "./dom.js";

const WIDTH = 480, HEIGHT = 120, TOP = 16, BASE = 104, SPAN = 7200;
const bytes = (value) => `${size(value)}/s`, requests = (value) => `${rate(value)}/s`;

const CHARTS = [
  ["Bytes of clients", bytes, "written", "received", "read", "sent"],
  ["Requests of clients", requests, "writes", "writes", "reads", "reads"],
  ["99 of 100 waited at most", seconds, "flushes", "flush_p99", "reads from the store", "read_p99"],
];

export class Curves {
  constructor() { [this.names, this.points, this.step, this.known] = [[], [], 10, 0]; }

  get newest() { return this.points.at(-1)?.[0] ?? 0; }

  // A clock that was set back has left points from times yet to come.
  add({ names, points, step_seconds, newest }) {
    [this.names, this.step, this.known] = [names, step_seconds, newest];
    this.points.push(...points);
    this.points = this.points.filter(([at]) => at > this.newest - SPAN && at <= this.newest);
  }

  // [when, value] of one figure, oldest first; null where there was none.
  of(name) {
    const at = this.names.indexOf(name);
    return this.points.map((point) => [point[0], point[at]]);
  }
}

// A line ends where the server was away, or there was nothing to wait for; one value by itself is a dash.
function path(values, top, step, now) {
  const place = (at) => ((at - now + SPAN) / SPAN * WIDTH).toFixed(1);
  let drawn = "", before = -Infinity;
  for (const [at, value] of values) {
    if (value === null) { before = -Infinity; continue; }
    const y = (BASE - (BASE - TOP) * value / top).toFixed(1);
    drawn += at - before > 3 * step ? `M${place(at)},${y}h0.7` : `L${place(at)},${y}`;
    before = at;
  }
  return drawn;
}

function chart(curves, now, [title, words, oneName, one, twoName, two]) {
  const lines = [curves.of(one), curves.of(two)], all = lines.flat().map(([, value]) => value ?? 0);
  const most = Math.max(...all, 0), top = 1.15 * most || 1, last = ([, value] = [0, null]) => (value === null ? "none" : words(value));
  const newest = lines.map((line) => last(line.at(-1)));
  const age = curves.newest ? `since ${moment(curves.points[0][0], now)}, to ${ago(Math.max(now - curves.newest, 0))}` : "nothing yet";
  const label = `${title} over two hours, ${age}: ${oneName} ${newest[0]}, ${twoName} ${newest[1]}, at most ${words(most)}`;
  return element("div", { class: "chart", "data-curve": one }, element("h3", {}, `${title}, two hours`),
    drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": label, preserveAspectRatio: "none" },
      drawing("line", { class: "grid", x1: 0, x2: WIDTH, y1: TOP, y2: TOP }), drawing("line", { class: "grid", x1: 0, x2: WIDTH, y1: BASE, y2: BASE }),
      drawing("path", { class: "line one", d: path(lines[0], top, curves.step, now) }), drawing("path", { class: "line two", d: path(lines[1], top, curves.step, now) })),
    element("ul", { class: "key" }, element("li", { class: "one" }, `${oneName} ${newest[0]}`), element("li", { class: "two" }, `${twoName} ${newest[1]}`),
      element("li", { class: "none" }, `top of the picture ${words(top)}`), element("li", { class: "none" }, age)));
}

export const charts = (curves, now) => CHARTS.map((each) => chart(curves, now, each));
