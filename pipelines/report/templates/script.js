"use strict";
// Small comforts only: the page says the same without this script.
(() => {
  const matrix = document.querySelector("table.matrix");
  const readout = document.getElementById("readout");
  if (matrix && readout) {
    const columns = [...matrix.tHead.rows[0].cells];
    let lit = null;
    const show = (cell) => {
      if (lit) lit.classList.remove("lit");
      lit = null;
      if (!cell || cell.tagName !== "TD" || !cell.closest("tbody")) return;
      lit = columns[cell.cellIndex];
      lit.classList.add("lit");
      const row = cell.parentElement.cells[0].textContent;
      const column = lit.textContent;
      // titles would cover the cell beside the one that is read
      if (cell.title) { cell.dataset.says = cell.title; cell.removeAttribute("title"); }
      readout.textContent = cell.dataset.says || `${row} was never taken for ${column}.`;
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

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((d) => { d.open = true; }));
})();
