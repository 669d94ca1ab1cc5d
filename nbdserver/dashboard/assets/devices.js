// Devices, and what may be done with them.

import { byId, element, figure, moment, show, size, table } from "./dom.js";

const HEADS = [{ name: "device" }, { name: "size" }, { name: "allocated" }, { name: "live" }, { name: "not durable" }, { name: "clients" }, { name: "made" }];
const DEEDS = ["resize", "snapshot", "clone", "delete"];

const acts = (name) => element("span", { class: "acts" }, DEEDS.map((deed) =>
  element("button", { type: "button", "data-deed": deed, "data-name": name, class: deed === "delete" ? "danger" : null, "aria-label": `${deed} ${name}` }, deed)));

export function draw({ sample, access, listedOfDevice, now }) {
  const may = access === "full" && !sample.store.read_only;
  const shown = (device, name) => element("span", { "data-device": device.name }, figure(listedOfDevice(name), device.usage[name], size(device.usage[name])));
  show(byId("devices"), element("h2", { id: "devices-title" }, "Devices"),
    may ? element("p", { class: "acts" }, element("button", { type: "button", "data-deed": "create" }, "create a device"),
      element("button", { type: "button", "data-deed": "flush" }, "flush"))
      : element("p", { class: "note" }, sample.store.read_only ? "This server only reads the store." : "This token may look, and change nothing."),
    sample.devices.length ? table("All devices of the store", [...HEADS, ...(may ? [{ name: "do", text: true }] : [])],
      sample.devices.map((device) => [device.name, shown(device, "logical_bytes"), shown(device, "allocated_bytes"), shown(device, "live_bytes"),
        shown(device, "unlogged_bytes"), `${device.clients}`, moment(device.created, now), ...(may ? [acts(device.name)] : [])]))
      : element("p", {}, "There are no devices yet."));
}
