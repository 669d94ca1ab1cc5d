// The way to the server: a token in a header, never in an address or a cookie, and samples as server-sent events.

const KEY = "nbdserver-token";

export function takeToken() {
  const given = /^#token=([0-9a-f]{16,128})$/.exec(location.hash);
  if (given) {
    sessionStorage.setItem(KEY, given[1]);
    history.replaceState(null, "", location.pathname);
  }
  return sessionStorage.getItem(KEY);
}

export const keepToken = (token) => sessionStorage.setItem(KEY, token);
export const dropToken = () => sessionStorage.removeItem(KEY);

const headers = () => ({ Authorization: `Bearer ${sessionStorage.getItem(KEY)}` });

export class Refused extends Error {}

async function answered(response) {
  const text = await response.text();
  let answer;
  try { answer = JSON.parse(text); } catch { answer = { message: `${response.status} ${response.statusText}` }; }
  if (response.status === 401) throw new Refused(answer.message);
  if (!response.ok) throw new Error(answer.message);
  return answer;
}

export const ask = async (path) => answered(await fetch(path, { headers: headers(), cache: "no-store" }));

export const perform = async (operation) => answered(await fetch("/v1/operations", {
  method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(operation),
}));

async function read(onSample, onOpen) {
  const response = await fetch("/v1/events", { headers: headers(), cache: "no-store" });
  if (!response.ok) await answered(response);
  onOpen();
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    const { done, value } = await reader.read();
    if (done) return;
    const events = (rest + value).split("\n\n");
    rest = events.pop();
    for (const event of events) {
      if (event.startsWith("data: ")) onSample(JSON.parse(event.slice(6)));
    }
  }
}

// For ever, with pauses that grow to ten seconds; ends only when the token is refused.
export async function follow(onSample, onState) {
  let pause = 500;
  for (;;) {
    try {
      await read(onSample, () => { pause = 500; });
      onState("the server ended the stream");
    } catch (error) {
      if (error instanceof Refused) throw error;
      onState(error instanceof TypeError ? "the server cannot be reached" : error.message);
    }
    await new Promise((resolve) => setTimeout(resolve, pause));
    pause = Math.min(pause * 2, 10000);
  }
}
