"use strict";
// Keeps the page up to date: asks what has changed, and puts that in place.
const AFTER_A_FAULT = 10000; // ms
const note = document.getElementById("live");
const known = JSON.parse(document.querySelector("meta[name=etags]").content);
const base = location.pathname;
let timer = null, busy = false;

function say(text) {
  if (note.textContent !== text) note.textContent = text; // or it would be read aloud again
}

function put(section, html) {
  const reached = () => [...section.querySelectorAll("a[href], summary, [tabindex]")];
  const folds = () => [...section.querySelectorAll("details")];
  const wide = () => [...section.querySelectorAll(".wide")];
  const focus = reached().indexOf(document.activeElement);
  const open = folds().map((each) => each.open);
  const scrolled = wide().map((each) => each.scrollLeft);
  const title = section.querySelector("h2");
  while (title.nextSibling) title.nextSibling.remove();
  title.insertAdjacentHTML("afterend", html);
  folds().forEach((each, number) => { each.open = open[number] ?? false; });
  wide().forEach((each, number) => { each.scrollLeft = scrolled[number] ?? 0; });
  if (focus >= 0) reached()[focus]?.focus({ preventScroll: true });
}

async function replace(key) {
  const section = document.getElementById(key), chosen = getSelection();
  if (!chosen.isCollapsed && section.contains(chosen.anchorNode)) return; // someone is copying from it
  const answer = await fetch(`${base}section/${key}`);
  if (!answer.ok) return;
  put(section, await answer.text());
  known[key] = answer.headers.get("ETag");
}

async function refresh() {
  let wait = AFTER_A_FAULT;
  busy = true;
  try {
    const answer = await fetch(`${base}state`);
    if (answer.ok) {
      const now = await answer.json();
      for (const [key, etag] of Object.entries(now.etags)) if (known[key] !== etag) await replace(key);
      say(now.sentence);
      wait = now.next_ms;
    } else {
      say(await answer.text());
    }
  } catch {
    say("The dashboard does not answer: start it again, and open the address that it prints.");
  }
  busy = false;
  if (!document.hidden) timer = setTimeout(refresh, wait);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden && !busy) refresh();
});
refresh();
