// Fetches the live part of the page periodically and replaces it if it has changed. Open details stay open. Without this
// script the page is complete, and the browser reloads it.
"use strict";

(() => {
  const live = document.getElementById("live");
  const pulse = document.getElementById("pulse");
  const seconds = Number(live.dataset.refreshSeconds) || 5;
  const announcement = document.getElementById("announcement");
  let shown = live.innerHTML;

  // What a screen reader announces: which version serves, and the reason of the rollout. The figures change too often.
  const summary = () => ["h1", "#rollout .reason"].map((each) => live.querySelector(each)?.textContent ?? "").join(" ");

  const swap = (text) => {
    if (text === shown) return;
    shown = text;
    const before = summary();
    const open = new Set([...live.querySelectorAll("details[open]")].map((each) => each.id));
    live.innerHTML = text;
    for (const each of live.querySelectorAll("details")) each.open = each.open || open.has(each.id);
    if (summary() !== before) announcement.textContent = summary();
  };

  const refresh = async () => {
    try {
      if (!document.hidden) {
        const response = await fetch("/live", { cache: "no-store" });
        if (!response.ok) throw new Error(String(response.status));
        swap(await response.text());
        pulse.dataset.state = "live";
        pulse.textContent = "live";
      }
    } catch {
      pulse.dataset.state = "lost";
      pulse.textContent = "connection lost, trying again";
    }
    setTimeout(refresh, seconds * 1000);
  };

  pulse.hidden = false;
  setTimeout(refresh, seconds * 1000);
})();
