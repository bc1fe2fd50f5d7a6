
"use strict";
// Carries texts between the form and encrypt, which judges and seals.

const at = (id) => document.getElementById(id);
const fields = ["Name", "Repos", "Recipients", "Pipelines", "Branches", "Tags", "Expires"];
const ticks = ["NoPullRequests", "AnyRepo", "Base64"];

// More bytes than any value has are not read: encrypt only has to see that it is too large.
const tooMuch = 1 << 20;

async function start() {
	at("result").hidden = true; // a saved page may show one
	const packed = atob(at("program").textContent);
	const bytes = new Uint8Array(packed.length);
	for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
	const program = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
	const go = new Go();
	const { instance } = await WebAssembly.instantiate(await new Response(program).arrayBuffer(), go.importObject);
	go.run(instance);
	look(); // a browser may have kept what was typed before a reload
}

function broken(text) {
	at("broken").textContent = text;
	at("broken").hidden = false;
	at("form").hidden = true;
	at("result").hidden = true;
	forget();
}

const ready = typeof WebAssembly === "object" && typeof DecompressionStream === "function"
	? start().catch(() => broken("This browser did not start the page’s program. Reload the page; in a browser that runs WebAssembly it works, and so does the program encrypt."))
	: Promise.resolve(broken("This browser is too old to seal: it lacks WebAssembly or DecompressionStream. Take Chrome or Edge 97, Firefox 113, Safari 16.4 or newer, or the program encrypt."));

// What the form holds.

const from = () => document.querySelector("input[name=from]:checked").value;

function typed() {
	const form = {};
	for (const id of fields) form[id] = at(id).value;
	for (const id of ticks) form[id] = at(id).checked;
	if (at("Expires").validity.badInput) form.Expires = "half a date";
	form.BuiltIn = at("pasted").hidden;
	if (from() === "line") form.Base64 = false; // its tick is not shown then
	return form;
}

async function value() {
	if (from() !== "file") return new TextEncoder().encode(at("Value-" + from()).value);
	const file = at("Value-file").files[0];
	return file ? new Uint8Array(await file.slice(0, tooMuch).arrayBuffer()) : new Uint8Array();
}

// forget drops the value from the page.
function forget() {
	for (const way of ["line", "lines", "file"]) at("Value-" + way).value = "";
	at("show").checked = false;
	veil();
}
addEventListener("pagehide", forget);

function veil() {
	at("Value-line").type = at("show").checked ? "text" : "password";
	at("Value-lines").classList.toggle("veiled", !at("show").checked);
}
at("show").addEventListener("change", veil);

function choose(way) {
	document.querySelector("input[name=from][value=" + way + "]").checked = true;
	for (const part of document.querySelectorAll("[data-from]")) part.hidden = !part.dataset.from.split(" ").includes(way);
	problem("Value");
}
for (const radio of document.querySelectorAll("input[name=from]")) radio.addEventListener("change", () => choose(radio.value));
choose(from());

// An input of one line would drop the line breaks of what is pasted, and nobody would see.
at("Value-line").addEventListener("paste", (event) => {
	const text = event.clipboardData.getData("text");
	if (!/[\r\n]/.test(text.replace(/\r?\n$/, ""))) return;
	event.preventDefault();
	const { value, selectionStart, selectionEnd } = at("Value-line");
	at("Value-lines").value = value.slice(0, selectionStart) + text + value.slice(selectionEnd);
	at("Value-line").value = "";
	choose("lines");
	at("Value-lines").focus();
});

// What encrypt says of it.

function paragraph(parent, text, hint) {
	parent.replaceChildren(text);
	if (hint) parent.append(Object.assign(document.createElement("span"), { textContent: hint }));
}

const control = (field) => at(field === "Value" ? "Value-" + from() : field);

// problem shows what is wrong in a field; without a text, that nothing is.
function problem(field, text, hint) {
	const error = at(field + "-error");
	if (text) paragraph(error, text, hint);
	else if (error.firstChild) error.replaceChildren();
	for (const input of error.parentElement.querySelectorAll("[aria-describedby~=" + error.id + "]")) {
		if (text) input.setAttribute("aria-invalid", "true");
		else input.removeAttribute("aria-invalid");
	}
	if (text && at("more").contains(error)) at("more").open = true;
}

