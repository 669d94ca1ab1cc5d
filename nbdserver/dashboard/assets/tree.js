// The LSM tree: what is in memory, in the log and in SSTs, with the live share of each, and who is at work.

import { ago, byId, count, drawing, element, figure, percent, show, size } from "./dom.js";

const WIDTH = 600, HEIGHT = 20, COLUMNS = 40, CELL = 15, LOG_MAX = 120;

function bar(label, parts) {
  const whole = parts.reduce((sum, [value]) => sum + value, 0);
  let at = 0;
  return drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    parts.map(([value, colour]) => {
      const width = whole ? WIDTH * value / whole : 0;
      at += width;
      return drawing("rect", { class: colour, x: (at - width).toFixed(1), y: 0, width: width.toFixed(1), height: HEIGHT });
    }));
}

function logObjects(shown, label) {
  const boxes = Math.min(shown, LOG_MAX), step = WIDTH / LOG_MAX;
  return drawing("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": label },
    Array.from({ length: boxes }, (_, at) => drawing("rect", { class: "fill-one", x: (at * step).toFixed(1), y: 0, width: step - 1.5, height: HEIGHT })));
}

// Each cell is an SST, or some neighbours, oldest first: as high as what is live of it.
function ssts(groups, label) {
  const rows = Math.max(Math.ceil(groups.length / COLUMNS), 1);
  return drawing("svg", { class: "ssts", viewBox: `0 0 ${COLUMNS * CELL} ${rows * CELL}`, role: "img", "aria-label": label },
    groups.map(([number, stored, frames, live, merged], at) => {
      const share = frames ? live / frames : 0, x = (at % COLUMNS) * CELL, y = Math.floor(at / COLUMNS) * CELL, high = (CELL - 2) * share;
      return drawing("g", {},
        drawing("title", {}, `${number} SST${number > 1 ? "s" : ""}, ${size(stored)}, live ${percent(live, frames)}${merged < number ? "; beside the checkpoint" : ""}`),
        drawing("rect", { class: "fill-none", x, y, width: CELL - 2, height: CELL - 2 }),
        drawing("rect", { class: merged < number ? "fill-three" : "fill-one", x, y: (y + CELL - 2 - high).toFixed(1), width: CELL - 2, height: high.toFixed(1) }));
    }));
}

const stage = (name, picture, ...what) =>
  element("div", { class: "stage" }, element("span", { class: "name" }, name), picture, element("span", { class: "what" }, what));

export function draw({ sample, listed, now }) {
  const { store } = sample, found = sample.ssts, groups = found?.value ?? [];
  const bytes = (name) => figure(listed(name), store[name], size(store[name]));
  const number = (name) => figure(listed(name), store[name], count(store[name]));
  const logged = Math.max(store.memtable_bytes - store.unlogged_bytes, 0), live = percent(store.live_bytes, store.live_bytes + store.dead_bytes);
  const work = [store.flushing && `a memtable flush waits for ${store.flushing}`, store.maintenance && `maintenance: ${store.maintenance}`,
    store.garbage_objects && `${count(store.garbage_objects)} objects wait to be deleted`].filter(Boolean);
  const age = found?.at ? `, live counted ${ago(Math.max(now - found.at, 0))}` : "";
  show(byId("tree"), element("h2", { id: "tree-title" }, "The tree"),
    element("div", { class: "stages" },
      stage("memtables", bar(`Of ${size(store.memtable_bytes)} in memtables ${size(store.unlogged_bytes)} are not durable`, [[store.unlogged_bytes, "fill-two"], [logged, "fill-one"]]),
        bytes("memtable_bytes"), " written and not in SSTs; ", bytes("unlogged_bytes"), " of it not durable yet; journal ", bytes("journal_bytes")),
      stage("log", logObjects(store.wal_objects, `${store.wal_objects} objects of the log`),
        number("wal_objects"), " objects, ", bytes("wal_bytes"), ", acknowledged up to wal/", number("wal_acknowledged")),
      stage("SSTs", ssts(groups, `${store.ssts} SSTs, ${live} of their frames live`),
        number("ssts"), " SSTs, ", bytes("stored_bytes"), "; live ", bytes("live_bytes"), ", dead ", bytes("dead_bytes"), `: ${live} live; `,
        number("unmerged_ssts"), ` beside the checkpoint${age}${found?.error ? `; ${found.error}` : ""}`),
      stage("cache", bar(`${size(store.cached_bytes)} of decoded frames`, [[store.cached_bytes, "fill-four"]]), bytes("cached_bytes"), " of decoded frames in memory")),
    element("ul", { class: "key" }, element("li", { class: "one" }, "durable, live"), element("li", { class: "two" }, "not durable yet"),
      element("li", { class: "three" }, "live, beside the checkpoint"), element("li", { class: "four" }, "cached"), element("li", { class: "none" }, "dead")),
    element("p", { class: "job" }, element("strong", {}, "At work: "), work.length ? work.join("; ") : "nothing but clients"));
}
