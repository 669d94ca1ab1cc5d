// Is my data safe? Claims as the server makes them. What is older than it may be is grey, whatever it said.

import { ago, byId, element, moment, seconds, show, size } from "./dom.js";

export const HEARD_SECONDS = 5;
const WORDS = { good: "as it should be", bad: "look at this", unknown: "not known" };

function words(part, now) {
  if (typeof part === "string") return part;
  if ("time" in part) return moment(part.time, now);
  if ("age" in part) return ago(Math.max(now - part.age, 0));
  if ("seconds" in part) return seconds(part.seconds);
  return size(part.bytes);
}

const sentence = (parts, now) => parts.map((part) => words(part, now)).join("");

function drawn(claim, now, unheard) {
  const age = claim.at === null ? null : Math.max(now - claim.at, 0);
  const old = unheard > HEARD_SECONDS || (age !== null && age > claim.stale_seconds);
  const state = old ? "unknown" : claim.state;
  const since = unheard > HEARD_SECONDS ? unheard : age;
  return element("article", { class: `claim ${state}`, "data-claim": claim.name, "data-state": state },
    element("p", { class: "state" }, old ? `not known: the evidence is ${seconds(since)} old` : WORDS[state]),
    element("h3", {}, claim.title),
    element("p", { class: "says" }, sentence(claim.says, now)),
    element("p", { class: "evidence" }, [sentence(claim.evidence, now), age === null || claim.evidence.some((part) => part.age) ? "" : `seen ${ago(age)}`].filter(Boolean).join("; ")),
    element("p", { class: "red" }, `Red if: ${claim.red}.`));
}

export function draw({ sample, now, unheard }) {
  show(document.querySelector("#safe .claims"), sample.claims.map((claim) => drawn(claim, now, unheard)));
  show(byId("problems"), unheard > HEARD_SECONDS ? [] : sample.problems.map((problem) => element("p", {}, problem)));
}
