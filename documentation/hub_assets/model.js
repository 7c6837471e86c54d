// The page of a model: puts the hub's address into the code, and adds copy buttons.

const { hub, placeholder } = document.body.dataset;
const DONE_MS = 2000; // how long a button says that it copied

if (location.protocol.startsWith("http")) {
  const address = new URL(hub, location).href;
  for (const code of document.querySelectorAll("pre code")) {
    for (const base of [placeholder, placeholder.replace(/\/$/, "")]) {
      code.textContent = code.textContent.replaceAll(
        base,
        base.endsWith("/") ? address : address.replace(/\/$/, ""),
      );
    }
  }
}

// Browsers have a clipboard on secure pages only: https, localhost and 127.0.0.1.
if (navigator.clipboard) {
  for (const box of document.querySelectorAll(".code")) {
    box.append(copyButton(box.querySelector("code")));
  }
}

function copyButton(code) {
  const button = document.createElement("button");
  const heading = code.closest("details")?.querySelector("summary").firstChild;
  button.type = "button";
  button.textContent = "Copy";
  button.setAttribute("aria-label", `Copy: ${heading?.textContent.trim() ?? "code"}`);
  const status = document.createElement("span");
  status.className = "unseen";
  status.setAttribute("role", "status");
  button.addEventListener("click", async () => {
    let result = "Copied";
    try {
      await navigator.clipboard.writeText(code.textContent);
    } catch {
      result = "Not copied: the browser refused";
    }
    button.textContent = status.textContent = result;
    setTimeout(() => {
      button.textContent = "Copy";
      status.textContent = "";
    }, DONE_MS);
  });
  const both = document.createDocumentFragment();
  both.append(button, status);
  return both;
}
