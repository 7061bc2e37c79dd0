"use strict";
(() => {
  const table = document.getElementById("cuts");
  if (!table) return;
  const body = table.tBodies[0];
  const rows = Array.from(body.rows);
  const filter = document.getElementById("filter");
  const all = document.getElementById("choose-all");
  const save = document.getElementById("save");
  const count = document.getElementById("count");
  const box = (row) => row.querySelector("input[type=checkbox]");
  const text = new Map(rows.map((row) => [row, Array.from(row.querySelectorAll("[data-find]"),
    (cell) => cell.textContent).join(" ").replace(/\s+/g, " ").toLowerCase()]));

  function refresh() {
    const shown = rows.filter((row) => !row.hidden);
    const chosen = rows.filter((row) => box(row).checked);
    const hidden = chosen.filter((row) => row.hidden).length;
    count.textContent = `${shown.length} of ${rows.length} cuts shown, ${chosen.length} chosen` +
      (hidden ? ` (${hidden} of them not shown)` : "");
    save.disabled = chosen.length === 0;
    all.checked = shown.length > 0 && shown.every((row) => box(row).checked);
    all.indeterminate = !all.checked && shown.some((row) => box(row).checked);
  }

  function value(row, column, numeric) {
    const found = row.cells[column].dataset.value;
    return numeric && found !== "" ? Number(found) : found;
  }

  function sort(head, direction) {
    const column = head.cellIndex;
    const numeric = head.dataset.type === "number";
    const sign = direction === "ascending" ? 1 : -1;
    const order = new Intl.Collator(undefined, { numeric: true });
    const keyed = rows.map((row) => [value(row, column, numeric), row]);
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");  // without a value: always last
      return sign * (numeric ? a - b : order.compare(a, b));
    });
    for (const other of table.tHead.rows[0].cells) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", direction);
    body.append(...keyed.map(([, row]) => row));
  }

  for (const button of table.tHead.querySelectorAll("button")) {
    button.addEventListener("click", () => {
      const head = button.closest("th");
      const first = head.dataset.type === "number" ? "descending" : "ascending";
      const second = first === "ascending" ? "descending" : "ascending";
      sort(head, head.getAttribute("aria-sort") === first ? second : first);
    });
  }

  filter.addEventListener("input", () => {
    const words = filter.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => text.get(row).includes(word));
    refresh();
  });

  all.addEventListener("change", () => {
    for (const row of rows) if (!row.hidden) box(row).checked = all.checked;
    refresh();
  });
  body.addEventListener("change", refresh);

  body.addEventListener("play", (event) => {  // one at a time
    for (const audio of body.querySelectorAll("audio")) if (audio !== event.target) audio.pause();
  }, true);

  save.addEventListener("click", () => {
    const ids = Array.from(body.rows).map(box).filter((one) => one.checked).map((one) => one.value);
    const file = new Blob(ids.map((id) => id + "\n"), { type: "text/plain" });
    const link = document.createElement("a");
    link.href = URL.createObjectURL(file);
    link.download = "suspected_label_errors.txt";
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 1000);
  });

  refresh();
})();
