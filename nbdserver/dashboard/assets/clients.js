// Who is connected, and who is refused.

import { byId, count, element, moment, show, size, table } from "./dom.js";

const HEADS = [{ name: "client" }, { name: "device", text: true }, { name: "since" }, { name: "TLS", text: true }, { name: "may", text: true }, { name: "requests" }, { name: "written" }, { name: "read" }];

export function draw({ sample, now }) {
  const { clients, refused, listening } = sample.serving;
  show(byId("clients"), element("h2", { id: "clients-title" }, "Clients"),
    clients.length ? table("Connections now", HEADS, clients.map((one) => [`${one.id} ${one.peer}`, one.export ?? "in its handshake", moment(one.since, now), one.tls ?? "none",
      one.read_only === null ? "" : one.read_only ? "read" : "read and write", count(one.requests), size(one.bytes_received), size(one.bytes_sent)]))
      : element("p", {}, "Nobody is connected."),
    refused.map((one) => element("p", { class: "error" }, `${one.export} is refused to ${one.client}: nbdserver client accept ${one.export}`)),
    element("p", { class: "note" }, `Listening: ${listening.join(", ") || "nowhere"}.`));
}
