// What does it cost? Requests and bytes by class; with a price list a month's projection, and each device's share.

import { byId, count, element, figure, figures, money, percent, seconds, show, size, table } from "./dom.js";

const MONTH_SECONDS = 730 * 3600;
const CLASSES = { create: "write", put: "write", list: "write", get: "read", head: "read", delete: "deletion" };

function priced({ costs, uptime_seconds }, history, listed) {
  const pace = history.rate((each) => each.store.costs.requests_cost + each.store.costs.fetched_cost, 60);
  const shown = (name) => figure(listed(name), costs[name], money(costs[name], costs.currency));
  return figures([`a month, as in the ${seconds(uptime_seconds)} since the start`, shown("month_cost")],
    ["a month, as in the last minute", money(costs.stored_month_cost + pace * MONTH_SECONDS, costs.currency)],
    ["of that, what is stored", shown("stored_month_cost")], ["requests so far", shown("requests_cost")], ["fetched so far", shown("fetched_cost")]);
}

function budgeted({ budget }, listed) {
  const shown = (name, text) => figure(listed(name), budget[name], text);
  return figures(["requests of this month (UTC)", shown("month_requests", count(budget.month_requests))],
    ["of the whole month, as in the last six hours", shown("month_requests_projected", count(budget.month_requests_projected))],
    ["budget of a month", shown("request_budget", count(budget.request_budget))],
    ["background work takes longer", shown("background_slowdown", `${budget.background_slowdown.toFixed(1)} times`)]);
}

export function draw({ sample, history, listed }) {
  const { store, requests, devices } = sample;
  const shown = (name) => figure(listed(name), store[name], size(store[name]));
  const live = devices.reduce((sum, device) => sum + device.usage.live_bytes, 0);
  const share = (device) => (store.costs ? [money(live ? store.costs.stored_month_cost * device.usage.live_bytes / live : 0, store.costs.currency)] : []);
  show(byId("cost"), element("h2", { id: "cost-title" }, "What does it cost?"),
    store.costs ? priced(store, history, listed)
      : element("p", { class: "note" }, "There is no price list, so no cost: serve --prices aws-s3-standard, or prices of your own."),
    ...(store.budget ? [budgeted(store, listed)] : []),
    figures(["uploaded", shown("bytes_up")], ["fetched", shown("bytes_down")], ["stored", shown("stored_bytes")],
      ["uploaded for each byte written", figure(listed("write_amplification"), store.write_amplification, store.write_amplification.toFixed(2))],
      ["stored for each live byte", figure(listed("space_amplification"), store.space_amplification, store.space_amplification.toFixed(2))]),
    table("Requests to the store since it was opened", [{ name: "verb" }, { name: "class", text: true }, { name: "requests" }],
      Object.keys(requests).map((verb) => [verb, CLASSES[verb], element("span", { "data-stat": `requests.${verb}`, "data-value": requests[verb].count }, count(requests[verb].count))])),
    table("Devices: what is stored has no owner where several share it, so a share goes by live bytes",
      [{ name: "device" }, { name: "live" }, { name: "share" }, { name: "written" }, ...(store.costs ? [{ name: "storage a month" }] : [])],
      devices.map((device) => [device.name, size(device.usage.live_bytes), percent(device.usage.live_bytes, live), size(device.usage.written_bytes), ...share(device)])));
}
