"use strict";
// The tab's token, the question before a change, the notice of an unreachable server, and text for screen readers.
(() => {
  const KEY = "backfill-token";
  const byId = (id) => document.getElementById(id);
  const field = byId("token");
  const dialog = byId("confirm");
  const offline = byId("offline");
  let lastAnswer = new Date();

  if (field) {
    field.value = sessionStorage.getItem(KEY) ?? "";
    field.addEventListener("input", () => sessionStorage.setItem(KEY, field.value.trim()));
    byId("token-form").addEventListener("submit", (event) => event.preventDefault());
  }
  document.body.addEventListener("htmx:configRequest", (event) => {
    if (event.detail.verb !== "get" && field?.value.trim()) {
      event.detail.headers.Authorization = `Bearer ${field.value.trim()}`;
    }
  });

  document.body.addEventListener("htmx:confirm", (event) => {
    if (!event.detail.question) return;
    event.preventDefault();
    byId("question").textContent = event.detail.question;
    dialog.returnValue = "";
    dialog.onclose = () => { if (dialog.returnValue === "yes") event.detail.issueRequest(true); };
    dialog.showModal();
  });

  document.body.addEventListener("htmx:beforeSwap", (event) => {
    const isLive = event.detail.target.hasAttribute("data-live");
    const isHtml = (event.detail.xhr.getResponseHeader("content-type") ?? "").startsWith("text/html");
    // Replacing a part while its question is open would remove the button, and the answer with it.
    if (isLive && dialog.open) event.detail.shouldSwap = false;
    // A live part keeps its content; any other part gives the reason beside the button.
    if (!isHtml || (isLive && event.detail.xhr.status >= 300)) {
      event.detail.shouldSwap = false;
      if (event.detail.xhr.status >= 400) say(`The server answered ${event.detail.xhr.status}; its log says why.`);
    }
  });
  document.body.addEventListener("htmx:afterRequest", (event) => {
    if (!event.detail.successful) return;
    lastAnswer = new Date();
    offline.hidden = true;
  });
  const say = (text) => {
    offline.textContent = `${text} This page shows the state at ${lastAnswer.toISOString().slice(11, 19)} UTC.`;
    offline.hidden = false;
  };
  for (const name of ["htmx:sendError", "htmx:timeout"]) {
    document.body.addEventListener(name, () => say("The server does not answer."));
  }

  const told = { say: "", ended: byId("now")?.dataset.ended };
  document.body.addEventListener("htmx:afterSettle", () => {
    const part = document.querySelector("[data-say]");
    if (part && part.dataset.say !== told.say) {
      told.say = part.dataset.say;
      byId("said").textContent = told.say;
    }
    const ended = byId("now")?.dataset.ended;
    if (ended !== told.ended) {
      told.ended = ended;
      htmx.trigger("#calendar", "refresh");
    }
  });

  // A plan belongs to the values of the form; changed values need a new plan.
  byId("form")?.addEventListener("input", () => { byId("plan").replaceChildren(); });
})();
