// Elements and the words for figures. Text is only ever set as text: names come from whoever makes devices.

const SVG = "http://www.w3.org/2000/svg";

function fill(made, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) made.addEventListener(name.slice(2), value);
    else made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return made;
}

export const element = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const drawing = (name, attributes, ...children) =>
  fill(document.createElementNS(SVG, name), attributes, children);
export const byId = (name) => document.getElementById(name);

// Makes what is there the same as `children`, node by node: a focus, a selection and a reader's place stay. Nothing that
// is shown so has listeners of its own, since a node may come to stand for something else.
export function show(place, ...children) {
  const holder = document.createDocumentFragment();
  holder.append(...children.flat().filter((child) => child !== null && child !== undefined));
  become(place, holder);
}

function become(place, fresh) {
  const [olds, news] = [[...place.childNodes], [...fresh.childNodes]];
  news.forEach((node, at) => {
    const old = olds[at];
    if (!old) place.append(node);
    else if (old.nodeName !== node.nodeName) old.replaceWith(node);
    else if (node.nodeType === Node.TEXT_NODE) { if (old.data !== node.data) old.data = node.data; }
    else { sameAttributes(old, node); become(old, node); }
  });
  olds.slice(news.length).forEach((old) => old.remove());
}

function sameAttributes(old, node) {
  for (const { name } of [...old.attributes]) if (!node.hasAttribute(name)) old.removeAttribute(name);
  for (const { name, value } of node.attributes) if (old.getAttribute(name) !== value) old.setAttribute(name, value);
}

const UNITS = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

export function size(bytes) {
  let value = bytes, unit = 0;
  while (value >= 1024 && unit < UNITS.length - 1) { value /= 1024; unit += 1; }
  return `${unit ? Number(value.toPrecision(3)) : Math.round(value)} ${UNITS[unit]}`;
}

export function parseSize(text) {
  const found = /^\s*(\d{1,15})\s*(?:([KMGTP])(?:iB)?|B)?\s*$/i.exec(text);
  if (!found) return null;
  return Number(found[1]) * 1024 ** (found[2] ? 1 + "KMGTP".indexOf(found[2].toUpperCase()) : 0);
}

export const count = (value) => Math.round(value).toLocaleString("en");
export const rate = (value) => (value >= 10 || value === 0 ? count(value) : value.toFixed(1));
export const percent = (part, whole) => (whole ? `${Math.round(100 * part / whole)} %` : "none");

export function seconds(value) {
  if (value === null || Number.isNaN(value)) return "";
  if (!Number.isFinite(value)) return "> 100 s";
  if (value < 0.001) return `${Math.round(value * 1e6)} µs`;
  if (value < 1) return `${Number((value * 1000).toPrecision(2))} ms`;
  if (value < 120) return `${value < 10 ? value.toFixed(1) : Math.round(value)} s`;
  if (value < 7200) return `${Math.round(value / 60)} minutes`;
  if (value < 172800) return `${Math.round(value / 3600)} hours`;
  return `${Math.round(value / 86400)} days`;
}

export const ago = (value) => (value < 0.05 ? "now" : `${seconds(value)} ago`);

export function moment(at, now) {
  const date = new Date(at * 1000);
  const clock = date.toLocaleTimeString("en-GB");
  return Math.abs(now - at) < 43200 ? clock : `${date.toLocaleDateString("en-CA")} ${clock}`;
}

export function money(value, currency) {
  if (value >= 100) return `${count(value)} ${currency}`;
  if (value >= 0.1 || value === 0) return `${value.toFixed(2)} ${currency}`;
  return value < 1e-6 ? `under 0.000001 ${currency}` : `${value.toFixed(Math.max(1 - Math.floor(Math.log10(value)), 2))} ${currency}`;
}

// A figure of the server's list: what it says is its value as it came, for whoever checks the page against the server.
export function figure(stat, value, words) {
  const meaning = stat.formula ? `${stat.meaning}: ${stat.formula}` : stat.meaning;
  return element("span", { "data-stat": stat.name, "data-value": value, title: meaning }, words);
}

export const figures = (...pairs) =>
  element("dl", { class: "figures" }, pairs.map(([name, value]) => element("div", {}, element("dt", {}, name), element("dd", {}, value))));

export function table(caption, heads, rows) {
  const cell = (name, at) => (value) => element(name, { class: at?.text ? "text" : null, scope: name === "th" ? "col" : null }, value);
  return element("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    element("table", {},
      element("caption", {}, caption),
      element("thead", {}, element("tr", {}, heads.map((head) => cell("th", head)(head.name)))),
      element("tbody", {}, rows.map((row) => element("tr", {}, row.map((value, at) => cell("td", heads[at])(value)))))));
}
