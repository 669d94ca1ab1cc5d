// Deeds: the operations that commands ask for too. What cannot be undone is done once its name was typed.

import { byId, element, parseSize } from "./dom.js";
import { perform } from "./stream.js";

const SIZE = { name: "size", label: "Size, such as 10GiB", check: (text) => parseSize(text) > 0 || "a size is 10GiB, 10G or plain bytes" };
const named = (name, label) => ({ name, label, check: (text) => text.length > 0 || "a name is needed" });
const typed = (wanted) => ({ name: "typed", label: `Type ${wanted} to delete it`, check: (text) => text === wanted || "" });

const DEEDS = {
  create: () => ({ title: "Create a device", act: "create", fields: [named("name", "Name"), SIZE],
    operation: ({ name, size }) => ({ type: "create-device", name, size: parseSize(size) }) }),
  resize: (device) => ({ title: `Resize ${device}`, act: "resize", fields: [SIZE], note: "It can only grow here: nbdserver device resize makes one smaller.",
    operation: ({ size }) => ({ type: "resize-device", name: device, size: parseSize(size), shrink: false }) }),
  snapshot: (device) => ({ title: `Take a snapshot of ${device}`, act: "take it", fields: [named("name", "Name of the snapshot")],
    operation: ({ name }) => ({ type: "create-snapshot", devices: [device], snapshot: name, lasts: null }) }),
  clone: (device) => ({ title: `Clone ${device}`, act: "clone", fields: [named("name", "Name of the new device")],
    operation: ({ name }) => ({ type: "clone-device", device, snapshot: "", new: name }) }),
  delete: (device) => ({ title: `Delete ${device}`, act: "delete", danger: true, fields: [typed(device)], note: "The device and all its data go, for good.",
    operation: () => ({ type: "delete-device", name: device }) }),
  "delete-snapshot": (device, snapshot) => ({ title: `Delete ${device}@${snapshot}`, act: "delete", danger: true, fields: [typed(`${device}@${snapshot}`)],
    note: "What only this snapshot shows goes, for good.", operation: () => ({ type: "delete-snapshot", device, snapshot }) }),
  flush: () => ({ title: "Make everything durable", act: "flush", fields: [], note: "Returns when all that was written is in the store.", operation: () => ({ type: "flush" }) }),
};

function open(deed) {
  const dialog = byId("deed"), inputs = deed.fields.map((field) => element("input", { name: field.name, autocomplete: "off", required: true }));
  const said = element("p", { class: "error", role: "alert" });
  const act = element("button", { type: "submit", class: deed.danger ? "danger" : null, disabled: deed.danger }, deed.act);
  const wrong = () => deed.fields.map((field, at) => field.check(inputs[at].value)).find((answer) => answer !== true);
  if (deed.danger) inputs[0].addEventListener("input", () => { act.disabled = wrong() !== undefined; });
  const submit = async (event) => {
    event.preventDefault();
    const fault = wrong();
    if (fault !== undefined) { said.textContent = fault; return; }
    act.disabled = true;
    said.textContent = "";
    try {
      await perform(deed.operation(Object.fromEntries(inputs.map((input) => [input.name, input.value]))));
      dialog.close();
    } catch (error) {
      said.textContent = error.message;
      act.disabled = false;
    }
  };
  dialog.replaceChildren(element("form", { method: "dialog", onsubmit: submit },
    element("h2", { id: "deed-title" }, deed.title), deed.note ? element("p", {}, deed.note) : "",
    deed.fields.map((field, at) => element("label", {}, field.label, inputs[at])), said,
    element("div", { class: "row" }, element("button", { type: "button", onclick: () => dialog.close() }, "cancel"), act)));
  dialog.showModal();
}

export function begin() {
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.("[data-deed]");
    if (button) open(DEEDS[button.dataset.deed](button.dataset.name, button.dataset.snapshot));
  });
}
