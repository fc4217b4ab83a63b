"use strict";
/* Questionnaire of a reader study. Its data are the JSON of the element "study"; pictures have codes, and nothing here
   knows their methods. Answers live in the browser's storage until the reader saves them as a file. */
(() => {
  const study = JSON.parse(document.getElementById("study").textContent);
  const variants = Object.keys(study.variants);
  const STORE = `radlens-study-${study.study}`;
  const NAME = /^[\p{L}\p{N}_][\p{L}\p{N}_ .-]{0,39}$/u;
  const page = document.getElementById("page");
  const status = document.getElementById("status");
  const scores = [];
  for (let score = study.lowest; score <= study.highest; score++) scores.push(score);

  /* Each answer is a record of its own in an IndexedDB, which keeps the order of all windows: what one window writes undoes
     nothing of another. (localStorage is copied to each window's process, and a late copy was seen to lose answers.) */
  const KEYS = { page: "name", sheets: "session", answers: ["session", "code"] };
  const known = { current: null, sheets: {} };
  let database = null;
  let pending = 0;
  let warnedAt = null;

  const settled = (request) => new Promise((resolve, reject) => {
    request.onsuccess = () => resolve(request.result);
    request.onerror = () => reject(request.error);
  });

  function notStored() {
    document.getElementById("not-stored").hidden = false;
  }

  async function open() {
    const request = indexedDB.open(STORE, 1);
    request.onupgradeneeded = () => {
      for (const [name, keyPath] of Object.entries(KEYS)) request.result.createObjectStore(name, { keyPath });
    };
    database = await settled(request);
    database.onclose = notStored;
  }

  /* Takes over what other windows stored; of two answers to one question the later one counts. */
  async function refresh() {
    if (!database) return;
    try {
      const transaction = database.transaction(Object.keys(KEYS));
      const [pages, sheets, answers] = await Promise.all(
        Object.keys(KEYS).map((name) => settled(transaction.objectStore(name).getAll())));
      known.current = pages.find((each) => each.name === "current")?.session ?? null;
      for (const each of sheets) known.sheets[each.session] ??= { ...each, answers: {} };
      for (const { session: owner, code, score, at } of answers) {
        const mine = known.sheets[owner].answers;
        if (!mine[code] || mine[code].at < at) mine[code] = { score, at };
      }
    } catch (error) {
      notStored();
    }
  }

  /* A browser drops what it has not written when its page goes, so until then the page is busy, and asks who leaves it. */
  function waitFor(change) {
    pending += change;
    document.getElementById("progress").toggleAttribute("data-writing", pending > 0);
  }

  function keep(records) {
    try {
      const transaction = database.transaction(Object.keys(records), "readwrite");
      waitFor(1);
      transaction.oncomplete = () => waitFor(-1);
      transaction.onabort = () => {
        waitFor(-1);
        notStored();
      };
      for (const [name, record] of Object.entries(records)) transaction.objectStore(name).put(record);
      transaction.commit();
    } catch (error) {
      notStored();
    }
  }

  function keepSheet() {
    known.current = session;
    const { answers, ...rest } = sheet();
    keep({ page: { name: "current", session }, sheets: rest });
  }

  /* A window keeps its reader when another window changes to a different one. */
  let session = null;
  const sheet = () => known.sheets[session];
  const pages = () => study.variants[sheet().variant];
  const codeOf = (picture, criterion) => `${picture} ${criterion}`;
  const now = () => new Date().toISOString();
  const signed = (score) => (score < 0 ? `\u2212${-score}` : `${score}`);

  function openOf(index) {
    const answers = sheet().answers;
    return pages()[index].pictures.flatMap((picture) =>
      study.criteria.map((each) => codeOf(picture, each.name)).filter((code) => !(code in answers)));
  }
  const nOpen = () => pages().reduce((sum, _, index) => sum + openOf(index).length, 0);
  const nAll = () => pages().length * pages()[0].pictures.length * study.criteria.length;

  function make(tag, attributes = {}, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) {
      if (name === "onclick") element.addEventListener("click", value);
      else if (value === true) element.setAttribute(name, "");
      else if (value !== false && value !== null) element.setAttribute(name, value);
    }
    element.append(...children.filter((child) => child !== null));
    return element;
  }

  function show(heading, ...children) {
    const title = make("h1", { tabindex: "-1", id: "heading" }, heading);
    page.replaceChildren(title, ...children);
    status.textContent = "";
    progress();
    window.scrollTo(0, 0);
    return title;
  }

  function progress() {
    const bar = document.getElementById("progress");
    bar.hidden = !sheet();
    if (!sheet()) return;
    const [at, n, done] = [sheet().at, pages().length, nAll() - nOpen()];
    const where = at < n ? `Lesion ${at + 1} of ${n}` : "End";
    bar.querySelector("span").textContent = `${where}, ${done} of ${nAll()} answers given`;
    const meter = bar.querySelector("progress");
    meter.max = nAll();
    meter.value = done;
  }

  function go(index) {
    warnedAt = null;
    sheet().at = index;
    keepSheet();
    render();
    document.getElementById("heading").focus();
  }

  /* The first page: who answers, and which variant. */
  function begin() {
    const asked = variants.find((each) => `#${each}` === window.location.hash) || (variants.length === 1 ? variants[0] : null);
    const name = make("input", { id: "reader", type: "text", required: true, maxlength: "40", autocomplete: "off", "aria-describedby": "reader-help" });
    const choices = variants.map((each) =>
      make("label", { class: "choice" }, make("input", { type: "radio", name: "variant", value: each, required: true, checked: each === asked }), ` ${each}`));
    const form = make("form", { novalidate: true },
      make("p", {}, make("label", { for: "reader" }, "Your name or code"), name,
        make("small", { id: "reader-help" }, "As agreed with those who run the study. It is in the file of your answers.")),
      make("fieldset", { class: "variant", hidden: variants.length === 1 }, make("legend", {}, "Questionnaire, as in your invitation"), ...choices),
      make("button", { type: "submit", class: "main" }, "Begin or continue"));
    form.addEventListener("submit", (event) => {
      event.preventDefault();
      start(name.value.trim(), (form.querySelector("input[name=variant]:checked") || {}).value);
    });
    show(study.title, ...study.introduction.map((text) => make("p", {}, text)), form);
  }

  function start(reader, variant) {
    if (!NAME.test(reader)) {
      status.textContent = "Please give a name or code of 1 to 40 letters, digits, spaces, dots or hyphens.";
      document.getElementById("reader").focus();
      return;
    }
    if (!variant) {
      status.textContent = "Please choose the questionnaire that your invitation names.";
      page.querySelector("input[name=variant]").focus();
      return;
    }
    const earlier = Object.values(known.sheets).find((each) => each.reader.toLowerCase() === reader.toLowerCase());
    if (earlier && earlier.variant !== variant) {
      status.textContent = `${reader} has begun questionnaire ${earlier.variant} in this browser. Choose it to continue, or give another name.`;
      return;
    }
    const numbers = crypto.getRandomValues(new Uint32Array(4));
    session = earlier ? earlier.session : Array.from(numbers, (each) => each.toString(16).padStart(8, "0")).join("");
    known.sheets[session] ??= { reader, variant, session, started: now(), at: 0, answers: {} };
    go(sheet().at);
  }

  /* One lesion: its image, and beside it every method's picture with its scales. */
  function lesion(index) {
    const { lesion: code, pictures } = pages()[index];
    const name = `Lesion ${index + 1}`;
    const original = make("figure", { class: "card original" },
      make("img", { src: study.originals[code], alt: `${name}, the image itself` }),
      make("figcaption", {}, make("strong", {}, "The image itself"), ...(study.verdicts[code] ? [make("span", {}, study.verdicts[code])] : []), make("span", {}, study.legend),
        make("span", {}, `Scores go from ${signed(study.lowest)} (low) to ${signed(study.highest)} (high).`)));
    const cards = pictures.map((picture, place) =>
      make("section", { class: "card", "aria-label": `Picture ${place + 1}` },
        make("img", { src: study.pictures[picture], alt: `${name}, picture ${place + 1}: the image with a coloured explanation` }),
        make("h2", {}, `Picture ${place + 1}`),
        ...study.criteria.map((criterion) => scale(picture, place, criterion))));
    show(`${name} of ${pages().length}`, make("div", { class: "cards" }, original, ...cards), buttons(index));
  }

  function scale(picture, place, criterion) {
    const code = codeOf(picture, criterion.name);
    const given = sheet().answers[code];
    return make("fieldset", { class: "scale", "data-open": !given, "data-question": code },
      make("legend", {}, make("span", { class: "unseen" }, `Picture ${place + 1}, ${criterion.title}: `), criterion.question),
      make("div", { class: "scores" }, ...scores.map((score) => {
        const end = score === study.lowest ? ", lowest" : score === study.highest ? ", highest" : "";
        const radio = make("input", { type: "radio", name: code, value: score, checked: Boolean(given) && given.score === score, "aria-label": `${signed(score)}${end}` });
        radio.addEventListener("change", () => answer(code, score));
        return make("label", {}, radio, make("span", { "aria-hidden": "true" }, signed(score)));
      })));
  }

  function answer(code, score) {
    const given = { score, at: now() };
    sheet().answers[code] = given;
    keep({ answers: { session, code, ...given } });
    page.querySelector(`[data-question="${code}"]`).removeAttribute("data-open");
    progress();
  }

  function buttons(index) {
    const back = make("button", { type: "button", disabled: index === 0, onclick: () => go(index - 1) }, "Back");
    const next = make("button", { type: "button", class: "main", id: "next", onclick: () => onwards(index) }, index + 1 < pages().length ? "Next lesion" : "To the end");
    return make("p", { class: "buttons" }, back, next, saveButton());
  }

  /* The first attempt to leave a lesion with open answers leads to the first of them, the second goes on. */
  function onwards(index) {
    const open = openOf(index);
    if (!open.length || warnedAt === index) {
      go(index + 1);
      return;
    }
    warnedAt = index;
    status.textContent = `${open.length} answers to this lesion are open. Press the button again to go on without them.`;
    page.querySelector(`[data-question="${open[0]}"] input`).focus();
  }

  function end() {
    const incomplete = pages().map((_, index) => index).filter((index) => openOf(index).length);
    const rest = incomplete.map((index) =>
      make("li", {}, make("button", { type: "button", onclick: () => go(index) }, `Lesion ${index + 1}: ${openOf(index).length} open`)));
    show(nOpen() ? "Some answers are open" : "All answers are given",
      nOpen() ? make("ul", { class: "open" }, ...rest) : null,
      make("p", {}, study.closing),
      make("p", { class: "buttons" },
        make("button", { type: "button", onclick: () => go(pages().length - 1) }, "Back"),
        saveButton("main"),
        make("button", { type: "button", id: "other", onclick: other }, "Another reader")),
      make("details", {}, make("summary", {}, "If your browser saves no file"),
        make("p", {}, make("label", { for: "text" }, "Copy this text into a file and send it.")),
        make("textarea", { id: "text", readonly: true, rows: "6" }, contentOf())));
  }

  /* The answers of this reader stay in the browser. */
  function other() {
    session = null;
    keep({ page: { name: "current", session } });
    render();
    document.getElementById("heading").focus();
  }

  function contentOf() {
    const { reader, variant, started, answers } = sheet();
    const listed = pages().flatMap(({ pictures }) => pictures).flatMap((picture) =>
      study.criteria.map((each) => [picture, each.name, answers[codeOf(picture, each.name)]]));
    const given = listed.filter((each) => each[2]).map(([picture, criterion, found]) => ({ picture, criterion, ...found }));
    return JSON.stringify({ format: study.format, version: study.version, study: study.study, variant, reader, session, started, saved: now(), answers: given }, null, 1);
  }

  function saveButton(kind = "") {
    return make("button", { type: "button", class: kind, id: "save", onclick: save }, "Save answers as a file");
  }

  async function save() {
    await refresh();
    progress();
    const name = `answers-${study.study}-${sheet().variant}-${sheet().reader.replace(/[^\p{L}\p{N}_-]+/gu, "-")}.json`;
    const address = URL.createObjectURL(new Blob([contentOf()], { type: "application/json" }));
    const link = make("a", { href: address, download: name, hidden: true });
    document.body.append(link);
    link.click();
    link.remove();
    setTimeout(() => URL.revokeObjectURL(address), 10000);
    const open = nOpen();
    status.textContent = `Your browser saves ${name}${open ? `; ${open} answers are still open` : ""}.`;
  }

  function render() {
    if (!sheet()) begin();
    else if (sheet().at < pages().length) lesion(sheet().at);
    else end();
  }

  open().catch(notStored).then(refresh).then(() => {
    keep({ page: { name: "opened" } });  // a browser that stores nothing says so before the first answer
    if (known.sheets[known.current]) session = known.current;
    render();
    page.removeAttribute("aria-busy");
    window.addEventListener("focus", () => refresh().then(progress));
    window.addEventListener("beforeunload", (event) => {
      if (pending) event.preventDefault();
    });
  });
})();
