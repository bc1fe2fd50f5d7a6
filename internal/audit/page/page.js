"use strict";
// Sorts and filters the table of pipelines. The page is whole without it.
(() => {
	const table = document.getElementById("table");
	if (!table) return;
	const body = table.tBodies[0], rows = [...body.rows];
	const numbers = new Intl.Collator("en", { numeric: true });
	const heads = [...table.tHead.rows[0].cells];
	heads.forEach((head, column) => {
		const button = document.createElement("button");
		button.type = "button";
		button.textContent = head.textContent;
		head.replaceChildren(button);
		const of = (row) => column === heads.length - 1 ? row.dataset.worst : row.cells[column].textContent;
		button.addEventListener("click", () => {
			const up = head.getAttribute("aria-sort") !== "ascending";
			heads.forEach((other) => other.removeAttribute("aria-sort"));
			head.setAttribute("aria-sort", up ? "ascending" : "descending");
			rows.sort((a, b) => numbers.compare(of(a), of(b)) * (up ? 1 : -1));
			body.append(...rows);
		});
	});
	const filter = document.getElementById("filter"), filtered = document.getElementById("filtered");
	const texts = new Map(rows.map((row) => [row, row.textContent.toLowerCase()]));
	filter.closest("p").hidden = false;
	filter.addEventListener("input", () => {
		const words = filter.value.toLowerCase().split(/\s+/);
		let n = 0;
		for (const row of rows) {
			row.hidden = !words.every((word) => texts.get(row).includes(word));
			n += row.hidden ? 0 : 1;
		}
		filtered.textContent = filter.value.trim() ? `${n} of ${rows.length}` : "";
	});
})();
