// The page stays true: where the workspace changes the parts that differ are fetched and put in their places.
"use strict";

const line = document.getElementById("live");
const parts = (from) => new Map([...from.querySelectorAll("[data-part]")].map((one) => [one.id, one]));
let known = new Map([...parts(document)].map(([id, part]) => [id, part.outerHTML]));
let busy = false;
let again = false;

// The button that opened an explanation, or the like of it: it may have been replaced meanwhile.
let opened = "";
document.addEventListener("click", ({ target }) => {
  const button = target.closest("[popovertarget]:not([popovertargetaction])");
  if (button) opened = button.closest("[data-part]").id;
});
const opener = (id) => {
  const like = `[popovertarget="${CSS.escape(id)}"]:not([popovertargetaction])`;
  return document.querySelector(`#${CSS.escape(opened || "needs")} ${like}`) || document.querySelector(like);
};

// What a person has opened, and where the keyboard is, stays so.
const keep = (part) => {
  const unfolded = [...part.querySelectorAll("details[open]")].map((one) => one.id);
  const shown = [...part.querySelectorAll("[popover]")].filter((one) => one.matches(":popover-open"));
  const at = document.activeElement;
  const focused = part.contains(at) ? { id: at.id, target: at.getAttribute("popovertarget") } : null;
  return (now) => {
    for (const id of unfolded) {
      const one = id && document.getElementById(id);
      if (one) one.open = true;
    }
    for (const { id } of shown) {
      const one = document.getElementById(id);
      if (!one) continue;
      opener(id)?.focus({ preventScroll: true }); // where the keyboard goes back to when it is closed
      one.showPopover();
    }
    if (!focused) return;
    const same = focused.id
      ? document.getElementById(focused.id)
      : [...now.querySelectorAll("[popovertarget]")].find(
          (one) => one.getAttribute("popovertarget") === focused.target,
        );
    if (same) same.focus({ preventScroll: true });
  };
};

const update = async () => {
  if (busy) {
    again = true;
    return;
  }
  busy = true;
  try {
    const answer = await fetch(location.pathname, { cache: "no-store", credentials: "omit" });
    if (!answer.ok) throw new Error(String(answer.status));
    const fresh = new DOMParser().parseFromString(await answer.text(), "text/html");
    const next = parts(fresh);
    for (const [id, part] of next) {
      const html = part.outerHTML;
      const old = document.getElementById(id);
      if (!old || known.get(id) === html) continue;
      const restore = keep(old);
      const now = document.adoptNode(part);
      old.replaceWith(now);
      restore(now);
      known.set(id, html);
    }
    document.title = fresh.title;
    say(`live, updated ${new Date().toISOString().slice(11, 19)} UTC`);
  } catch (error) {
    say("the server can't be reached; what is shown may be old");
  } finally {
    busy = false;
    if (again) {
      again = false;
      update();
    }
  }
};

const say = (text) => {
  line.textContent = text;
};

const events = new EventSource("events");
events.addEventListener("changed", update);
events.addEventListener("open", () => say("live"));
events.addEventListener("error", () => say("the server can't be reached; what is shown may be old"));

// "5 min ago" grows old by itself; the words are those of recovery/durations.py.
const ago = (seconds) => {
  for (const [size, name] of [[86400, "d"], [3600, "h"], [60, "min"]]) {
    if (seconds >= 2 * size) return `${Math.round(seconds / size)} ${name} ago`;
  }
  return `${Math.round(seconds)} s ago`;
};

setInterval(() => {
  for (const one of document.querySelectorAll("time.ago")) {
    one.textContent = ago(Math.max((Date.now() - Date.parse(one.dateTime)) / 1000, 0));
  }
}, 10000);
