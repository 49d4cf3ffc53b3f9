// Live numbers and local times. Every page works without this file.
//
// Elements with data-live and an id are fetched again with their page and swapped. What has the focus keeps it, what is
// scrolled or opened stays so, and a changed data-announce is read out.
"use strict";

const EVERY_MS = 3000;
const EVERY_MS_MAX = 60000; // While the server cannot be reached.

const shown = new Map(); // By id: the markup that came last.
const announcer = document.getElementById("announcer");
const parts = { month: "short", day: "numeric", hour: "numeric", minute: "2-digit" };
const local = new Intl.DateTimeFormat(undefined, parts);
const localOtherYear = new Intl.DateTimeFormat(undefined, { ...parts, year: "numeric" });

function localize(root) {
  for (const time of root.querySelectorAll("time[datetime]")) {
    const at = new Date(time.dateTime);
    if (Number.isNaN(at.getTime())) continue;
    const isThisYear = at.getFullYear() === new Date().getFullYear();
    time.textContent = (isThisYear ? local : localOtherYear).format(at);
  }
}

function announce(said) {
  if (said && announcer.textContent !== said) announcer.textContent = said;
}

function isBusy(region) {
  const selection = document.getSelection();
  if (selection && !selection.isCollapsed && region.contains(selection.anchorNode)) return true;
  return region.contains(document.activeElement) && document.activeElement.matches("input, select, textarea");
}

function scrolled(region) {
  return [region, ...region.querySelectorAll(".scroll")].map((one) => [one.scrollLeft, one.scrollTop]);
}

function swap(region, fresh) {
  if (shown.get(region.id) === fresh.innerHTML || isBusy(region)) return;
  shown.set(region.id, fresh.innerHTML);
  if (fresh.dataset.announce !== region.dataset.announce) {
    announce(fresh.dataset.announce);
    region.dataset.announce = fresh.dataset.announce;
  }
  const focused = region.contains(document.activeElement) ? document.activeElement : null;
  const focus = focused && { id: focused.id, href: focused.getAttribute("href"), label: focused.getAttribute("aria-label") };
  const opened = [...region.querySelectorAll("details[id][open]")].map((one) => one.id);
  const places = scrolled(region);
  localize(fresh);
  region.replaceChildren(...fresh.childNodes);
  for (const id of opened) document.getElementById(id)?.setAttribute("open", "");
  [region, ...region.querySelectorAll(".scroll")].forEach((one, index) => {
    if (places[index]) [one.scrollLeft, one.scrollTop] = places[index];
  });
  if (focus && focused !== region) {
    const same = [...region.querySelectorAll("a, button, summary, [tabindex]")].find((one) =>
      focus.id
        ? one.id === focus.id
        : one.getAttribute("href") === focus.href && one.getAttribute("aria-label") === focus.label);
    (same || document.getElementById("content")).focus({ preventScroll: true });
  }
}

async function refresh() {
  const answer = await fetch(location.href, { redirect: "manual", headers: { accept: "text/html" } });
  if (answer.type === "opaqueredirect" || answer.status === 401 || answer.status === 404) {
    location.reload(); // The session is over, or what was shown is gone.
    return false;
  }
  if (!answer.ok) throw new Error(`status ${answer.status}`);
  const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
  for (const region of document.querySelectorAll("[data-live][id]")) {
    const found = fresh.getElementById(region.id);
    if (found) swap(region, found);
  }
  return true;
}

async function follow() {
  let wait = EVERY_MS;
  for (let goesOn = true; goesOn; ) {
    await new Promise((done) => setTimeout(done, wait));
    if (document.hidden) continue;
    try {
      goesOn = await refresh();
      if (wait > EVERY_MS) announce("The server is back.");
      wait = EVERY_MS;
    } catch {
      announce("The server cannot be reached. What you see may be old.");
      wait = Math.min(wait * 2, EVERY_MS_MAX);
    }
  }
}

// Buttons with data-copy copy the text of the element of that id. Browsers let only pages over https, or of this
// machine, write to the clipboard; elsewhere the text is selected.
for (const button of document.querySelectorAll("button[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const text = document.getElementById(button.dataset.copy);
    try {
      await navigator.clipboard.writeText(text.textContent);
      announce("Copied.");
      button.textContent = "Copied";
    } catch {
      document.getSelection().selectAllChildren(text);
      announce("Selected. Copy it with your keyboard.");
    }
  });
}

localize(document);
if (document.querySelector("[data-live][id]")) follow();
