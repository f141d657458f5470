// Chips show and hide rows, columns, languages and plots. Without this script everything is shown.
(() => {
  const off = { intermediate: new Set(), target: new Set(), language: new Set() };
  const apply = () => {
    for (const [kind, hidden] of Object.entries(off)) {
      for (const part of document.querySelectorAll(`main [data-${kind}]`)) {
        part.classList.toggle(`off-${kind}`, hidden.has(part.dataset[kind]));
      }
    }
  };
  for (const chip of document.querySelectorAll("button[data-kind]")) {
    chip.addEventListener("click", () => {
      const hidden = off[chip.dataset.kind];
      const hide = !hidden.has(chip.dataset.value);
      hidden[hide ? "add" : "delete"](chip.dataset.value);
      chip.setAttribute("aria-pressed", String(!hide));
      apply();
    });
  }
})();
