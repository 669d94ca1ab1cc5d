// The page: asks for a token if it has none, follows the server, and draws each sample. Nothing is drawn as if it were
// new when it is not: the header says since when nothing was heard, and claims turn grey.

import * as clients from "./clients.js";
import * as cost from "./cost.js";
import { Curves } from "./curves.js";
import * as deeds from "./deeds.js";
import * as devices from "./devices.js";
import { byId, moment } from "./dom.js";
import { History } from "./history.js";
import * as map from "./map.js";
import * as safety from "./safety.js";
import * as snapshots from "./snapshots.js";
import * as speed from "./speed.js";
import { Refused, ask, dropToken, follow, keepToken, takeToken } from "./stream.js";
import * as tree from "./tree.js";

const PANELS = [safety, speed, cost, tree, devices, map, snapshots, clients];
const TICK = 500, CATCH_UP = 5000;

const state = { about: null, history: new History(), curves: new Curves(), heard: 0, skew: 0, reason: "connecting" };

function context() {
  const { about, history, curves } = state, sample = history.newest;
  const within = (stats) => (name) => stats.find((stat) => stat.name === name) ?? { name, meaning: "" };
  return {
    sample, about, history, curves, access: about.access, now: Date.now() / 1000 + state.skew,
    unheard: (performance.now() - state.heard) / 1000, listed: within(about.stats.store), listedOfDevice: within(about.stats.device),
  };
}

function say(place, words) {
  if (place.textContent !== words) place.textContent = words;
}

function tick() {
  if (!state.history.newest || document.hidden) return;
  const now = context();
  safety.draw(now);
  const lost = now.unheard > safety.HEARD_SECONDS;
  const grave = now.sample.verdict === "bad" || lost;
  say(byId("live"), lost ? `nothing heard since ${moment(now.now - now.unheard, now.now)}: ${state.reason}` : "live");
  document.title = `${grave ? "! " : ""}${now.sample.store.url} - nbdserver`;
  byId("panels").classList.toggle("lost", lost);
}

function onSample(sample) {
  state.history.add(sample);
  [state.heard, state.skew] = [performance.now(), sample.at - Date.now() / 1000];
  byId("panels").hidden = false;
  say(byId("where"), `${sample.store.url}, version ${sample.version}, process ${sample.pid}${sample.serving.stopping ? ", stopping" : ""}`);
  if (document.hidden) return;
  const now = context();
  for (const panel of PANELS) panel.draw(now);
  tick();
}

// What the server kept while nobody looked, and then each step as it is over; without it the page shows the rest.
async function catchUp() {
  if (document.hidden) return;
  try { state.curves.add(await ask(`/v1/curves?after=${state.curves.known}`)); } catch { /* the header says it */ }
}

async function run() {
  byId("ask").hidden = true;
  try {
    state.about = await ask("/v1/about");
    await catchUp();
    await follow(onSample, (reason) => { state.reason = reason; });
  } catch (error) {
    if (error instanceof Refused) { dropToken(); askForToken(error.message); } else {
      say(byId("live"), error instanceof TypeError ? "the server cannot be reached" : error.message);
      setTimeout(run, 3000);
    }
  }
}

function askForToken(reason) {
  byId("ask").hidden = false;
  byId("panels").hidden = true;
  say(byId("live"), reason);
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  keepToken(byId("token").value.trim());
  byId("token").value = "";
  run();
});
// An address with another token, on a page that is open, loads nothing by itself.
addEventListener("hashchange", () => { if (takeToken()) location.reload(); });
map.begin();
deeds.begin();
setInterval(tick, TICK);
setInterval(() => { if (state.about) catchUp(); }, CATCH_UP);
if (takeToken()) run(); else askForToken("a token is needed");
