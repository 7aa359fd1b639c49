"use strict";
(() => {
  const order = ["auto", "light", "dark"];
  const button = document.getElementById("theme");
  const stored = () => { try { return localStorage.getItem("theme"); } catch { return null; } };
  const apply = (theme) => {
    document.documentElement.dataset.theme = theme;
    button.querySelector("span").textContent = theme;
    document.dispatchEvent(new Event("themechange"));
  };
  button.hidden = false;
  apply(order.includes(stored()) ? stored() : "auto");
  button.addEventListener("click", () => {
    const next = order[(order.indexOf(document.documentElement.dataset.theme) + 1) % order.length];
    try { localStorage.setItem("theme", next); } catch { /* a page opened from a disk may have no storage */ }
    apply(next);
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    document.dispatchEvent(new Event("themechange"));
  });
})();
