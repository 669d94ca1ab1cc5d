// Who is connected, who is refused, and what clients waited long for.

import { ago, byId, count, element, moment, seconds, show, size, table } from "./dom.js";

const HEADS = [{ name: "client" }, { name: "device", text: true }, { name: "since" }, { name: "TLS", text: true }, { name: "may", text: true }, { name: "requests" }, { name: "written" }, { name: "read" }, { name: "slow, newest", text: true }];
const SLOW = [{ name: "when" }, { name: "client" }, { name: "device", text: true }, { name: "operation", text: true }, { name: "length" }, { name: "at" }, { name: "took" }, { name: "outcome", text: true }, { name: "where the time went", text: true }];

function story({ spent, requests, tries, objects }, took) {
  const parts = Object.entries(spent).filter(([, value]) => value >= 0.01 * took).sort(([, one], [, two]) => two - one);
  const said = parts.map(([name, value]) => `${name} ${seconds(value)}`);
  if (requests) said.push(`${requests} GETs of ${objects.join(" ")}${tries > 1 ? `, tried ${tries} times` : ""}`);
  return said.join(", ");
}

const row = (one, now) => [moment(one.at, now), `${one.client} ${one.peer}`, one.device, one.operation.replace("_", " "), one.length ? size(one.length) : "",
  one.length ? size(one.offset) : "", element("span", { "data-slow": one.operation, "data-value": one.seconds }, seconds(one.seconds)), one.outcome, story(one, one.seconds)];

function newest(slow, id, now) {
  const own = slow.find((one) => one.client === id);
  if (!own) return "none";
  return own.outcome === "under way" ? `${own.operation} under way for ${seconds(own.seconds)}` : `${own.operation}, ${seconds(own.seconds)}, ${ago(Math.max(now - own.at - own.seconds, 0))}`;
}

export function draw({ sample, now }) {
  const { clients, refused, listening } = sample.serving, { slow } = sample;
  show(byId("clients"), element("h2", { id: "clients-title" }, "Clients"),
    clients.length ? table("Connections now", HEADS, clients.map((one) => [`${one.id} ${one.peer}`, one.export ?? "in its handshake", moment(one.since, now), one.tls ?? "none",
      one.read_only === null ? "" : one.read_only ? "read" : "read and write", count(one.requests), size(one.bytes_received), size(one.bytes_sent), newest(slow, one.id, now)]))
      : element("p", {}, "Nobody is connected."),
    refused.map((one) => element("p", { class: "error" }, `${one.export} is refused to ${one.client}: nbdserver client accept ${one.export}`)),
    slow.length ? table("Slow operations: what is under way, and then the newest that took 0.1 s or more", SLOW, slow.map((one) => row(one, now)))
      : element("p", { class: "note" }, `No operation took 0.1 s or more since the server began ${ago(sample.store.uptime_seconds)}.`),
    element("p", { class: "note" }, `Listening: ${listening.join(", ") || "nowhere"}.`));
}
