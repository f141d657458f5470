// Asks the server every few seconds for the parts of the page that changed, and says how old what is shown is.
// Chips show and hide rows, columns and languages. Without this script the page is whole, and reloads itself.
(() => {
  const body = document.body, every = 1000 * Number(body.dataset.every);
  const line = document.getElementById("refreshed"), trouble = document.getElementById("trouble");
  const pause = document.getElementById("pause");
  const off = {};
  let made = body.dataset.age === "" ? null : performance.now() - 1000 * Number(body.dataset.age);
  let going = true, answers = true;

  const parts = () => [...document.querySelectorAll("[data-part]")];
  const long = (s) => (s < 90 ? `${Math.round(s)} s` : s < 5400 ? `${Math.round(s / 60)} min` : `${(s / 3600).toFixed(1)} h`);

  const filter = () => {
    for (const [kind, hidden] of Object.entries(off)) {
      for (const part of document.querySelectorAll(`main [data-${kind}]:not(button)`)) {
        part.classList.toggle(`off-${kind}`, hidden.has(part.dataset[kind]));
      }
      for (const chip of document.querySelectorAll(`button[data-kind="${kind}"]`)) {
        chip.setAttribute("aria-pressed", String(!hidden.has(chip.dataset.value)));
      }
    }
  };
  document.addEventListener("click", (event) => {
    const chip = event.target.closest("button[data-kind]");
    if (!chip) return;
    const hidden = (off[chip.dataset.kind] ??= new Set());
    hidden[hidden.has(chip.dataset.value) ? "delete" : "add"](chip.dataset.value);
    filter();
  });

  const tell = () => {
    const age = made === null ? null : (performance.now() - made) / 1000;
    line.textContent = age === null ? "not read yet" : `refreshed ${long(age)} ago`;
    if (!going) line.textContent += ", paused";
  };
  const say = (text) => {
    const code = (words) => Object.assign(document.createElement("code"), { textContent: words });
    const parts = text.split("`").map((words, i) => (i % 2 ? code(words) : words));
    if (trouble.textContent !== text.replaceAll("`", "")) trouble.replaceChildren(...parts);
    trouble.hidden = text === "";
  };

  // What a reader has opened, focused and scrolled to stays so. The server has escaped what it sends.
  const swap = (part, { version, html }) => {
    const open = [...part.querySelectorAll("details[open]")].map((one) => one.id);
    const scrolled = [...part.querySelectorAll(".scroll, pre")].map((one) => [one.scrollLeft, one.scrollTop]);
    const links = "a, button, summary, [tabindex]";
    const focused = [...part.querySelectorAll(links)].indexOf(document.activeElement);
    part.innerHTML = html;
    part.dataset.version = version;
    for (const id of open) document.getElementById(id)?.setAttribute("open", "");
    part.querySelectorAll(".scroll, pre").forEach((one, i) => {
      if (scrolled[i]) [one.scrollLeft, one.scrollTop] = scrolled[i];
    });
    if (focused >= 0) part.querySelectorAll(links)[focused]?.focus({ preventScroll: true });
  };

  const look = async () => {
    const have = parts().map((part) => `${part.dataset.part}:${part.dataset.version}`).join(",");
    const address = body.dataset.look;
    try {
      const answer = await fetch(`${address}${address.includes("=") ? "&" : ""}have=${encodeURIComponent(have)}`, { cache: "no-store" });
      if (!answer.ok) throw new Error(String(answer.status));
      const found = await answer.json();
      answers = true;
      made = found.age === null ? null : performance.now() - 1000 * found.age;
      for (const part of parts()) {
        if (found.parts[part.dataset.part]) swap(part, found.parts[part.dataset.part]);
      }
      if (Object.keys(found.parts).length) filter();
      say(found.problem);
      body.dataset.looked = String(Number(body.dataset.looked ?? 0) + 1);
    } catch {
      answers = false;
      say("The dashboard does not answer; start it again with `xstilts dashboard`.");
    }
    tell();
  };
  const loop = async () => {
    if (going && !document.hidden) await look();
    setTimeout(loop, answers ? every : 2 * every);
  };

  pause.hidden = false;
  pause.addEventListener("click", () => {
    going = !going;
    pause.textContent = going ? "pause" : "go on";
    if (going) look();
    tell();
  });
  document.addEventListener("visibilitychange", () => { if (going && !document.hidden) look(); });
  setInterval(tell, 1000);
  tell();
  setTimeout(loop, made === null ? 500 : every);
})();
