// Fetches the live part of the page again and again, and swaps it in when it has changed. What a reader has opened
// stays open. Without this script the page is complete, and the browser reloads it by its own refresh.
"use strict";

(() => {
  const live = document.getElementById("live");
  const pulse = document.getElementById("pulse");
  const seconds = Number(live.dataset.refreshSeconds) || 5;
  const told = document.getElementById("told");
  let shown = live.innerHTML;

  // What a listener is told: which version answers, and why the rollout is where it is. The figures change too often.
  const said = () => ["h1", "#rollout .reason"].map((each) => live.querySelector(each)?.textContent ?? "").join(" ");

  const swap = (text) => {
    if (text === shown) return;
    shown = text;
    const before = said();
    const open = new Set([...live.querySelectorAll("details[open]")].map((each) => each.id));
    live.innerHTML = text;
    for (const each of live.querySelectorAll("details")) each.open = each.open || open.has(each.id);
    if (said() !== before) told.textContent = said();
  };

  const again = async () => {
    try {
      if (!document.hidden) {
        const answer = await fetch("/live", { cache: "no-store" });
        if (!answer.ok) throw new Error(String(answer.status));
        swap(await answer.text());
        pulse.dataset.state = "live";
        pulse.textContent = "live";
      }
    } catch {
      pulse.dataset.state = "lost";
      pulse.textContent = "connection lost, trying again";
    }
    setTimeout(again, seconds * 1000);
  };

  pulse.hidden = false;
  setTimeout(again, seconds * 1000);
})();
