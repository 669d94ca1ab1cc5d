// Snapshots on a time line, as large as what only they hold.

import { ago, byId, drawing, element, moment, seconds, show, size, table } from "./dom.js";

const WIDTH = 900, LEFT = 130, RIGHT = 20, ROW = 30;

function timeline(all, now) {
  const names = [...new Set(all.map((one) => one.device))];
  const first = Math.min(...all.map((one) => one.created)), span = Math.max(now - first, 60);
  const most = Math.max(...all.map((one) => one.exclusive_bytes), 1), high = names.length * ROW + 24;
  const x = (at) => (LEFT + (WIDTH - LEFT - RIGHT) * (at - first) / span).toFixed(1);
  return drawing("svg", { class: "timeline", viewBox: `0 0 ${WIDTH} ${high}`, role: "img", "aria-label": `${all.length} snapshots of ${names.length} devices, the oldest from ${moment(first, now)}` },
    names.map((name, at) => drawing("g", {},
      drawing("text", { x: 0, y: at * ROW + 20 }, name.length > 18 ? `${name.slice(0, 17)}…` : name),
      drawing("line", { class: "axis", x1: LEFT, x2: WIDTH - RIGHT, y1: at * ROW + 16, y2: at * ROW + 16 }),
      all.filter((one) => one.device === name).map((one) =>
        drawing("circle", { class: "fill-one", "fill-opacity": 0.75, cx: x(one.created), cy: at * ROW + 16, r: (3 + 10 * Math.sqrt(one.exclusive_bytes / most)).toFixed(1) },
          drawing("title", {}, `${one.device}@${one.name}, ${moment(one.created, now)}, alone ${size(one.exclusive_bytes)}`))))),
    drawing("text", { x: LEFT, y: high - 4 }, `${seconds(span)} ago`), drawing("text", { x: WIDTH - RIGHT, y: high - 4, "text-anchor": "end" }, "now"));
}

export function draw({ sample, access, now }) {
  const found = sample.snapshots, all = found?.value ?? [];
  const may = access === "full" && !sample.store.read_only;
  const remove = (one) => element("button", { type: "button", class: "danger", "data-deed": "delete-snapshot", "data-name": one.device, "data-snapshot": one.name, "aria-label": `delete ${one.device}@${one.name}` }, "delete");
  show(byId("snapshots"), element("h2", { id: "snapshots-title" }, "Snapshots"),
    all.length ? timeline(all, now) : element("p", {}, found ? "There are none." : "Not looked yet."),
    all.length ? table("Alone: what would be free if it were deleted",
      [{ name: "snapshot" }, { name: "taken" }, { name: "size" }, { name: "alone" }, { name: "goes" }, { name: "by", text: true }, ...(may ? [{ name: "do", text: true }] : [])],
      all.map((one) => [`${one.device}@${one.name}`, moment(one.created, now), size(one.size), size(one.exclusive_bytes),
        one.expires === null ? "never" : one.expires > now ? `in ${seconds(one.expires - now)}` : "now", one.origin, ...(may ? [element("span", { class: "acts" }, remove(one))] : [])])) : null,
    element("p", { class: "note" }, found?.at ? `Counted ${ago(Math.max(now - found.at, 0))}${found.error ? `; ${found.error}` : ""}.` : ""));
}
