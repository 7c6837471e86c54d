// Filters and sorting for the table of all archs; without scripts it is all there.
addEventListener("DOMContentLoaded", () => {
  const box = document.querySelector(".archs");
  if (!box) return;
  const body = box.querySelector("tbody");
  const rows = [...body.rows];
  const text = (row, column) => row.cells[column].textContent.trim();
  const number = (row, column) => Number.parseFloat(text(row, column).replaceAll(",", ""));
  const [FAMILY, PARAMS, TOP1, WEIGHTS] = [1, 2, 6, 7];

  const field = (name, control) => {
    const label = document.createElement("label");
    label.append(name, control);
    return label;
  };
  const input = (properties) => Object.assign(document.createElement("input"), properties);
  const select = (options) => {
    const control = document.createElement("select");
    for (const [value, shown] of options) control.add(new Option(shown, value));
    return control;
  };
  const families = [...new Set(rows.map((row) => text(row, FAMILY)))];
  const controls = {
    name: input({ type: "search", placeholder: "mobilenet" }),
    family: select([["", "any"], ...families.map((family) => [family, family])]),
    params: select([["", "any"], [3, "up to 3 million"], [10, "up to 10 million"],
      [30, "up to 30 million"], [100, "up to 100 million"]]),
    top1: select([["", "any"], [70, "from 70 %"], [75, "from 75 %"], [80, "from 80 %"],
      [85, "from 85 %"]]),
    weights: select([["", "any"], ["trained", "there are some"]]),
  };
  const shown = document.createElement("output");
  const form = document.createElement("form");
  form.className = "filters";
  form.append(field("Name", controls.name), field("Family", controls.family),
    field("Parameters", controls.params), field("Top-1", controls.top1),
    field("Trained weights", controls.weights), shown);
  form.addEventListener("submit", (event) => event.preventDefault());

  const fits = (row) =>
    text(row, 0).includes(controls.name.value.trim().toLowerCase())
    && (!controls.family.value || text(row, FAMILY) === controls.family.value)
    && (!controls.params.value || number(row, PARAMS) <= Number(controls.params.value))
    && (!controls.top1.value || number(row, TOP1) >= Number(controls.top1.value))
    && (!controls.weights.value || number(row, WEIGHTS) > 0);
  const apply = () => {
    for (const row of rows) row.hidden = !fits(row);
    const left = rows.filter((row) => !row.hidden).length;
    shown.textContent = `${left} of ${rows.length} archs`;
  };
  form.addEventListener("input", apply);
  box.before(form);
  apply();

  for (const [column, head] of [...box.querySelectorAll("thead th")].entries()) {
    const button = Object.assign(document.createElement("button"), { type: "button" });
    button.append(...head.querySelector("p")?.childNodes ?? head.childNodes);
    head.replaceChildren(button);
    button.addEventListener("click", () => {
      const down = head.getAttribute("aria-sort") === "ascending";
      for (const other of box.querySelectorAll("th")) other.removeAttribute("aria-sort");
      head.setAttribute("aria-sort", down ? "descending" : "ascending");
      const key = (row) => {
        const value = number(row, column);
        return Number.isNaN(value) ? text(row, column) : value;
      };
      const order = (a, b) => {
        const [x, y] = [key(a), key(b)];
        if (typeof x !== typeof y) return typeof x === "number" ? -1 : 1;
        return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1);
      };
      body.append(...rows.sort(order));
    });
  }
});
