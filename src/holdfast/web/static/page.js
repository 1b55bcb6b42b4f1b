// Fetches the live part of the page again and again, and swaps it in when it has changed. What a reader has opened
// stays open. Without this script the page is complete, and the browser reloads it by its own refresh.
"use strict";

(() => {
  const live = document.getElementById("live");
  const pulse = document.getElementById("pulse");
  const seconds = Number(live.dataset.refreshSeconds) || 5;
  let shown = live.innerHTML;

  const swap = (text) => {
    if (text === shown) return;
    shown = text;
    const open = new Set([...live.querySelectorAll("details[open]")].map((each) => each.id));
    live.innerHTML = text;
    for (const each of live.querySelectorAll("details")) each.open = each.open || open.has(each.id);
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
