"use strict";
// Small comforts only: the page says the same without this script.
(() => {
  const matrix = document.querySelector("table.matrix");
  const readout = document.getElementById("readout");
  if (matrix && readout) {
    readout.hidden = false;
    const show = (cell) => {
      const link = cell?.querySelector("a");
      readout.textContent = link ? link.getAttribute("aria-label") : "";
    };
    matrix.addEventListener("pointerover", (event) => show(event.target.closest("td")));
    matrix.addEventListener("focusin", (event) => show(event.target.closest("td")));
  }

  for (const table of document.querySelectorAll("table.sortable")) {
    const heads = [...table.tHead.rows[0].cells];
    heads.forEach((head, index) => {
      if (head.hasAttribute("data-fixed")) return;
      const button = document.createElement("button");
      button.type = "button";
      button.append(...head.childNodes);
      head.append(button);
      button.addEventListener("click", () => {
        const down = head.getAttribute("aria-sort") === "ascending";
        heads.forEach((other) => other.removeAttribute("aria-sort"));
        head.setAttribute("aria-sort", down ? "descending" : "ascending");
        const key = (row) => row.cells[index].textContent.trim();
        const number = (text) => { const n = parseFloat(text.replaceAll(",", "")); return Number.isNaN(n) ? -1 : n; };
        const numeric = index > 0 && !head.classList.contains("text");
        const rows = [...table.tBodies[0].rows].sort((a, b) =>
          numeric ? number(key(a)) - number(key(b)) : key(a).localeCompare(key(b)));
        table.tBodies[0].append(...(down ? rows.reverse() : rows));
      });
    });
  }

  for (const block of document.querySelectorAll("pre")) {
    if (!navigator.clipboard) break;
    const button = document.createElement("button");
    button.type = "button";
    button.className = "copy";
    button.textContent = "Copy";
    button.addEventListener("click", async () => {
      await navigator.clipboard.writeText(block.querySelector("code").textContent + "\n");
      button.textContent = "Copied";
    });
    block.after(button);
  }
})();
