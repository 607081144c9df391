#include "lowp/report/html.h"

#include <fmt/format.h>

#include <cmath>

namespace lowp::report {
namespace {

constexpr std::string_view kStyle = R"(
:root { color-scheme: light dark; --bg: #ffffff; --fg: #1b1f24; --muted: #5b6570; --line: #d5dae0; --band: #f4f6f8; --a: #1f6feb; --b: #c2500a;
  --c: #1a7f4b; --d: #8a3ffc; --e: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --bg: #14171b; --fg: #e4e8ec; --muted: #9aa4ae; --line: #363d45; --band: #1c2127; --a: #6cb0ff;
  --b: #ffa257; --c: #57cf8f; --d: #c49bff; --e: #ff8f87; } }
body { background: var(--bg); color: var(--fg); font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; margin: 2em auto; padding: 0 1.5em; max-width: 86em; }
a { color: var(--a); text-decoration: none; }
h1 { font-size: 1.5em; margin-bottom: 0.2em; } h1, dd { overflow-wrap: anywhere; } h2 { font-size: 1.15em; margin-top: 2em; }
.about, .notes { color: var(--muted); font-size: 0.9em; } .notes dt { float: left; min-width: 1.8em; } .notes dd { margin: 0 0 0.4em 2em; }
.wide { overflow-x: auto; } table { border-collapse: collapse; font-size: 0.87em; font-variant-numeric: tabular-nums; }
th, td { padding: 0.25em 0.6em; text-align: left; white-space: nowrap; border-bottom: 1px solid var(--line); } th { border-bottom: 2px solid var(--muted); vertical-align: bottom; }
th.sortable { cursor: pointer; } th[aria-sort=ascending]::after { content: " \2191"; } th[aria-sort=descending]::after { content: " \2193"; }
td.n, th.n { text-align: right; } tbody tr:nth-child(even) { background: var(--band); }
td.long { white-space: normal; min-width: 18em; }
svg { max-width: 100%; min-width: 46em; height: auto; display: block; margin: 0.5em 0 1.5em; } svg text { fill: var(--fg); paint-order: stroke; stroke: var(--bg); stroke-width: 3px; font: 11px system-ui, "Segoe UI", "DejaVu Sans", sans-serif; }
svg .title { font-size: 14px; font-weight: 600; } svg .muted { fill: var(--muted); } svg .axis { stroke: var(--muted); fill: none; } svg .grid { stroke: var(--line); }
svg .leader { stroke: var(--muted); stroke-width: 0.7; } svg .reference { stroke: var(--muted); stroke-dasharray: 5 4; } svg .cell { font-size: 10px; stroke: none; }
.s0 { fill: var(--a); stroke: var(--a); } .s1 { fill: var(--b); stroke: var(--b); } .s2 { fill: var(--c); stroke: var(--c); }
.s3 { fill: var(--d); stroke: var(--d); } .s4 { fill: var(--e); stroke: var(--e); } .line { fill: none; stroke-width: 2; }
)";

constexpr std::string_view kScript = R"(
for (const table of document.querySelectorAll("table")) table.querySelectorAll("th").forEach((head, column) => {
  head.classList.add("sortable");
  head.title = "sort";
  head.onclick = () => {
    const up = head.getAttribute("aria-sort") !== "ascending", body = table.tBodies[0];
    table.querySelectorAll("th").forEach(other => other.removeAttribute("aria-sort"));
    head.setAttribute("aria-sort", up ? "ascending" : "descending");
    const key = row => row.cells[column] ? row.cells[column].dataset.value ?? row.cells[column].textContent : "";
    const order = (a, b) => head.classList.contains("n") ? (a === "-") - (b === "-") || (up ? a - b : b - a) : up ? a.localeCompare(b) : b.localeCompare(a);
    [...body.rows].sort((a, b) => order(key(a), key(b))).forEach(row => body.append(row));
  };
});
)";

// A column is numeric if a cell has a value and the others have none to show.
bool numeric(const Grid& grid, std::size_t column) {
  bool any = false;
  for (const auto& row : grid.rows) {
    if (row[column].value)
      any = true;
    else if (row[column].text != "-")
      return false;
  }
  return any;
}

// A value as a script reads it.
std::string script_number(double value) {
  return std::isfinite(value) ? fmt::format("{}", value) : value > 0 ? "Infinity" : "-Infinity";
}

}  // namespace

std::string escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    if (c == '&')
      out += "&amp;";
    else if (c == '<')
      out += "&lt;";
    else if (c == '>')
      out += "&gt;";
    else if (c == '"')
      out += "&quot;";
    else if (static_cast<unsigned char>(c) < 0x20 && c != '\n' && c != '\t')
      out += '?';
    else
      out += c;
  }
  return out;
}

Cell number_cell(std::optional<double> value, std::string_view pattern) {
  if (!value || std::isnan(*value)) return {"-", std::nullopt};
  if (std::isinf(*value)) return {*value > 0 ? "exact" : "-inf", value};
  return {fmt::format(fmt::runtime(pattern), *value), value};
}

std::string html_table(const Grid& grid) {
  std::string out = fmt::format("<h2>{}</h2>\n<div class=\"wide\"><table>\n<thead><tr>", escape(grid.title));
  std::vector<bool> right;
  for (std::size_t c = 0; c < grid.columns.size(); ++c) {
    const Grid::Column& column = grid.columns[c];
    right.push_back(numeric(grid, c));
    const std::string note =
        column.note ? fmt::format("<sup><a href=\"#note{0}\">{0}</a></sup>", *column.note + 1) : "";
    out += fmt::format("<th{}>{}{}</th>", right[c] ? " class=\"n\"" : "", escape(column.title), note);
  }
  out += "</tr></thead>\n<tbody>\n";
  for (const auto& row : grid.rows) {
    out += "<tr>";
    for (std::size_t c = 0; c < row.size(); ++c) {
      const std::string value = row[c].value ? fmt::format(" data-value=\"{}\"", script_number(*row[c].value)) : "";
      const char* kind = right[c] ? " class=\"n\"" : row[c].text.size() > 40 ? " class=\"long\"" : "";
      out += fmt::format("<td{}{}>{}</td>", kind, value, escape(row[c].text));
    }
    out += "</tr>\n";
  }
  return out + "</tbody></table></div>\n";
}

std::string html_page(const std::string& title, const std::string& about, const std::string& body,
                      const std::vector<Note>& notes) {
  std::string foot;
  for (std::size_t i = 0; i < notes.size(); ++i)
    foot += fmt::format("<dt id=\"note{0}\">{0}</dt><dd><b>{1}</b>: {2}</dd>\n", i + 1, escape(notes[i].term),
                        escape(notes[i].text));
  return fmt::format(
      "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" "
      "content=\"width=device-width\">\n<title>{0}</title>\n<style>{1}</style>\n</head>\n"
      "<body>\n<h1>{0}</h1>\n<p class=\"about\">{2}</p>\n{3}<h2>How the numbers were made</h2>\n<dl "
      "class=\"notes\">\n{4}</dl>\n<script>{5}</script>\n</body>\n</html>\n",
      escape(title), kStyle, escape(about), body, foot, kScript);
}

}  // namespace lowp::report
