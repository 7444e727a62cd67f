// A click on a task in a lane opens its explanation in place; without this it is a link that leads there.
"use strict";

const open = (hash) => {
  const found = hash.startsWith("#task:") && document.getElementById(decodeURIComponent(hash.slice(1)));
  if (!found || !found.showPopover) return false;
  if (!found.matches(":popover-open")) found.showPopover();
  return true;
};

document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  if (!link) return;
  const href = link.getAttribute("href") || "";
  if (open(href)) event.preventDefault();
});

open(location.hash);