// ask calls one of encrypt's functions, which run no more once one has failed.
function ask(what, ...args) {
	try {
		return JSON.parse(encrypt[what](JSON.stringify(typed()), ...args));
	} catch {
		broken("The page’s program has stopped: reload the page, and try again.");
	}
}

// look shows what a field means, and with done what is wrong in it.
function look(field, done) {
	if (typeof encrypt === "undefined") return;
	const answer = ask("look");
	if (!answer) return;
	at("Repos-shown").value = answer.Place && !at("AnyRepo").checked ? "Opens in " + answer.Place : "";
	at("Recipients-shown").value = answer.To && !at("pasted").hidden ? "To " + answer.To : "";
	if (!field) return;
	const found = (answer.Problems || []).find((p) => p.Field === field);
	if (!found) problem(field);
	else if (done && control(field).value) problem(field, found.Text, found.Hint);
}

// While a button of the mouse is down nothing may move: it would come up over
// something else, and be no click.
let down = false;
const settled = (f) => down ? addEventListener("pointerup", () => setTimeout(f), { once: true }) : f();
addEventListener("pointerdown", () => down = true, true);
for (const up of ["pointerup", "pointercancel"]) addEventListener(up, () => down = false, true);

let later;
for (const id of fields) {
	at(id).addEventListener("input", () => {
		clearTimeout(later);
		later = setTimeout(() => settled(() => look(id)), 300);
	});
	at(id).addEventListener("change", () => settled(() => look(id, true)));
}
at("AnyRepo").addEventListener("change", () => look("Repos", true));
for (const way of ["line", "lines", "file"]) at("Value-" + way).addEventListener("input", () => problem("Value"));

// Recipients that this page was built with.
ready.then(() => {
	const sites = typeof encrypt === "undefined" ? [] : encrypt.sites;
	if (sites.length === 0) return;
	at("sites").replaceChildren(...sites.map((site) => Object.assign(document.createElement("li"), { textContent: site })));
	at("built-in").hidden = false;
	at("pasted").hidden = !at("others").checked;
	at("others").addEventListener("change", () => {
		at("pasted").hidden = !at("others").checked;
		look("Recipients");
	});
});

// The result.

let sealed;

function show() {
	const renamed = at("rename").checked;
	at("output").value = renamed ? sealed.Renamed : sealed.Lines;
	at("carrier").textContent = /^ +(SECRET_\w+)/m.exec(at("output").value)[1];
	at("copied").textContent = "";
}
at("rename").addEventListener("change", show);

at("form").addEventListener("submit", async (event) => {
	event.preventDefault();
	at("result").hidden = true;
	at("status").textContent = "";
	await ready;
	const bytes = await value().catch(() => new Uint8Array()); // the file is gone: empty
	const answer = ask("seal", bytes);
	bytes.fill(0);
	if (!answer) return;

	for (const field of ["Value", ...fields]) problem(field);
	const problems = answer.Problems || [];
	for (const p of problems) if (p.Field) problem(p.Field, p.Text, p.Hint);
	const first = problems.find((p) => p.Field);
	if (problems.length > 0) {
		at("status").textContent = first ? "Nothing was sealed: see above." : problems[0].Text + ": " + problems[0].Hint;
		if (first) control(first.Field).focus();
		return;
	}

	forget();
	sealed = answer;
	at("closing").textContent = "It " + sealed.Closing + ".";
	at("notes").replaceChildren(...(sealed.Notes || []).map((n) => {
		const item = document.createElement("li");
		paragraph(item, n.Text, n.Hint);
		return item;
	}));
	at("variable").textContent = /SECRET_(\w+)/.exec(sealed.Lines)[0];
	at("rename").checked = false;
	at("other-name").hidden = !sealed.Rename;
	at("other").textContent = sealed.Rename;
	show();
	at("result").hidden = false;
	at("done").focus();
});

at("copy").addEventListener("click", async () => {
	let copied = true;
	try {
		await navigator.clipboard.writeText(at("output").value);
	} catch { // not from http, and not where the browser asks and hears no
		at("output").select();
		copied = document.execCommand("copy");
		at("copy").focus();
	}
	at("copied").textContent = copied ? "Copied" : "The browser refused: select the lines, and copy them by hand.";
});
