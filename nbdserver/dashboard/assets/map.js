// The map of one device: what is stored, cached, not in SSTs, not durable, changed since a snapshot. Asked for while seen.

import { byId, drawing, element, show, size } from "./dom.js";
import { ask } from "./stream.js";

const CELLS = 1024, COLUMNS = 64, CELL = 12, SECONDS_BETWEEN = 5, BLOCK = 262144;
const KINDS = [["unlogged", "two", "not durable yet"], ["waiting", "three", "not in SSTs yet"], ["changed", "two", "changed since the snapshot"],
  ["cached", "four", "in memory too"], ["allocated", "one", "stored"]];

let device = null, since = "", asked = 0, seen = false, drawnAt = null;
const chooser = element("select", { onchange: (event) => { device = event.target.value; since = ""; asked = 0; } });
const snapshotChooser = element("select", { onchange: (event) => { since = event.target.value; asked = 0; } });
const picture = element("div", {});

export function begin() {
  byId("map").append(
    element("div", { class: "choose" }, element("label", {}, "device", chooser), element("label", {}, "changed since", snapshotChooser)), picture);
  new IntersectionObserver((entries) => { seen = entries.at(-1).isIntersecting; }, { rootMargin: "200px" }).observe(byId("map"));
}

const option = (value, chosen, words) => element("option", { value, selected: value === chosen }, words);

function colour(found, at) {
  const kind = KINDS.find(([name]) => found[name].length && found[name][at]);
  return kind ? [kind[1], kind[0] === "allocated" ? 0.35 + 0.65 * found.allocated[at] / found.cell_blocks : 1] : ["none", 1];
}

function drawn(found) {
  const cells = found.allocated.length, rows = Math.max(Math.ceil(cells / COLUMNS), 1);
  const total = (name) => size(found[name].reduce((sum, value) => sum + value, 0) * BLOCK);
  const shown = KINDS.filter(([name]) => found[name].length && (name !== "changed" || since));
  const words = shown.map(([name, , meaning]) => `${meaning} ${total(name)}`);
  return [
    drawing("svg", { class: "cells", viewBox: `0 0 ${COLUMNS * CELL} ${rows * CELL}`, role: "img", "aria-label": `Map of ${device}, ${size(found.size)}: ${words.join(", ")}` },
      Array.from({ length: cells }, (_, at) => {
        const [name, opacity] = colour(found, at);
        return drawing("rect", { class: `fill-${name}`, "fill-opacity": opacity.toFixed(2), x: (at % COLUMNS) * CELL, y: Math.floor(at / COLUMNS) * CELL, width: CELL - 1, height: CELL - 1 });
      })),
    element("ul", { class: "key" }, shown.map(([name, swatch, meaning]) => element("li", { class: swatch }, `${meaning} `, element("span", { "data-map": name, "data-value": found[name].reduce((sum, value) => sum + value, 0) }, total(name)))),
      element("li", { class: "none" }, "unallocated")),
    element("p", { class: "note" }, `Each square is ${size(found.cell_blocks * BLOCK)}, in blocks of 256 KiB; the gravest colour wins.`)];
}

const fullest = (devices) =>
  [...devices].sort((one, other) => other.usage.allocated_bytes - one.usage.allocated_bytes)[0]?.name ?? null;

async function refresh() {
  try {
    const query = since ? `&since=${encodeURIComponent(since)}` : "";
    show(picture, drawn(await ask(`/v1/map/${encodeURIComponent(device)}?cells=${CELLS}${query}`)));
    drawnAt = Date.now();
  } catch (error) {
    show(picture, element("p", { class: "error" }, error.message));
  }
}

export function draw({ sample }) {
  const names = sample.devices.map((one) => one.name);
  if (!names.includes(device)) [device, since, asked] = [fullest(sample.devices), "", 0];
  byId("map").classList.toggle("hidden", device === null);
  if (device === null) return;
  const snapshots = (sample.snapshots?.value ?? []).filter((one) => one.device === device).map((one) => one.name);
  if (since && !snapshots.includes(since)) since = "";
  show(chooser, names.map((name) => option(name, device, name)));
  if (chooser.value !== device) chooser.value = device;
  show(snapshotChooser, option("", since, "not shown"), snapshots.map((name) => option(name, since, name)));
  picture.classList.toggle("stale", drawnAt !== null && Date.now() - drawnAt > 3000 * SECONDS_BETWEEN);
  if (seen && !document.hidden && Date.now() - asked > 1000 * SECONDS_BETWEEN) {
    asked = Date.now();
    refresh();
  }
}
